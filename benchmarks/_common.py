"""What the benchmarks share: conformers, tables, and the comparison of figures with their targets."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import operator
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io import read

#: Organic molecules of ASE's G2 set; with the two of the demo they have 16.5 atoms on average in the mixture below.
_SMALL = (
    *('C6H6', 'C5H8', 'isobutane', 'trans-butane', 'cyclobutane', 'CH3CH2OCH3', 'isobutene', 'C3H8', 'C4H4NH'),
    *('C5H5N', 'CH3COCH3', 'C3H9N', 'CH3CH2NH2', 'C2H6CHOH'),
)


def conformers(number: int, seed: int = 1, kind: Literal['mixed', 'small', 'large'] = 'mixed') -> list[Atoms]:
    """Return rattled and turned organic molecules of H, C, N and O.

    :param kind: ``mixed``: of 10 to 26 atoms, 16.5 on average; ``small``: those of ASE; ``large``: two isomers of
        C11H12O3, 26 atoms
    """
    random = np.random.default_rng(seed)
    small = [molecule(name) for name in _SMALL]
    data = resources.files('aiida_mlpotential.cli') / 'demo_data'
    large = [read(str(data / f'ISOL24_{name}.xyz')) for name in ('i14e', 'i14p')]
    share = {'mixed': 0.33, 'small': 0.0, 'large': 1.0}[kind]
    found = []
    for _ in range(number):
        pool = large if random.random() <= share else small
        atoms = pool[random.integers(len(pool))].copy()
        atoms.rotate(random.uniform(0, 360), random.normal(size=3))
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        found.append(atoms)
    return found


@dataclasses.dataclass(frozen=True)
class Figure:
    """A measured figure with its target."""

    name: str
    value: float
    target: float
    #: ``>=`` or ``<=``.
    relation: str = '>='
    unit: str = ''

    @property
    def met(self) -> bool:
        """Return whether the target is reached."""
        compare: Callable[[float, float], bool] = {'>=': operator.ge, '<=': operator.le}[self.relation]
        return bool(compare(self.value, self.target))

    def __str__(self) -> str:
        mark = 'ok' if self.met else 'MISSED'
        return f'{self.name} {self.value:.3g}{self.unit} ({self.relation} {self.target:g}{self.unit}: {mark})'


def arguments(description: str | None, threads: int = 2) -> argparse.Namespace:
    """Read the command line that all benchmarks have, and fix the threads before any library is loaded."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--quick', action='store_true', help='fewer structures and repeats: under a minute')
    parser.add_argument('--threads', type=int, default=threads, help=f'threads of either side, {threads}')
    found = parser.parse_args()
    os.environ['OMP_NUM_THREADS'] = str(found.threads)
    return found


def report(headers: Sequence[str], rows: Sequence[Sequence[object]], figures: Sequence[Figure]) -> None:
    """Print the table and, as the last line, the figures against their targets; exit 1 below a target."""
    from tabulate import tabulate

    print(tabulate(rows, headers=headers, floatfmt='.3f'))
    print('; '.join(str(figure) for figure in figures))
    sys.exit(0 if all(figure.met for figure in figures) else 1)


def parameter_file(name: str, directory: Path) -> Path:
    """Return the canonical parameters of a pre-parameterised model, from wherever they can be had."""
    from aiida_mlpotential.library import fetch_parameters
    from aiida_mlpotential.worker.registry import PRETRAINED

    model = PRETRAINED[name]
    target = directory / model.file
    print(f'{name}: {fetch_parameters(model, target)}')
    return target


def reference_model(path: Path) -> Any:
    """Return torchani's own model with these parameters."""
    from aiida_mlpotential.worker.backends.torchani.interop import to_torchani
    from aiida_mlpotential.worker.backends.torchani.parameters import AniParameters

    return to_torchani(AniParameters.read(path))


def worker_job(
    path: Path, name: str, structures: Sequence[Atoms], directory: Path, task: str, parameters: Mapping[str, Any]
) -> Callable[[], float]:
    """Return a function that runs a job of a pre-parameterised model; it returns its seconds without loading.

    :param path: the canonical parameters
    :param directory: the work directory, made here
    """
    from aiida_mlpotential.worker.frames import Frames, sha256_of
    from aiida_mlpotential.worker.registry import PRETRAINED
    from aiida_mlpotential.worker.runner import run_job
    from aiida_mlpotential.worker.schema import FRAMES_FILE, RESULTS_FILE, JobSpec, ModelSpec

    entry = PRETRAINED[name]
    (directory / 'model').mkdir(parents=True)
    os.link(path, directory / 'model' / path.name)
    Frames.from_ase(structures).write(directory / FRAMES_FILE)
    files = {f'model/{path.name}': entry.sha256}
    spec = ModelSpec(name, 'torchani', entry.sha256, files, entry.elements, entry.ensemble_size, 'Hartree')
    job = JobSpec(task, spec, {**parameters, 'device': 'cpu'}, sha256_of(directory / FRAMES_FILE))

    def run() -> float:
        for left_over in ('arrays', 'checkpoint'):
            shutil.rmtree(directory / left_over, ignore_errors=True)
        begin = time.perf_counter()
        assert run_job(lambda: job, directory)
        loading = json.loads((directory / RESULTS_FILE).read_text())['timings']['load']
        return time.perf_counter() - begin - float(loading)

    return run


@contextlib.contextmanager
def temporary_profile(directory: Path) -> Iterator[Any]:
    """Load an AiiDA profile of its own, with this machine as computer, and yield a code for the running Python."""
    os.environ['AIIDA_PATH'] = str(directory)
    from aiida import orm
    from aiida.manage.configuration import create_profile, get_config, profile_context

    config = get_config(create=True)
    profile = create_profile(
        config, storage_backend='core.sqlite_dos', storage_config={}, name='benchmark', email='benchmark@localhost'
    )
    config.set_option('runner.poll.interval', 1, scope=profile.name)
    config.store()
    with profile_context(profile.name):
        computer = orm.Computer(
            label='localhost',
            hostname='localhost',
            transport_type='core.local',
            scheduler_type='core.direct',
            workdir=str(directory / 'work'),
        ).store()
        computer.configure(safe_interval=0)
        computer.set_minimum_job_poll_interval(0.2)
        computer.set_default_mpiprocs_per_machine(1)
        yield orm.InstalledCode(label='python', computer=computer, filepath_executable=sys.executable).store()


@contextlib.contextmanager
def daemon_profile(directory: Path) -> Iterator[Any]:
    """Load a profile with a broker and a running daemon, as users have one, and yield a code for the running Python."""
    os.environ['AIIDA_PATH'] = str(directory)
    os.environ['PYTHONPATH'] = str(Path(__file__).parent)  # the daemon runs a workflow from here
    (directory / '.aiida').mkdir()
    verdi = functools.partial(subprocess.run, check=True, capture_output=True, text=True)
    verdi(['verdi', 'presto', '--use-zeromq', '--profile-name', 'benchmark'])
    from aiida import load_profile, orm

    load_profile('benchmark')
    computer = orm.load_computer('localhost')
    computer.configure(safe_interval=0, use_login_shell=False)
    code = orm.InstalledCode(label='python', computer=computer, filepath_executable=sys.executable).store()
    verdi(['verdi', '-p', 'benchmark', 'daemon', 'start', '2'])
    try:
        yield code
    finally:
        verdi(['verdi', '-p', 'benchmark', 'daemon', 'stop'])
