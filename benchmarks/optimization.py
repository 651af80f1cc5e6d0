"""Geometry optimizations and Hessians of many molecules in one job, against ASE with torchani's own calculator.

Both sides run in turn in this process with the same threads, from the same conformers, to the same largest force. The
worker's time is that of a whole job but for loading the model. Where both sides ended is compared by one evaluation
of both geometries with the same model in double precision; frequencies are compared mode by mode.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import Figure, arguments, conformers, parameter_file, reference_model, report, worker_job
from ase import Atoms
from ase.optimize import LBFGS
from ase.vibrations import Vibrations

OPTIONS = arguments(__doc__)

MODEL = 'ANI-1ccx'
#: Least ratios.
OPTIMIZATION, HESSIANS = 4.0, 5.0
#: eV/angstrom, and the most steps: what either side is asked for.
FORCE_TOLERANCE, MAX_STEPS = 0.002, 1000
#: Largest differences allowed: energies of the minima (eV), and wavenumbers (cm^-1).
SAME_MINIMUM, SAME_FREQUENCY = 1e-4, 1.0
#: Displacement of ASE's differences. Its default, 0.01 angstrom, errs by up to 3 wavenumbers, and 1e-3 still straddles
#: jumps in the second derivative of the CELU networks.
DELTA = 1e-5


def optimize_with_ase(calculator: Any, structures: list[Atoms]) -> tuple[float, list[Atoms]]:
    """Return the seconds for all, one after the other, and the geometries."""
    found = [atoms.copy() for atoms in structures]
    begin = time.perf_counter()
    for atoms in found:
        atoms.calc = calculator
        LBFGS(atoms, logfile=None).run(fmax=FORCE_TOLERANCE, steps=MAX_STEPS)
    return time.perf_counter() - begin, found


def vibrations_with_ase(calculator: Any, structures: list[Atoms], directory: Path) -> tuple[float, list[np.ndarray]]:
    """Return the seconds for all, one after the other, and the wavenumbers of each."""
    found = []
    begin = time.perf_counter()
    for index, atoms in enumerate(structures):
        atoms.calc = calculator
        vibrations = Vibrations(atoms, name=str(directory / f'ase-{index}'), delta=DELTA)
        vibrations.run()
        values = vibrations.get_frequencies()
        found.append(np.sort(np.where(np.abs(values.imag) > np.abs(values.real), -values.imag, values.real)))
    return time.perf_counter() - begin, found


def in_turn(
    ours: Callable[[], float], theirs: Callable[[], tuple[float, Any]], repeats: int
) -> tuple[Any, list[float]]:
    """Run both sides in turn; return what the others found, and the median seconds of both with their ratios."""
    own, other = [], []
    for _ in range(repeats):
        seconds, found = theirs()
        other.append(seconds)
        own.append(ours())
    ratios = [theirs / ours for theirs, ours in zip(other, own, strict=True)]
    return found, [statistics.median(other), statistics.median(own), statistics.median(ratios), min(ratios)]


def energies_of(path: Path, structures: list[Atoms], directory: Path) -> np.ndarray:
    """Return the energies of geometries, eV, in double precision."""
    worker_job(path, MODEL, structures, directory, 'single_point', {'precision': 'double'})()
    energies: np.ndarray = np.load(directory / 'arrays' / 'energies.npy')
    return energies


def moved(structures: list[Atoms], directory: Path) -> list[Atoms]:
    """Return structures with the positions that a job found."""
    positions = np.load(directory / 'arrays' / 'positions.npy')
    found = [atoms.copy() for atoms in structures]
    for atoms, part in zip(found, np.split(positions, np.cumsum([len(atoms) for atoms in found])[:-1]), strict=True):
        atoms.positions = part
    return found


def compare_optimizations(path: Path, number: int, directory: Path) -> tuple[list[Any], list[Figure]]:
    """Optimize conformers on both sides, in single precision as either does by default; ASE takes minutes, so once."""
    structures = conformers(number, seed=4)
    calculator = reference_model(path).float().ase()
    parameters = {'num_threads': OPTIONS.threads, 'force_tolerance': FORCE_TOLERANCE, 'max_steps': MAX_STEPS}
    job = directory / 'optimization'
    ours = worker_job(path, MODEL, structures, job, 'geometry_optimization', parameters)
    optimize_with_ase(calculator, structures[:2])
    found, figures = in_turn(ours, lambda: optimize_with_ase(calculator, structures), 1)
    status = np.load(job / 'arrays' / 'status.npy')
    difference = np.abs(
        energies_of(path, found, directory / 'theirs') - energies_of(path, moved(structures, job), directory / 'ours')
    )
    steps = np.load(job / 'arrays' / 'steps.npy')
    print(
        f'optimization: {int((status == 0).sum())} of {number} converged here, in {steps.mean():.1f} steps on average '
        f'({steps.max()} at most); energies of the minima differ by up to {difference.max():.1e} eV'
    )
    same = float(np.mean(difference < SAME_MINIMUM))
    rows = ['optimizations', number, *figures]
    return rows, [Figure('optimizations', figures[2], OPTIMIZATION, unit='x'), Figure('same minima', same, 1.0)]


def compare_hessians(path: Path, number: int, repeats: int, directory: Path) -> tuple[list[Any], list[Figure]]:
    """Compute the frequencies of molecules at their minima on both sides, in double precision."""
    start = conformers(number, seed=5)
    tight = {'precision': 'double', 'force_tolerance': 1e-4, 'num_threads': OPTIONS.threads}
    worker_job(path, MODEL, start, directory / 'minima', 'geometry_optimization', tight)()
    structures = moved(start, directory / 'minima')
    calculator = reference_model(path).double().ase()
    rows, results = [], []
    for spread in (False, True):
        job = directory / f'vibrations-{spread}'
        parameters = {'num_threads': OPTIONS.threads, 'member_frequencies': spread}
        ours = worker_job(path, MODEL, structures, job, 'vibrations', parameters)
        turns = iter(range(repeats))
        found, figures = in_turn(
            ours,
            lambda turns=turns, spread=spread: vibrations_with_ase(
                calculator, structures, directory / f'turn-{spread}-{next(turns)}'
            ),
            repeats,
        )
        rows.append([f'vibrations{", with the spread over the members" if spread else ""}', number, *figures])
        results.append((figures[2], largest_difference(found, job)))
        print(f'vibrations: wavenumbers differ by up to {results[-1][1]:.2f} cm^-1')
    differences = Figure('wavenumbers differ by', results[0][1], SAME_FREQUENCY, '<=', ' cm^-1')
    return rows, [Figure('vibrations', results[0][0], HESSIANS, unit='x'), differences]


def largest_difference(found: list[np.ndarray], job: Path) -> float:
    """Return the largest difference of the wavenumbers of vibrations: ASE does not separate the rigid motions."""
    ours = np.load(job / 'arrays' / 'frequencies.npy')
    rigid = np.load(job / 'arrays' / 'n_rigid.npy')
    parts = np.split(ours, np.cumsum([len(values) for values in found])[:-1])
    return max(float(np.abs(part[n:] - values[n:]).max()) for part, values, n in zip(parts, found, rigid, strict=True))


def main() -> None:
    """Measure both."""
    import torch

    torch.set_num_threads(OPTIONS.threads)
    conformers_, molecules, turns = (16, 4, 1) if OPTIONS.quick else (100, 20, 3)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = parameter_file(MODEL, directory)
        row, figures = compare_optimizations(path, conformers_, directory)
        rows, more = compare_hessians(path, molecules, turns, directory)
    headers = ('what', 'molecules', 'ASE (s)', 'worker (s)', 'ratio (median)', 'ratio (least)')
    report(headers, [row, *rows], [*figures, *more])


if __name__ == '__main__':
    main()
