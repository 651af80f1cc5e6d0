"""The handedness of centres relative to each other: what swapped hydrogens change and a mirror does not."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from aiida_mlpotential.worker.backends.sgdml.files import pairs
from aiida_mlpotential.worker.backends.sgdml.handedness import Handedness, embed
from aiida_mlpotential.worker.backends.sgdml.matching import Pattern


def _pattern(numbers: list[int], bonds: list[tuple[int, int]]) -> Pattern:
    relation = np.full((len(numbers), len(numbers)), -1, dtype=np.int8)
    np.fill_diagonal(relation, 0)
    for first, second in bonds:
        relation[first, second] = relation[second, first] = 1
    return Pattern(np.array(numbers), relation)


def _descriptors(positions: np.ndarray) -> np.ndarray:
    first, second = pairs(positions.shape[1])
    return 1 / np.linalg.norm(positions[:, first] - positions[:, second], axis=2)


@pytest.fixture
def ethane() -> np.ndarray:
    """Return shaken geometries of ethane, C C and three H on each."""
    random = np.random.default_rng(2)
    positions = molecule('C2H6').positions
    return positions + random.normal(scale=0.06, size=(250, 8, 3))


IDENTITY = np.arange(8)[None]
ETHANE = _pattern([6, 6, 1, 1, 1, 1, 1, 1], [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (1, 7)])


def test_embed(ethane) -> None:
    """Positions from inverse distances have these distances."""
    descriptors = _descriptors(ethane)
    assert np.allclose(_descriptors(embed(descriptors)), descriptors, rtol=1e-10)


def test_learn_and_tell(ethane) -> None:
    """A swap of two hydrogens is seen; a mirror image, a rotated methyl group and two swaps are not."""
    handedness = Handedness.learn(ETHANE, _descriptors(ethane[:200]), IDENTITY)
    assert len(handedness.neighbors) == 2
    new = ethane[200:]
    assert not handedness.mendable(new).any()
    assert not handedness.mendable(new * np.array([1, 1, -1])).any()
    swapped = new[:, [0, 1, 2, 3, 4, 6, 5, 7]]
    assert handedness.mendable(swapped).all()
    assert (handedness.mismatches(swapped) == 1).all()
    assert handedness.explain(swapped[0]) in ('2 and 3', '5 and 6')
    assert not handedness.mendable(new[:, [0, 1, 3, 4, 2, 5, 6, 7]]).any()
    assert not handedness.mendable(new[:, [0, 1, 3, 2, 4, 6, 5, 7]]).any()


def test_equal_for_the_model(ethane) -> None:
    """Where the model itself takes swapped hydrogens for equal, nothing is to be told apart."""
    permutations = np.array([np.arange(8), [0, 1, 2, 3, 4, 6, 5, 7]])
    handedness = Handedness.learn(ETHANE, _descriptors(ethane), permutations)
    assert len(handedness.neighbors) == 0
    assert not handedness.mendable(ethane[:, [0, 1, 2, 3, 4, 6, 5, 7]]).any()
    assert (handedness.mismatches(ethane) == 0).all()


def test_training_points_of_both_kinds(ethane) -> None:
    """Where the training points themselves have either handedness, either is fine."""
    both = np.concatenate([ethane, ethane[:, [0, 1, 2, 3, 4, 6, 5, 7]]])
    assert len(Handedness.learn(ETHANE, _descriptors(both), IDENTITY).neighbors) == 0


def test_one_centre_means_nothing() -> None:
    """The model does not see the mirror image of methane, so an exchange of its hydrogens is none of its business."""
    pattern = _pattern([6, 1, 1, 1, 1], [(0, 1), (0, 2), (0, 3), (0, 4)])
    positions = molecule('CH4').positions[None]
    handedness = Handedness.learn(pattern, _descriptors(positions), np.arange(5)[None])
    assert not handedness.mendable(positions[:, [0, 2, 1, 3, 4]]).any()


def test_another_stereoisomer_is_no_wrong_order() -> None:
    """Where no exchange of twins leads back, it is another molecule: CHFCl-CHFCl of the other kind."""
    random = np.random.default_rng(4)
    ethane = molecule('C2H6').positions
    pattern = _pattern([6, 6, 1, 9, 17, 1, 9, 17], [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (1, 7)])
    points = ethane + random.normal(scale=0.05, size=(50, 8, 3))
    handedness = Handedness.learn(pattern, _descriptors(points), IDENTITY)
    other = points[:, [0, 1, 2, 3, 4, 6, 5, 7]]
    assert (handedness.mismatches(other) == 1).all()
    assert not handedness.mendable(other).any()


def test_coinciding_atoms() -> None:
    """Atoms in one place give no handedness and no warning."""
    points = molecule('C2H6').positions[None]
    handedness = Handedness.learn(ETHANE, _descriptors(points), IDENTITY)
    assert len(handedness.neighbors) == 2
    assert handedness.mismatches(np.zeros((1, 8, 3))).tolist() == [0]
