"""Structures per second of the worker against the loop over torchani's own ASE calculator, on the same conformers.

Both sides run in turn in this process with the same threads. The worker's time is that of a whole job in its work
directory: reading and checking the structures, batches, statistics, files; only loading the model is left out, as it
is for the calculator. The loop computes energy and forces of each structure, and for the ensemble spread the energies
of the members besides.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import Figure, arguments, conformers, parameter_file, reference_model, report, worker_job
from ase import Atoms

OPTIONS = arguments(__doc__)

#: Least ratio of the worker to the loop: without the spread (the loop computes none), and with it.
TARGETS = {'energy and forces': 7.0, 'with ensemble spread': 10.0}
MODELS = ('ANI-2x', 'ANI-1ccx')


def run_loop(model: Any, structures: list[Atoms], spread: bool) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Return the seconds of the loop, the energies (eV), the forces, and the spread (eV)."""
    import torch
    from ase.units import Hartree

    calculator = model.ase()
    energies, forces, spreads = [], [], []
    begin = time.perf_counter()
    for atoms in structures:
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        if spread:
            species = torch.tensor(atoms.numbers)[None]
            positions = torch.tensor(atoms.positions, dtype=torch.float32)[None]
            with torch.no_grad():
                members = model((species, positions), ensemble_values=True).energies
            spreads.append(float(members.std(0).item()) * Hartree)
    seconds = time.perf_counter() - begin
    return seconds, np.array(energies), np.concatenate(forces), np.array(spreads)


def compare(name: str, number: int, repeats: int, directory: Path) -> tuple[list[list[object]], list[Figure]]:
    """Time both sides in turn, check that their numbers agree, and return rows and figures."""
    import torch

    torch.set_num_threads(OPTIONS.threads)
    path = parameter_file(name, directory)
    model = reference_model(path).float()
    structures = conformers(number)
    job = directory / f'job-{name}'
    run_worker = worker_job(path, name, structures, job, 'single_point', {'num_threads': OPTIONS.threads})
    run_loop(model, structures[:20], True)
    run_worker()
    rows, figures = [], []
    arrays = job / 'arrays'
    for what, target in TARGETS.items():
        spread = what != 'energy and forces'
        ratios, loops, workers = [], [], []
        for _ in range(repeats):
            seconds, energies, forces, spreads = run_loop(model, structures, spread)
            loops.append(seconds)
            workers.append(run_worker())
            ratios.append(loops[-1] / workers[-1])
            # the loop adds the self energies in single precision: 2 meV at 24 atoms
            np.testing.assert_allclose(np.load(arrays / 'energies.npy'), energies, rtol=0, atol=5e-3)
            np.testing.assert_allclose(np.load(arrays / 'forces.npy'), forces, rtol=0, atol=2e-3)
            if spread:
                np.testing.assert_allclose(np.load(arrays / 'energy_std.npy'), spreads, rtol=0, atol=5e-3)
        loop, ours, ratio = (statistics.median(values) for values in (loops, workers, ratios))
        rows.append([name, what, 1000 * loop / number, 1000 * ours / number, number / ours, ratio, min(ratios)])
        figures.append(Figure(f'{name} {what}', ratio, target, unit='x'))
    return rows, figures


def main() -> None:
    """Measure all models that can be had here."""
    from aiida_mlpotential.library import LibraryError

    number, repeats = (80, 2) if OPTIONS.quick else (600, 5)
    rows, figures = [], []
    with tempfile.TemporaryDirectory() as directory:
        for name in MODELS:
            try:
                more_rows, more_figures = compare(name, number, repeats, Path(directory))
            except LibraryError as exception:
                print(f'{name} is left out: {exception}')
                continue
            rows += more_rows
            figures += more_figures
    headers = ('model', 'what', 'loop (ms)', 'worker (ms)', 'structures/s', 'ratio (median)', 'ratio (least)')
    report(headers, rows, figures)


if __name__ == '__main__':
    main()
