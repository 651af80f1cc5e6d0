"""The parameters of each task: known keys, defaults, and those on which the results depend."""

from __future__ import annotations

import dataclasses

import pytest

from aiida_mlpotential.worker.parameters import (
    fingerprint,
    parameters_of,
    result_parameters,
    validate_parameters,
    with_defaults,
)
from aiida_mlpotential.worker.schema import JobSpec, ModelSpec
from aiida_mlpotential.worker.tasks import TASKS


@pytest.mark.parametrize('task', TASKS)
def test_the_defaults_of_each_task_are_valid(task):
    assert validate_parameters(with_defaults({}, task), task) is None


@pytest.mark.parametrize('task', TASKS)
def test_each_task_has_what_all_have(task):
    names = set(parameters_of(task))
    assert set(parameters_of('single_point')) <= names
    assert all(parameter.name == name and parameter.help for name, parameter in parameters_of(task).items())


def test_a_key_of_another_task_is_unknown():
    message = validate_parameters({'max_steps': 3}, 'single_point')
    assert message is not None and "unknown key 'max_steps'" in message
    assert validate_parameters({'max_steps': 3}, 'geometry_optimization') is None


def test_an_unknown_key_gets_a_suggestion():
    message = validate_parameters({'num_thread': 2})
    assert message is not None
    assert "did you mean 'num_threads'?" in message


def test_only_what_changes_results_counts_for_a_restart():
    assert result_parameters({'num_threads': 3, 'device': 'cpu', 'batch_atoms': 7}) == result_parameters({})
    assert result_parameters({'precision': 'double'}) != result_parameters({})
    assert result_parameters({'properties': ['forces', 'energy']}) == result_parameters({'properties': ['forces']})


def test_a_restart_may_change_how_long_it_goes_on():
    task = 'geometry_optimization'
    assert result_parameters({'max_steps': 7}, task) == result_parameters({}, task)
    assert result_parameters({'force_tolerance': 0.02}, task) != result_parameters({}, task)


def test_the_fingerprint_is_that_of_the_results():
    def spec(units='eV', **parameters):
        return JobSpec('single_point', ModelSpec('m', 'ase', 'a' * 64, energy_unit=units), parameters, 'b' * 64)

    assert fingerprint(spec(num_threads=2)) == fingerprint(spec(device='cpu'))
    assert fingerprint(spec(precision='double')) != fingerprint(spec())
    assert fingerprint(spec(units='Hartree')) != fingerprint(spec())
    assert fingerprint(dataclasses.replace(spec(), symmetry_sha256='c' * 64)) != fingerprint(spec())
    assert fingerprint(dataclasses.replace(spec(), task='vibrations')) != fingerprint(spec())
