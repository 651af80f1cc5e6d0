"""The guess of the second derivatives: positive, symmetric, of the right stiffness, and the same in any company."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization import model_hessian
from aiida_mlpotential.worker.optimization.model_hessian import GROUND, ModelHessian
from aiida_mlpotential.worker.optimization.rows import Rows


def inverse_times(frames, vectors, held=None):
    """Return the inverse of the guess times vectors, NaN where there is no guess."""
    model, rows = ModelHessian(), Rows.of(frames.counts, with_cells=False)
    model.join(frames.counts)
    held = np.zeros((frames.n_atoms, 3), dtype=bool) if held is None else held
    model.update(frames, np.ones(len(frames), dtype=bool), held)
    result = np.full_like(vectors, np.nan)
    model.apply(rows, vectors, result)
    return result


def matrix(frame, held=None):
    """Return the guess of one frame, ``(3 N, 3 N)``."""
    columns = [inverse_times(frame, unit.reshape(-1, 3), held).ravel() for unit in np.eye(3 * frame.n_atoms)]
    return np.linalg.inv(np.array(columns).T)


@pytest.fixture
def mixed():
    """Return molecules and a crystal of different sizes."""
    return Frames.from_ase([molecule('CH3CH2OH'), bulk('Cu', cubic=True), molecule('H2O'), molecule('C6H6')])


def test_it_is_symmetric_and_nowhere_softer_than_the_ground(mixed):
    for index in range(len(mixed)):
        found = matrix(mixed.select([index]))
        np.testing.assert_allclose(found, found.T, atol=1e-8)
        assert np.linalg.eigvalsh(found).min() > GROUND * (1 - 1e-9)


def test_moving_everything_costs_the_ground_only(mixed):
    """No spring feels a translation, in a crystal with its images neither."""
    for index in range(len(mixed)):
        found = matrix(mixed.select([index]))
        shift = np.tile([1.0, 2.0, -1.0], len(found) // 3)
        np.testing.assert_allclose(found @ shift, GROUND * shift, atol=1e-8)


@pytest.mark.parametrize(
    ('atoms', 'least', 'most'),
    [
        (molecule('N2'), 30, 80),  # 143 in truth: a triple bond
        (molecule('CH4'), 20, 60),  # 30
        (bulk('Cu', cubic=True), 5, 40),  # 10: metallic bonds are soft
        (Atoms('Ar2', [[0, 0, 0], [3.8, 0, 0]]), 0, 2 * GROUND + 5),  # nearly none
    ],
    ids=['N2', 'CH4', 'Cu', 'Ar2'],
)
def test_bonds_have_the_stiffness_of_bonds(atoms, least, most):
    assert least < np.linalg.eigvalsh(matrix(Frames.from_ase([atoms]))).max() / 2 < most


def test_company_changes_nothing(mixed):
    vectors = np.random.default_rng(1).normal(size=(mixed.n_atoms, 3))
    together = inverse_times(mixed, vectors)
    for index in range(len(mixed)):
        atoms = slice(mixed.offsets[index], mixed.offsets[index + 1])
        np.testing.assert_allclose(together[atoms], inverse_times(mixed.select([index]), vectors[atoms]), atol=1e-12)


def test_frames_join_and_leave(mixed):
    vectors = np.random.default_rng(1).normal(size=(mixed.n_atoms, 3))
    expected = inverse_times(mixed, vectors)
    model, free = ModelHessian(), np.zeros((mixed.n_atoms, 3), dtype=bool)
    first = mixed.select([0, 1])
    model.join(first.counts)
    model.update(first, np.array([True, True]), free[: first.n_atoms])
    model.join(mixed.counts[2:])
    model.update(mixed, np.array([False, False, True, True]), free)
    model.keep(np.array([False, True, True, True]))
    rest = mixed.select([1, 2, 3])
    atoms = slice(mixed.offsets[1], None)
    result = np.zeros((rest.n_atoms, 3))
    model.apply(Rows.of(rest.counts, with_cells=False), vectors[atoms], result)
    np.testing.assert_allclose(result, expected[atoms], atol=1e-12)


def test_what_is_held_does_not_move():
    frame = Frames.from_ase([molecule('H2O')])
    held = np.zeros((3, 3), dtype=bool)
    held[0] = True
    result = inverse_times(frame, np.ones((3, 3)), held)
    assert np.abs(result[0]).max() < 1e-5 < np.abs(result[1:]).max()


def test_large_frames_have_none(monkeypatch, mixed):
    monkeypatch.setattr(model_hessian, 'LARGEST', 9)
    result = inverse_times(mixed, np.ones((mixed.n_atoms, 3)))
    assert np.isfinite(result[: mixed.offsets[3]]).all() and np.isnan(result[mixed.offsets[3] :]).all()
