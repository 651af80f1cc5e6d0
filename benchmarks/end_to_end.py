"""What AiiDA costs: time and storage of jobs through submission, worker, parser and database, on this machine."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import Figure, arguments, conformers, report, temporary_profile

OPTIONS = arguments(__doc__)
MODEL = 'ANI-1ccx'


def stored_bytes(directory: Path) -> int:
    """Return the size of database and repository, packed as ``verdi storage maintain`` leaves them."""
    command = ['verdi', '-p', 'benchmark', 'storage', 'maintain', '--force']
    subprocess.run(command, check=True, capture_output=True)
    storages = list(directory.rglob('*.sqlite')) + list(directory.rglob('packs/*')) + list(directory.rglob('loose/*/*'))
    return sum(path.stat().st_size for path in set(storages) if path.is_file())


def run(code: Any, model: Any, number: int, seed: int) -> tuple[float, Any]:
    """Run a job of so many structures and return its seconds, from input nodes to output nodes."""
    from aiida.engine import run_get_node
    from aiida.plugins import CalculationFactory, DataFactory

    structures = conformers(number, seed=seed)
    begin = time.perf_counter()
    _, node = run_get_node(
        CalculationFactory('mlpotential.single_point'),
        code=code,
        model=model,
        structures=DataFactory('mlpotential.structures').from_ase(structures),
        parameters={'num_threads': OPTIONS.threads},
    )
    seconds = time.perf_counter() - begin
    assert node.is_finished_ok, node.exit_message
    assert node.outputs.output_parameters['n_ok'] == number
    return seconds, node


def main() -> None:
    """Measure a job of one structure, and one of many."""
    number = 1000
    repeats = 1 if OPTIONS.quick else 3
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with temporary_profile(directory) as code:
            from aiida_mlpotential.library import get_model

            model = get_model(MODEL, report=print)
            singles = sorted(run(code, model, 1, seed)[0] for seed in range(repeats))
            before = stored_bytes(directory)
            many, node = run(code, model, number, seed=100)
            timings = node.outputs.output_parameters['timings']
            storage = (stored_bytes(directory) - before) / number
            atoms = node.inputs.structures.n_atoms / number
    fixed = singles[len(singles) // 2]
    rows = [
        ['job of 1 structure', fixed, ''],
        [f'job of {number} structures', many, f'{1000 * many / number:.2f} ms a structure'],
        ['  of which model', timings['evaluate'], f'{1000 * timings["evaluate"] / number:.2f} ms a structure'],
        ['  of which loading', timings['load'], ''],
        [f'storage ({atoms:.1f} atoms)', '', f'{storage:.0f} bytes a structure, all nodes of the job included'],
    ]
    figures = [
        Figure('time a structure', 1000 * many / number, 10, '<=', ' ms'),
        Figure('fixed cost of a job', fixed, 8, '<=', ' s'),
        Figure('storage a structure', storage, 1000, '<=', ' bytes'),
    ]
    report(('what', 'seconds', ''), rows, figures)


if __name__ == '__main__':
    main()
