"""The parameters of vibrational analysis: what is allowed, and what it does to the results of a restart."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.parameters import result_parameters, validate_parameters, with_defaults
from aiida_mlpotential.worker.parameters.vibrations import EXPECTATIONS, ORDERS

TASK = 'vibrations'


def test_the_float_type_is_the_best_that_the_backend_has():
    assert with_defaults({}, TASK)['precision'] is None
    assert with_defaults({}, 'single_point')['precision'] == 'single'


@pytest.mark.parametrize(
    'values',
    [
        {'precision': None},
        {'precision': 'single'},
        {'precision': 'double'},
        {'expected': 'any'},
        {'expected': 'minimum'},
        {'expected': 'transition_state'},
        {'force_tolerance': 1e-9},
        {'imaginary_cutoff': 0},
        {'imaginary_cutoff': 1000},
        {'member_frequencies': False},
        {'checkpoint_interval': 0},
    ],
)
def test_sensible_values_are_allowed(values):
    assert validate_parameters(values, TASK) is None


@pytest.mark.parametrize(
    ('values', 'allowed'),
    [
        ({'precision': 'half'}, 'single, double, or null'),
        ({'precision': ''}, 'single, double, or null'),
        ({'expected': 'saddle'}, 'any, minimum, transition_state'),
        ({'expected': None}, 'any, minimum, transition_state'),
        ({'expected': ['minimum']}, 'any, minimum, transition_state'),
        ({'force_tolerance': 0}, 'a positive number'),
        ({'force_tolerance': -0.1}, 'a positive number'),
        ({'force_tolerance': float('nan')}, 'a positive number'),
        ({'force_tolerance': '0.1'}, 'a positive number'),
        ({'imaginary_cutoff': -1}, 'from 0 to 1000'),
        ({'imaginary_cutoff': 1001}, 'from 0 to 1000'),
        ({'imaginary_cutoff': float('inf')}, 'from 0 to 1000'),
        ({'imaginary_cutoff': True}, 'from 0 to 1000'),
        ({'member_frequencies': 1}, 'true, false'),
        ({'checkpoint_interval': -1}, 'from 0'),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(values, allowed):
    message = validate_parameters(values, TASK)
    assert message is not None
    assert f'{next(iter(values))} = ' in message and allowed in message


def test_what_may_be_expected_is_told_by_the_number_of_imaginary_modes():
    assert ORDERS == {'minimum': 0, 'transition_state': 1}
    assert set(EXPECTATIONS) == {'any', *ORDERS}


@pytest.mark.parametrize(
    'values',
    [
        {'precision': 'double'},
        {'expected': 'minimum'},
        {'force_tolerance': 0.1},
        {'imaginary_cutoff': 5},
        {'member_frequencies': False},
    ],
)
def test_other_results_are_not_gone_on_with(values):
    assert result_parameters(values, TASK) != result_parameters({}, TASK)


def test_the_interval_of_checkpoints_may_change():
    assert result_parameters({'checkpoint_interval': 7}, TASK) == result_parameters({}, TASK)
