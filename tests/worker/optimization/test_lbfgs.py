"""LBFGS over many frames: each goes the way of ASE's LBFGS, or a shorter one to the same place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, optimize
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from aiida_mlpotential.worker.backends import get_backend
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization import model_hessian
from aiida_mlpotential.worker.optimization.lbfgs import LBFGS, MEMORY
from aiida_mlpotential.worker.optimization.rows import Rows
from aiida_mlpotential.worker.optimization.stepper import Point
from aiida_mlpotential.worker.schema import ModelSpec


@pytest.fixture
def backend():
    spec = ModelSpec('EMT', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'})
    return get_backend('ase').load(spec, Path(), Settings(device='cpu'))


def rattled(number=4):
    """Return rattled crystals, clusters and a molecule, of different sizes."""
    random = np.random.default_rng(2)
    cluster = bulk('Cu', cubic=True) * (2, 1, 1)
    cluster.pbc = False
    structures = [bulk('Cu', cubic=True), cluster, bulk('Al') * (2, 1, 1), bulk('Ag') * 2, molecule('H2O')]
    for atoms in structures:
        atoms.positions += random.normal(scale=0.08, size=atoms.positions.shape)
    return Frames.from_ase(structures[:number])


def point_at(backend, frames, x):
    rows = Rows.of(frames.counts, with_cells=False)
    here = Frames(frames.numbers, x, frames.offsets, frames.cells, frames.pbc)
    result = backend.evaluate(here, frozenset({'forces'}))
    free = np.ones((frames.n_atoms, 3), dtype=bool)
    return Point(rows, x, result.forces, result.energies, here, free, lambda vectors: vectors)


def run(backend, frames, steps, stepper=None):
    """Return the positions after each step."""
    stepper = stepper or LBFGS(0.2)
    stepper.join(frames, Rows.of(frames.counts, with_cells=False))
    way = [frames.positions]
    for _ in range(steps):
        way.append(way[-1] + stepper.step(point_at(backend, frames, way[-1])))
    return way


def test_without_the_guess_each_step_is_that_of_ase(backend, monkeypatch):
    monkeypatch.setattr(model_hessian, 'LARGEST', 0)
    frames = rattled()
    way = run(backend, frames, 12)
    for index, atoms in enumerate(frames):
        atoms.calc = EMT()
        optimizer = optimize.LBFGS(atoms, logfile=None)
        rows = slice(frames.offsets[index], frames.offsets[index + 1])
        for positions in way[1:]:
            optimizer.step()
            np.testing.assert_allclose(positions[rows], atoms.positions, atol=1e-7)


def test_the_guess_makes_it_shorter_and_leads_to_the_same_place(backend):
    ours, theirs = 0, 0
    for index, atoms in enumerate(rattled()):
        atoms.calc = EMT()
        optimizer = optimize.LBFGS(atoms, logfile=None)
        optimizer.run(fmax=1e-3, steps=300)
        alone = rattled().select([index])
        ends = [point_at(backend, alone, x) for x in run(backend, alone, optimizer.nsteps)]
        converged = [np.linalg.norm(end.forces, axis=1).max() < 1e-3 for end in ends]
        assert any(converged)
        ours, theirs = ours + int(np.argmax(converged)), theirs + optimizer.nsteps
        assert ends[-1].energies[0] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert ours < 0.8 * theirs


def test_company_changes_nothing(backend):
    frames = rattled()
    together = run(backend, frames, 8)[-1]
    for index in range(len(frames)):
        rows = slice(frames.offsets[index], frames.offsets[index + 1])
        np.testing.assert_allclose(run(backend, frames.select([index]), 8)[-1], together[rows], atol=1e-9)


def test_a_frame_that_leaves_and_one_that_joins_do_not_disturb_the_others(backend):
    frames = rattled(5)
    expected = run(backend, frames.select([1, 2]), 9)[-1]
    stepper = LBFGS(0.2)
    x = run(backend, frames.select([0, 1, 2]), 5, stepper)[-1]
    rows = Rows.of(frames.counts[[0, 1, 2]], with_cells=False)
    keep = np.array([False, True, True])
    stepper.keep(keep, rows.where(keep))
    newcomer = frames.select([4])
    stepper.join(newcomer, Rows.of(newcomer.counts, with_cells=False))
    x = np.concatenate([x[rows.where(keep)], newcomer.positions])
    now = frames.select([1, 2, 4])
    for _ in range(4):
        x = x + stepper.step(point_at(backend, now, x))
    np.testing.assert_allclose(x[: len(expected)], expected, atol=1e-9)
    np.testing.assert_allclose(x[len(expected) :], run(backend, newcomer, 4)[-1], atol=1e-9)


def test_a_restored_state_goes_on_as_if_nothing_had_happened(backend):
    frames = rattled()
    stepper = LBFGS(0.2)
    x = run(backend, frames, 5, stepper)[-1]
    state = {name: array.copy() for name, array in stepper.state.items()}
    again, rows = LBFGS(0.2), Rows.of(frames.counts, with_cells=False)
    here = Frames(frames.numbers, x, frames.offsets, frames.cells, frames.pbc)
    again.restore(state, here, rows, np.ones((frames.n_atoms, 3), dtype=bool))
    for one in (stepper, again):
        one.way = x
        for _ in range(4):
            one.way = one.way + one.step(point_at(backend, frames, one.way))
    np.testing.assert_array_equal(stepper.way, again.way)


def test_the_memory_is_a_ring(backend):
    """More steps than the memory has places do no harm."""
    frames = rattled(2)
    way = run(backend, frames, MEMORY + 5)
    assert np.linalg.norm(point_at(backend, frames, way[-1]).forces, axis=1).max() < 1e-6


def test_a_pair_of_negative_curvature_is_left_out(backend):
    """Over a hill the gradient falls on the way down: such a pair would turn the next step uphill."""
    frames = Frames.from_ase([Atoms('Cu')])
    rows = Rows.of(frames.counts, with_cells=False)
    stepper = LBFGS(0.2)
    stepper.join(frames, rows)
    free = np.ones((1, 3), dtype=bool)
    for x, force in ((0.0, 0.1), (0.1, 0.3), (0.2, 0.5)):
        position, forces = np.array([[x, 0, 0]]), np.array([[force, 0, 0]])
        step = stepper.step(Point(rows, position, forces, np.array([-x]), frames, free, lambda vectors: vectors))
        assert step[0, 0] > 0
    assert not stepper.state['weight'].any()
