"""The layout of flat Hessians, and their rows from automatic derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from aiida_mlpotential.worker.backends.hessians import (
    block_offsets,
    from_blocks,
    place_row,
    rows_by_autograd,
    symmetrized,
)
from aiida_mlpotential.worker.frames import Frames


@pytest.fixture
def frames():
    """Return frames of three, two, one, no and three atoms."""
    return Frames.from_ase([molecule('H2O'), molecule('H2'), Atoms('O'), Atoms(), molecule('CO2')])


@pytest.fixture
def matrices(frames):
    random = np.random.default_rng(1)
    return [random.normal(size=(3 * count, 3 * count)) for count in frames.counts]


def _flat(matrices):
    return np.concatenate([matrix.ravel() for matrix in matrices])


def test_blocks_of_atoms_become_matrices(frames, matrices):
    blocks = np.concatenate(
        [m.reshape(len(m) // 3, 3, len(m) // 3, 3).swapaxes(1, 2).reshape(-1, 3, 3) for m in matrices]
    )
    assert block_offsets(frames).tolist() == [0, 9, 13, 14, 14, 23]
    expected = _flat([(m + m.T) / 2 for m in matrices])
    found = from_blocks(np.stack([blocks, 2 * blocks]), frames)
    np.testing.assert_allclose(found, [expected, 2 * expected], rtol=1e-15)


def test_matrices_are_made_symmetric(frames, matrices):
    np.testing.assert_allclose(symmetrized(_flat(matrices), frames), _flat([(m + m.T) / 2 for m in matrices]))


def test_a_row_goes_to_the_frames_that_have_it(frames, matrices):
    flat = np.zeros(sum(m.size for m in matrices))
    for row in range(9):
        values = [m[row] if row < len(m) else np.full(len(m), np.nan) for m in matrices]
        place_row(flat, row, np.concatenate(values).reshape(-1, 3), frames)
    np.testing.assert_array_equal(flat, _flat(matrices))


def test_automatic_derivatives(frames):
    torch = pytest.importorskip('torch')
    positions = torch.from_numpy(frames.positions.copy()).requires_grad_()
    energy = torch.zeros((), dtype=torch.float64)
    for start, stop in zip(frames.offsets, frames.offsets[1:], strict=False):
        energy = energy + (positions[start:stop] ** 2).sum() ** 2
    (gradient,) = torch.autograd.grad(energy, positions, create_graph=True)
    expected = []
    for atoms in frames:
        x = atoms.positions.ravel()
        expected.append(8 * np.outer(x, x) + 4 * (x @ x) * np.eye(len(x)))
    np.testing.assert_allclose(rows_by_autograd(gradient, positions, frames), _flat(expected), rtol=1e-12, atol=1e-12)
    nothing = torch.zeros_like(gradient)
    assert not rows_by_autograd(nothing, positions, frames).any()
