"""What a screening costs: against one calculation a structure, and against the worker alone on the same cores."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import Figure, arguments, conformers, daemon_profile, report

OPTIONS = arguments(__doc__)
MODELS = ('ANI-1ccx',) if OPTIONS.quick else ('ANI-2x', 'ANI-1ccx')
NUMBER, ROUNDS, SINGLES = (4000, 1, 4) if OPTIONS.quick else (20_000, 3, 8)
#: From so many structures on the share of the worker is to be 75 %: below it the start and end of jobs weigh more.
LARGE = 20_000
#: Kind and number of the structures of each set; what AiiDA costs weighs more where molecules are small.
SETS: tuple[tuple[str, str, int], ...] = (
    ('26 atoms', 'large', NUMBER),
    ('16.5 atoms', 'mixed', NUMBER),
    ('16.5 atoms', 'mixed', 2 * NUMBER),
)[: 1 if OPTIONS.quick else None]
PARAMETERS = {'properties': ['energy', 'forces']}


def bare(directory: Path, model: Any, frames: Any, n_workers: int) -> float:
    """Return the seconds that so many workers need for all structures, each with its share of the threads."""
    import numpy as np

    from aiida_mlpotential.archive import worker_archive
    from aiida_mlpotential.worker.frames import sha256_of
    from aiida_mlpotential.worker.schema import FRAMES_FILE, JOB_FILE, RESULTS_FILE, WORKER_FILE, JobSpec

    places = []
    for number, chosen in enumerate(np.array_split(np.arange(len(frames)), n_workers)):
        place = directory / f'worker-{number}'
        place.mkdir(parents=True)
        (place / WORKER_FILE).write_bytes(worker_archive())
        frames.select(chosen).write(place / FRAMES_FILE)
        for _, source, target in model.copy_list():
            (place / target).parent.mkdir(parents=True, exist_ok=True)
            (place / target).write_bytes(model.base.repository.get_object_content(source, mode='rb'))
        parameters = {**PARAMETERS, 'num_threads': OPTIONS.threads // n_workers}
        job = JobSpec('single_point', model.to_spec(), parameters, sha256_of(place / FRAMES_FILE))
        (place / JOB_FILE).write_text(job.to_json())
        places.append(place)
    begin = time.perf_counter()
    command = [sys.executable, WORKER_FILE, JOB_FILE]
    workers = [subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL) for place in places]
    assert [worker.wait() for worker in workers] == [0] * n_workers
    seconds = time.perf_counter() - begin
    assert all((place / RESULTS_FILE).is_file() for place in places)
    return seconds


def finish(process: Any, **inputs: Any) -> tuple[Any, float]:
    """Submit a process to the daemon and return its node when it has ended, and the seconds that it took.

    It is looked at seldom, as that takes time of the cores; the end is when AiiDA changed the node last.
    """
    from aiida.engine import submit

    begin = time.time()
    node = submit(process, **inputs)
    while not node.is_terminated:
        time.sleep(1)
    return node, node.mtime.timestamp() - begin


def screen(code: Any, model: Any, structures: Any) -> float:
    """Return the seconds of a screening, from the input nodes to the merged and ranked results.

    It has a slice for each core, as :func:`bare` has a worker in its better layout.
    """
    from aiida.plugins import WorkflowFactory

    node, seconds = finish(
        WorkflowFactory('mlpotential.screening'),
        structures=structures,
        models={'ani': model},
        code=code,
        parameters={**PARAMETERS, 'num_threads': 1},
        slice_size=-(-len(structures) // OPTIONS.threads),
        reuse=False,
    )
    assert node.is_finished_ok, node.exit_message
    assert node.outputs.results.ani.n_ok == len(structures)
    return seconds


def one_by_one(code: Any, model: Any) -> float:
    """Return the seconds a structure of calculations of one structure each, as many at once as there are cores."""
    from _singles import Singles
    from aiida import orm

    structures = {f's{index}': orm.StructureData(ase=atoms) for index, atoms in enumerate(conformers(SINGLES, seed=5))}
    parameters = orm.Dict({**PARAMETERS, 'num_threads': 1})
    node, seconds = finish(
        Singles,
        code=code,
        model=model,
        structures=structures,
        parameters=parameters,
        at_once=OPTIONS.threads,
    )
    assert node.is_finished_ok
    assert all(child.is_finished_ok for child in node.called)
    return seconds / SINGLES


def compare(code: Any, model: Any, structures: Any, directory: Path) -> tuple[float, float, float]:
    """Return the seconds of one worker with all threads, of one worker for each core, and of the screening.

    All take turns, several times; what is returned are the medians.
    """
    found = []
    for turn in range(ROUNDS):
        frames = structures.get_frames()
        layouts = [bare(directory / f'{turn}-{n}', model, frames, n) for n in (1, OPTIONS.threads)]
        found.append((*layouts, screen(code, model, structures)))
        print(directory.name, 'worker {:.1f} workers {:.1f} screening {:.1f} s'.format(*found[-1]))
    one, several, screening = (statistics.median(column) for column in zip(*found, strict=True))
    return one, several, screening


def table_of(label: str, number: int, single: float, times: tuple[float, float, float]) -> tuple[list[Any], list[Any]]:
    """Return the rows and the figures of one set with one model.

    :param single: seconds of one calculation a structure
    :param times: as :func:`compare` returns them
    """
    one, several, screening = times
    names = ('screening', '  one worker with all threads', '  one worker for each core')
    rows = [
        [f'{label}: {name}' if name == 'screening' else name, seconds, 1000 * seconds / number]
        for name, seconds in zip(names, (screening, one, several), strict=True)
    ]
    figures = [Figure(f'{label}: against one calculation a structure', single * number / screening, 300, unit='x')]
    if number >= LARGE:
        figures += [
            Figure(f'{label}: of one worker with all threads', 100 * one / screening, 75, unit=' %'),
            Figure(f'{label}: of one worker for each core', 100 * several / screening, 75, unit=' %'),
        ]
    return rows, figures


def main() -> None:
    """Measure all in turn, several times, and compare the medians."""
    rows, figures = [], []
    with tempfile.TemporaryDirectory() as name, daemon_profile(Path(name)) as code:
        from aiida.plugins import DataFactory

        from aiida_mlpotential.library import get_model

        node_class = DataFactory('mlpotential.structures')
        sets = {
            f'{number} of {atoms}': node_class.from_ase(conformers(number, 1, kind)).store()
            for atoms, kind, number in SETS
        }
        models = {label: get_model(label, report=print) for label in MODELS}
        for model_name, model in models.items():
            single = one_by_one(code, model)
            rows.append([f'{model_name}: one calculation a structure, {OPTIONS.threads} at once', None, 1000 * single])
            for set_name, structures in sets.items():
                label = f'{model_name}, {set_name}'
                times = compare(code, model, structures, Path(name) / label)
                more_rows, more_figures = table_of(label, len(structures), single, times)
                rows += more_rows
                figures += more_figures
    report(('what', 'seconds', 'ms a structure'), rows, figures)


if __name__ == '__main__':
    main()
