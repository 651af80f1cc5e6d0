"""Ways along imaginary modes, and parameters of a part of a set; through the engine in test_thermochemistry.py."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.workflows.minima import displacement, labels_of, parameters_of_part, saddle_points


class Modes:
    """Results of one molecule of two atoms with given modes."""

    def __init__(self, modes, wavenumbers):
        self._modes, self._wavenumbers = np.array(modes, dtype=float), np.array(wavenumbers)

    def modes(self, index):
        return self._modes

    def frequencies(self, index):
        return self._wavenumbers


ALONG_X = [[0.6, 0, 0], [-0.8, 0, 0]]
ALONG_Y = [[0, 1.0, 0], [0, 0, 0]]


def test_the_largest_step_is_the_amplitude():
    way = displacement(Modes([ALONG_X, ALONG_Y], [-100.0, 200.0]), 0, 0.2)
    np.testing.assert_allclose(way, [[-0.15, 0, 0], [0.2, 0, 0]])


def test_a_mode_has_no_sign():
    turned = displacement(Modes([-np.array(ALONG_X), ALONG_Y], [-100.0, 200.0]), 0, 0.2)
    np.testing.assert_allclose(turned, displacement(Modes([ALONG_X, ALONG_Y], [-100.0, 200.0]), 0, 0.2))


def test_all_imaginary_modes_are_followed_together():
    way = displacement(Modes([ALONG_X, ALONG_Y], [-100.0, -50.0]), 0, 0.1)
    assert np.linalg.norm(way, axis=1).max() == pytest.approx(0.1)
    assert (np.abs(way[0, :2]) > 0).all()


def test_a_minimum_cannot_be_left():
    with pytest.raises(ValueError, match='structure 0 has no imaginary mode'):
        displacement(Modes([ALONG_X], [100.0]), 0, 0.1)


def test_saddle_points_are_stationary_and_should_be_minima():
    class Results:
        status = np.array([0, 15, 15, 15, 11], 'i1')

        def get_array(self, name):
            return {'stationary': np.array([1, 1, 0, 1, 1]), 'n_imaginary': np.array([0, 1, 1, 0, 2])}[name]

    assert saddle_points(Results()) == [1]


def test_parameters_of_a_part():
    parameters = {
        'temperatures': [298.15, 400.0, 500.0],
        'spin_multiplicity': [1, 2, 3],
        'symmetry_number': 2,
        'constraints': [
            {'kind': 'atoms', 'atoms': [0]},
            {'kind': 'atoms', 'atoms': [1], 'structures': [0, 2]},
            {'kind': 'atoms', 'atoms': [2], 'structures': [1]},
        ],
    }
    before = str(parameters)
    assert parameters_of_part(parameters, [2]) == {
        'temperatures': [298.15, 400.0, 500.0],
        'spin_multiplicity': [3],
        'symmetry_number': 2,
        'constraints': [{'kind': 'atoms', 'atoms': [0]}, {'kind': 'atoms', 'atoms': [1], 'structures': [0]}],
    }
    assert str(parameters) == before
    assert parameters_of_part({'temperatures': [1.0]}, [0]) == {'temperatures': [1.0]}


def test_the_first_names_of_many():
    from ase import Atoms

    frames = Frames.from_ase([Atoms('H')] * 7, tuple('abcdefg'))
    assert labels_of(frames, [1, 2]) == 'b, c'
    assert labels_of(frames, range(7)) == 'a, b, c, d, e, ...'
