"""The parameters that every task has: every wrong value gets one sentence that names the key and what is allowed."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.parameters import parameters_of, validate_parameters


@pytest.mark.parametrize(
    'values',
    [
        {'properties': ['energy', 'forces', 'stress', 'forces_std']},
        {'precision': 'double'},
        {'device': 'cuda:1', 'device_fallback': True},
        {'num_threads': 4, 'batch_atoms': 1, 'memory_limit': 256},
        {'minimum_distance': 0},
    ],
)
def test_what_is_allowed_passes(values):
    assert validate_parameters(values) is None


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('properties', 'forces'),
        ('properties', ['force']),
        ('properties', [1]),
        ('precision', 'half'),
        ('device', 'gpu'),
        ('device', 'cuda:x'),
        ('device', None),
        ('device_fallback', 1),
        ('num_threads', 0),
        ('num_threads', True),
        ('num_threads', 2.0),
        ('batch_atoms', -1),
        ('memory_limit', 10),
        ('minimum_distance', float('nan')),
        ('minimum_distance', '0.5'),
        ('minimum_distance', -0.1),
        ('minimum_distance', 10**400),
        ('num_threads', 10**12),
        ('memory_limit', 10**30),
        ('device', 'cuda:99999999999999999999'),
        ('properties', {'energy': 1}),
        ('properties', [['energy']]),
    ],
)
def test_a_wrong_value_names_the_key_and_what_is_allowed(key, value):
    message = validate_parameters({key: value})
    assert message is not None
    assert key in message
    assert parameters_of()[key].allowed in message
