"""Kinds of stationary points, which modes are vibrations, and animations."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from aiida_mlpotential.data.modes import animation, character, count_characters, vibrations


@pytest.mark.parametrize(
    ('n_imaginary', 'stationary', 'expected'),
    [
        (0, True, 'minimum'),
        (1, True, 'transition state'),
        (3, True, 'saddle point of order 3'),
        (0, False, 'not stationary'),
        (1, False, 'not stationary'),
    ],
)
def test_character(n_imaginary, stationary, expected):
    assert character(n_imaginary, stationary) == expected


def test_characters_are_counted():
    counts = count_characters(np.array([0, 0, 1, 2, 5, 0]), np.array([True, True, True, True, True, False]))
    assert counts == {'n_minima': 2, 'n_transition_states': 1, 'n_higher_saddles': 2, 'n_not_stationary': 1}


def test_vibrations_come_after_what_is_rigid_and_only_of_chosen_structures():
    # an atom, a diatomic, one that failed, and water
    offsets, n_rigid = np.array([0, 1, 3, 5, 8]), np.array([3, 5, -1, 6])
    mask = vibrations(offsets, n_rigid, np.array([True, True, False, True]))
    assert np.flatnonzero(mask).tolist() == [3 + 5, 3 + 6 + 6 + 6, 3 + 6 + 6 + 7, 3 + 6 + 6 + 8]


def test_an_animation_is_one_period_of_the_given_amplitude():
    water = molecule('H2O')
    mode = np.array([[0, 0, 0.6], [0, 0.8, 0], [0, 0, 0]])
    images = animation(water, mode, 1600.0, 0.25, 8)
    assert len(images) == 8
    ways = np.array([atoms.positions - water.positions for atoms in images])
    assert np.linalg.norm(ways, axis=2).max() == pytest.approx(0.25)
    np.testing.assert_allclose(ways[0], 0, atol=1e-15)
    np.testing.assert_allclose(ways[2], 0.25 * mode / 0.8)
    np.testing.assert_allclose(ways[6], -ways[2])
    assert images[0].info['frequency'] == 1600.0
    np.testing.assert_allclose(images[0].arrays['mode'], ways[2])
    assert water.arrays.keys() == {'numbers', 'positions'}


@pytest.mark.parametrize('values', [{'amplitude': 0.0}, {'amplitude': np.inf}, {'n_images': 0}])
def test_an_animation_of_nothing_is_refused(values):
    given = {'amplitude': 0.1, 'n_images': 3, **values}
    with pytest.raises(ValueError, match='at least one image and a positive amplitude'):
        animation(molecule('H2O'), np.ones((3, 3)), 100.0, **given)
