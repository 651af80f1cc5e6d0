"""Parsing vibrational analyses."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from ase import Atoms

from aiida_mlpotential.calculations.vibrations import VibrationsCalculation
from aiida_mlpotential.data.normal_modes import NormalModesData
from aiida_mlpotential.data.structures import StructureSetData

CODES = VibrationsCalculation.exit_codes


def clusters():
    """Return three copper dimers, near their minimum."""
    return [Atoms('Cu2', positions=[[0, 0, 0], [0, 0, distance]]) for distance in (2.2, 2.25, 2.3)]


@pytest.fixture
def job(finish, emt_model):
    """Return a finished job of three dimers."""
    return finish('vibrations', StructureSetData.from_ase(clusters(), labels=['a', 'b', 'c']), emt_model)


@pytest.fixture
def single(finish, emt_model):
    """Return a finished job of one dimer."""
    return finish('vibrations', orm.StructureData(ase=clusters()[0]), emt_model, {'force_tolerance': 10.0})


def test_outputs_of_a_single_structure(single):
    outputs, node = single.parse()
    assert node.exit_status in (None, 0)
    assert set(outputs) == {'results', 'output_parameters'}
    assert isinstance(outputs['results'], NormalModesData)
    summary = outputs['output_parameters'].get_dict()
    frequency = single.load('frequencies')[5]
    assert summary['lowest_frequencies'] == [pytest.approx(frequency)]
    assert (summary['character'], summary['n_imaginary'], summary['status']) == ('minimum', 0, 'OK')
    assert summary['energy'] == pytest.approx(single.load('energies')[0])
    assert 'temperatures' not in summary


def test_outputs_of_a_set_are_counts(job):
    job.save('n_imaginary', np.array([0, 1, 2], dtype='<i4'))
    job.save('stationary', np.array([1, 1, 1], dtype='<i4'))
    outputs, _ = job.parse()
    summary = outputs['output_parameters'].get_dict()
    counts = {'n_minima': 1, 'n_transition_states': 1, 'n_higher_saddles': 1, 'n_not_stationary': 0}
    assert {key: summary[key] for key in counts} == counts
    assert summary['status_counts'] == {'OK': 3}
    assert 'character' not in summary


def test_wrong_characters_have_an_exit_code(job):
    job.save('status', np.array([15, 0, 15], dtype='i1'))
    job.change_info(messages={'0': 'not a minimum: it has 1 imaginary mode'})
    outputs, node = job.parse()
    assert node.exit_status == CODES.ERROR_WRONG_CHARACTER.status
    assert '2 of 3; a: WRONG_CHARACTER, not a minimum' in node.exit_message
    assert outputs['results'].frequencies(0).shape == (1,)
    job.save('status', np.array([15, 2, 15], dtype='i1'))
    _, node = job.parse()
    assert node.exit_status == CODES.ERROR_ALL_STRUCTURES_FAILED.status


def test_a_single_structure_that_failed_has_a_status(single):
    single.save('status', np.array([8], dtype='i1'))
    outputs, _ = single.parse()
    assert outputs['output_parameters']['status'] == 'BACKEND_FAILED'
    assert 'zero_point_energy' not in outputs['output_parameters'].get_dict()
    assert 'zero_point_energy' not in outputs['results'].base.attributes.all


@pytest.mark.parametrize('name', ['frequencies', 'normal_modes', 'n_rigid', 'hessian'])
def test_an_array_that_is_missing(job, name):
    (job.directory / 'arrays' / f'{name}.npy').unlink()
    _, node = job.parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status
    assert f'the array {name}.npy is missing' in node.exit_message
