"""Batches: every frame once, like with like, within the budget."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.batching import plan_batches


@pytest.mark.parametrize('budget', [1, 7, 50, 10**6])
@pytest.mark.parametrize('keyed', [False, True])
def test_every_frame_is_in_one_batch_and_none_exceeds_the_budget(budget, keyed):
    random = np.random.default_rng(5)
    counts = random.integers(1, 20, size=200)
    indices = np.arange(1000, 1200)
    keys = random.integers(0, 3, size=200) if keyed else None
    batches = list(plan_batches(indices, counts, budget, keys))
    assert sorted(np.concatenate(batches)) == indices.tolist()
    for batch in batches:
        assert counts[batch - 1000].sum() <= budget or len(batch) == 1


def test_equal_frames_stay_in_their_order():
    batches = list(plan_batches(np.arange(10), np.full(10, 3), 9))
    assert [batch.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_no_frames_make_no_batch():
    assert list(plan_batches(np.arange(0), np.arange(0), 9)) == []


def test_like_frames_are_neighbours():
    keys = np.array([1, 0, 1, 0, 1, 0])
    batches = list(plan_batches(np.arange(6), np.array([5, 4, 3, 3, 4, 5]), 12, keys))
    assert [batch.tolist() for batch in batches] == [[3, 1, 5], [2, 4, 0]]
