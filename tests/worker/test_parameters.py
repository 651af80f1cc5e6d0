"""Parameters: every wrong key or value gets one sentence that names the key and what is allowed."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.parameters import (
    PARAMETERS,
    fingerprint,
    result_parameters,
    validate_parameters,
    with_defaults,
)
from aiida_mlpotential.worker.schema import JobSpec, ModelSpec


def test_the_defaults_are_valid():
    assert validate_parameters(with_defaults({})) is None


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
    assert PARAMETERS[key].allowed in message


def test_an_unknown_key_gets_a_suggestion():
    message = validate_parameters({'num_thread': 2})
    assert message is not None
    assert "did you mean 'num_threads'?" in message


def test_only_what_changes_results_counts_for_a_restart():
    assert result_parameters({'num_threads': 3, 'device': 'cpu', 'batch_atoms': 7}) == result_parameters({})
    assert result_parameters({'precision': 'double'}) != result_parameters({})
    assert result_parameters({'properties': ['forces', 'energy']}) == result_parameters({'properties': ['forces']})


def test_the_fingerprint_is_that_of_the_results():
    def spec(units='eV', **parameters):
        return JobSpec('single_point', ModelSpec('m', 'ase', 'a' * 64, energy_unit=units), parameters, 'b' * 64)

    assert fingerprint(spec(num_threads=2)) == fingerprint(spec(device='cpu'))
    assert fingerprint(spec(precision='double')) != fingerprint(spec())
    assert fingerprint(spec(units='Hartree')) != fingerprint(spec())
