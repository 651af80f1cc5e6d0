"""FIRE over many frames: the steps of the published algorithm, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.optimize import FIRE

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization import stepper as stepper_module
from aiida_mlpotential.worker.optimization.fire import Fire
from aiida_mlpotential.worker.optimization.rows import Rows
from aiida_mlpotential.worker.optimization.stepper import Point

STRUCTURES = [Atoms('Cu2', [[0, 0, 0], [0, 0, distance]]) for distance in (2.1, 2.3, 2.4)]


def evaluate(frames, x):
    energies, forces = [], []
    for index in range(len(frames)):
        atoms = frames.to_ase(index)
        atoms.positions = x[2 * index : 2 * index + 2]
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    return np.array(energies), np.concatenate(forces)


def test_each_step_is_that_of_ase(monkeypatch):
    """With limits too wide to matter, and energies that may rise: ASE takes no step back."""
    monkeypatch.setattr(stepper_module, 'MAX_RISE', 1.0)
    frames = Frames.from_ase(STRUCTURES)
    rows = Rows.of(frames.counts, with_cells=False)
    stepper = Fire(10.0)
    stepper.join(frames, rows)
    optimizers = []
    for atoms in (item.copy() for item in STRUCTURES):
        atoms.calc = EMT()
        optimizers.append(FIRE(atoms, logfile=None, maxstep=10.0))
    x = frames.positions
    for _ in range(60):
        energies, forces = evaluate(frames, x)
        free = np.ones((6, 3), dtype=bool)
        x = x + stepper.step(Point(rows, x, forces, energies, frames, free, lambda vectors: vectors))
        for optimizer in optimizers:
            optimizer.step()
        np.testing.assert_allclose(x, np.concatenate([item.atoms.positions for item in optimizers]), atol=1e-9)
    assert np.abs(evaluate(frames, x)[1]).max() < 0.1


def test_time_step_and_mixing_belong_to_each_frame():
    """One frame goes downhill for long and gets faster; the other one turns round each time and gets slower."""
    frames = Frames.from_ase(STRUCTURES[:2])
    rows = Rows.of(frames.counts, with_cells=False)
    stepper = Fire(0.2)
    stepper.join(frames, rows)
    for step in range(12):
        force = np.array([1.0, -1.0, 0, 0])
        force[2:] = (-1) ** step * np.array([1.0, -1.0])
        forces = np.zeros((4, 3))
        forces[:, 2] = force
        free = np.ones((4, 3), dtype=bool)
        stepper.step(Point(rows, frames.positions, forces, np.zeros(2), frames, free, lambda vectors: vectors))
    fast, slow = stepper.state['time_step']
    assert fast > 0.1 * 1.1**4 and slow == pytest.approx(0.1 * 0.5**11)
    assert stepper.state['mix'][0] < 0.1 == stepper.state['mix'][1]
