"""Convergence: all criteria that were asked for, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.optimization.convergence import Criteria
from aiida_mlpotential.worker.optimization.rows import Rows

FORCES, GAINS, WAYS = np.array([0.009, 0.011]), np.array([-1e-3, 0.0]), np.array([0.1, 0.0])


def test_the_force_alone():
    assert Criteria(0.01).met(FORCES, GAINS, WAYS).tolist() == [True, False]


@pytest.mark.parametrize(
    ('criteria', 'met'),
    [
        (Criteria(0.1, energy=2e-3), [True, True]),
        (Criteria(0.1, energy=0.5e-3), [False, True]),  # also a gain counts, not only a rise
        (Criteria(0.1, step=0.05), [False, True]),
        (Criteria(0.01, energy=0.5e-3, step=0.05), [False, False]),
    ],
)
def test_energy_and_step_in_addition(criteria, met):
    assert criteria.met(FORCES, GAINS, WAYS).tolist() == met


def test_the_stress_replaces_the_forces_on_the_cell():
    rows = Rows.of(np.array([1]), with_cells=True)
    forces = np.array([[0.001, 0, 0], [3.0, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert Criteria(0.01).largest_forces(rows, forces) == [3.0]
    asked = Criteria(0.01, stress=1e-3)
    assert asked.largest_forces(rows, forces) == [0.001]
    for stress, met in ((0.9e-3, True), (-1.1e-3, False)):
        assert asked.met(np.array([0.001]), np.zeros(1), np.zeros(1), np.full((1, 3, 3), stress)).tolist() == [met]


def test_criteria_of_parameters():
    parameters = {'force_tolerance': 0.02, 'energy_tolerance': None, 'step_tolerance': 0.01, 'stress_tolerance': 1e-4}
    assert Criteria.of(parameters) == Criteria(0.02, None, 0.01, 1e-4)
