"""Structures per second of the worker against the loop over each backend library's own ASE calculator.

Each backend is measured in an environment of its own, in which both sides run in turn with the same threads on the
same rattled molecules. The worker's time is that of a whole job without the loading of the model, as for the loop.
Environments are those that the installer made (``--environments DIRECTORY``, one folder a backend), or the running
Python where it has the library; a backend without either is left out with a note. The calculator of PiNN needs
TensorFlow 2.15 or older.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import all_changes

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / 'tests' / 'fixtures'
#: Least ratio of the worker to the loop.
TARGETS = {'torchani': 6.0, 'schnetpack': 3.0, 'pinn': 3.0, 'sgdml': 1.0}
#: Model of each backend, with the unit of its energies.
MODELS: dict[str, tuple[str, str]] = {
    'torchani': ('torchani/custom_full_ani.pt', 'Hartree'),
    'schnetpack': ('schnetpack/best_model', 'kcal/mol'),
    'pinn': ('pinn/pinet2_ev', 'eV'),
    'sgdml': ('sgdml/ethanol_kcal_ang.npz', 'kcal/mol'),
}
#: Largest difference allowed between both sides, eV and eV/angstrom: most calculators compute in single precision.
TOLERANCES = {'torchani': (5e-3, 2e-3), 'schnetpack': (5e-3, 2e-3), 'pinn': (0.0, 0.0), 'sgdml': (1e-6, 1e-6)}


def structures(number: int, only_ethanol: bool) -> list[Atoms]:
    """Return rattled molecules of H, C and O; for sGDML of one kind, with the atoms in one order."""
    random = np.random.default_rng(1)
    names = ['CH3CH2OH'] if only_ethanol else ['CH3CH2OH', 'CH3OH', 'H2O', 'CH3CH2OH', 'CH3OCH3', 'CH3COOH']
    found = []
    for index in range(number):
        atoms = molecule(names[index % len(names)])
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        found.append(atoms)
    return found


def torchani_calculator(path: Path) -> Any:
    """Return torchani's own calculator; the file is ours."""
    import torch

    return torch.load(path, weights_only=False)['model'].ase()


def schnetpack_calculator(path: Path) -> Any:
    """Return SchNetPack's own calculator, with what it needs on a recent torch."""
    import torch

    loader = torch.utils.data.dataloader
    if not hasattr(loader, 'T_co'):
        loader.T_co = loader._T_co
    load = torch.load
    torch.load = lambda *args, **kwargs: load(*args, **{**kwargs, 'weights_only': False})
    from schnetpack.interfaces import SpkCalculator
    from schnetpack.transform import MatScipyNeighborList

    try:
        return SpkCalculator(
            str(path), neighbor_list=MatScipyNeighborList(cutoff=5.0), energy_unit='kcal/mol', position_unit='Ang'
        )
    finally:
        torch.load = load


def sgdml_calculator(path: Path) -> Any:
    """Return sGDML's own calculator, in one process and with the library's default chunks.

    Left to itself it measures which chunks are fastest, writes what it found beside the library, and on a busy machine
    takes chunks of one training point for ever after: ten times slower than the default.
    """
    from sgdml.intf.ase_calc import SGDMLCalculator
    from sgdml.predict import GDMLPredict

    prepare = GDMLPredict.prepare_parallel
    GDMLPredict.prepare_parallel = lambda *args, **kwargs: None
    try:
        return SGDMLCalculator(str(path))
    finally:
        GDMLPredict.prepare_parallel = prepare


def pinn_calculator(path: Path) -> Any:
    """Return PiNN's own calculator."""
    import pinn
    import tensorflow as tf

    if not hasattr(tf, 'estimator'):
        raise RuntimeError(f'the calculator of PiNN does not run on TensorFlow {tf.__version__}')
    return pinn.get_calc(str(path), properties=['energy', 'forces'])


CALCULATORS: Mapping[str, Callable[[Path], Any]] = {
    'torchani': torchani_calculator,
    'schnetpack': schnetpack_calculator,
    'pinn': pinn_calculator,
    'sgdml': sgdml_calculator,
}


def run_loop(calculator: Any, frames: list[Atoms]) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the seconds of the loop, energies (eV) and forces (eV/angstrom).

    Both are asked for at once: ``get_potential_energy`` and then ``get_forces`` make the calculators of torchani and
    SchNetPack compute everything twice, and sGDML's gives an energy of shape ``(1,)``.
    """
    energies, forces = [], []
    begin = time.perf_counter()
    for atoms in frames:
        calculator.calculate(atoms, ['energy', 'forces'], all_changes)
        energies.append(float(np.squeeze(calculator.results['energy'])))
        forces.append(np.array(calculator.results['forces']))
    return time.perf_counter() - begin, np.array(energies), np.concatenate(forces)


def worker(backend: str, frames: list[Atoms], directory: Path, threads: int) -> Callable[[], float]:
    """Return a function that runs the job and returns its seconds without the loading of the model."""
    import shutil

    from aiida_mlpotential.worker.backends import BACKENDS, get_backend
    from aiida_mlpotential.worker.frames import Frames, sha256_of
    from aiida_mlpotential.worker.runner import run_job
    from aiida_mlpotential.worker.schema import FRAMES_FILE, RESULTS_FILE, JobSpec, ModelSpec

    name, unit = MODELS[backend]
    source = FIXTURES / name
    facts = get_backend(backend).inspect(source)
    (directory / 'model').mkdir()
    paths = [path for path in source.rglob('*') if path.is_file()] if source.is_dir() else [source]
    for path in paths:
        shutil.copy(path, directory / 'model' / path.name)
    Frames.from_ase(frames).write(directory / FRAMES_FILE)
    spec = ModelSpec(
        name,
        backend,
        '0' * 64,
        {f'model/{path.name}': sha256_of(path) for path in paths},
        facts.elements,
        facts.ensemble_size,
        unit,
        BACKENDS[backend].distance_unit,
        options=facts.options,
    )
    parameters = {'num_threads': threads, 'device': 'cpu'}
    job = JobSpec('single_point', spec, parameters, sha256_of(directory / FRAMES_FILE))

    def run() -> float:
        shutil.rmtree(directory / 'arrays', ignore_errors=True)
        begin = time.perf_counter()
        done = run_job(lambda: job, directory)
        seconds = time.perf_counter() - begin
        info = json.loads((directory / RESULTS_FILE).read_text())
        assert done, info['error']
        return seconds - float(info['timings']['load'])

    return run


def measure(backend: str, number: int, repeats: int, threads: int) -> dict[str, Any]:
    """Time both sides in turn and check that their numbers agree."""
    frames = structures(number, backend == 'sgdml')
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        run_worker = worker(backend, frames, directory, threads)
        run_worker()
        try:
            calculator = CALCULATORS[backend](FIXTURES / MODELS[backend][0])
        except RuntimeError as exception:
            return {'reason': str(exception)}
        if 'torch' in sys.modules:
            sys.modules['torch'].set_num_threads(threads)
        run_loop(calculator, frames[:6])
        loops, ours = [], []
        for _ in range(repeats):
            seconds, energies, forces = run_loop(calculator, frames)
            loops.append(seconds)
            ours.append(run_worker())
        found = {key: np.load(directory / 'arrays' / f'{key}.npy') for key in ('energies', 'forces')}
    energy, force = TOLERANCES[backend]
    worst = [float('nan')] * 2
    if backend != 'pinn':  # whose calculator returns the results of structures before, of another number of atoms
        worst = [float(np.abs(found[key] - of).max()) for key, of in (('energies', energies), ('forces', forces))]
        assert worst[0] <= energy, f'energies differ by {worst[0]} eV'
        assert worst[1] <= force, f'forces differ by {worst[1]} eV/angstrom'
    ratios = [loop / own for loop, own in zip(loops, ours, strict=True)]
    return {
        'loop': 1000 * statistics.median(loops) / number,
        'worker': 1000 * statistics.median(ours) / number,
        'ratio': statistics.median(ratios),
        'least': min(ratios),
        'worst': worst,
    }


def python_of(backend: str, environments: Path | None) -> str | None:
    """Return the Python that has the library of a backend, if there is one."""
    for path in sorted(environments.glob(f'{backend}*/bin/python')) if environments is not None else ():
        return str(path)
    return sys.executable if importlib.util.find_spec(backend) is not None else None


def main() -> None:
    """Measure every backend in its environment and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--quick', action='store_true', help='fewer structures and repeats')
    parser.add_argument('--threads', type=int, default=1, help='threads of either side, 1')
    parser.add_argument('--environments', type=Path, help='folder of the environments, one for each backend')
    parser.add_argument('--measure', choices=TARGETS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    number, repeats = (60, 2) if options.quick else (300, 5)
    if options.measure:
        print(json.dumps(measure(options.measure, number, repeats, options.threads)))
        return
    from _common import Figure, report

    rows, figures = [], []
    settings = {
        'OMP_NUM_THREADS': str(options.threads),
        'TF_NUM_INTRAOP_THREADS': str(options.threads),
        'TF_NUM_INTEROP_THREADS': '1',
        'TF_USE_LEGACY_KERAS': '1',
        'TORCHANI_NO_WARN_EXTENSIONS': '1',
        'PYTHONPATH': str(ROOT),
    }
    arguments = ['--threads', str(options.threads), *(['--quick'] if options.quick else [])]
    for backend, target in TARGETS.items():
        python = python_of(backend, options.environments)
        if python is None:
            print(f'{backend} is left out: its library is in no environment')
            continue
        command = [python, __file__, '--measure', backend, *arguments]
        process = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
        if process.returncode != 0:
            sys.exit(f'{backend} failed:\n{process.stderr}')
        result = json.loads(process.stdout.splitlines()[-1])
        if 'reason' in result:
            print(f'{backend} is left out: {result["reason"]}')
            continue
        rows.append([backend, *(result[key] for key in ('loop', 'worker', 'ratio', 'least')), *result['worst']])
        figures.append(Figure(backend, result['ratio'], target, unit='x'))
    headers = ('backend', 'loop (ms)', 'worker (ms)', 'ratio (median)', 'ratio (least)', 'worst eV', 'worst eV/A')
    report(headers, rows, figures)


if __name__ == '__main__':
    main()
