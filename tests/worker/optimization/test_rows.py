"""Rows of many frames: sums and the like stay within each frame, whatever its size."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.optimization.rows import Rows


@pytest.fixture
def random():
    return np.random.default_rng(1)


@pytest.mark.parametrize('with_cells', [False, True])
def test_the_rows_of_a_frame_are_its_atoms_and_then_its_cell(with_cells):
    rows = Rows.of(np.array([2, 1, 3]), with_cells)
    if with_cells:
        assert rows.atoms.tolist() == [0, 1, 5, 9, 10, 11]
        assert rows.cells.tolist() == [[2, 3, 4], [6, 7, 8], [12, 13, 14]]
        assert rows.frame.tolist() == [0] * 5 + [1] * 4 + [2] * 6
    else:
        assert rows.atoms.tolist() == list(range(6))
        assert rows.cells.shape == (0, 3)
        assert rows.frame.tolist() == [0, 0, 1, 2, 2, 2]
    assert rows.n_rows == len(rows.frame) and len(rows) == 3


def test_sums_products_and_longest_rows_are_those_of_each_frame_alone(random):
    counts = np.array([2, 1, 3])
    rows = Rows.of(counts, with_cells=False)
    first, second = random.normal(size=(2, 6, 3))
    edges = np.concatenate([[0], np.cumsum(counts)])
    for index in range(3):
        part = slice(edges[index], edges[index + 1])
        assert rows.dot(first, second)[index] == pytest.approx(np.sum(first[part] * second[part]))
        assert rows.longest(first)[index] == pytest.approx(np.linalg.norm(first[part], axis=1).max())
        assert rows.sum(first[:, 0])[index] == pytest.approx(first[part, 0].sum())


def test_a_value_of_a_frame_reaches_all_its_rows():
    rows = Rows.of(np.array([1, 2]), with_cells=False)
    assert rows.spread(np.array([5.0, 7.0])).tolist() == [[5.0], [7.0], [7.0]]
    assert rows.where(np.array([False, True])).tolist() == [False, True, True]


def test_a_pool_without_frames_has_no_rows():
    rows = Rows.of(np.zeros(0, dtype=np.int64), with_cells=True)
    nothing = np.zeros((0, 3))
    assert rows.n_rows == 0
    assert rows.dot(nothing, nothing).shape == rows.longest(nothing).shape == (0,)
