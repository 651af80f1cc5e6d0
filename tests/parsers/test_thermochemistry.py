"""Parsing thermochemistry: temperatures, point groups and multiplicities find their way to the results."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from ase import Atoms

from aiida_mlpotential.calculations.thermochemistry import ThermochemistryCalculation
from aiida_mlpotential.data.structures import StructureSetData

CODES = ThermochemistryCalculation.exit_codes
PARAMETERS = {'temperatures': [300.0, 400.0], 'force_tolerance': 10.0, 'spin_multiplicity': 3}


def dimers():
    """Return two copper dimers, near their minimum."""
    return [Atoms('Cu2', positions=[[0, 0, 0], [0, 0, distance]]) for distance in (2.2, 2.25)]


def symmetry(number):
    return {
        'symmetry_numbers': np.full(number, 2, dtype='i4'),
        'point_groups': np.array(['Dinfh'] * number, dtype=np.str_),
    }


@pytest.fixture
def job(finish, emt_model):
    """Return a finished job of two dimers."""
    structures = StructureSetData.from_ase(dimers(), labels=['a', 'b'])
    return finish('thermochemistry', structures, emt_model, PARAMETERS, symmetry(2))


@pytest.fixture
def single(finish, emt_model):
    """Return a finished job of one dimer."""
    return finish('thermochemistry', orm.StructureData(ase=dimers()[0]), emt_model, PARAMETERS, symmetry(1))


def test_outputs_of_a_single_structure(single):
    outputs, node = single.parse()
    assert node.exit_status in (None, 0), node.exit_message
    summary = outputs['output_parameters'].get_dict()
    assert summary['temperatures'] == [300.0, 400.0]
    assert (summary['point_group'], summary['symmetry_number'], summary['spin_multiplicity']) == ('Dinfh', 2, 3)
    np.testing.assert_allclose(summary['gibbs_energies'], single.load('gibbs_energies')[0])
    np.testing.assert_allclose(
        np.array(summary['enthalpies']) - summary['entropy_term'], summary['gibbs_energies'], atol=1e-10
    )
    assert summary['excluded_frequencies'] == []
    assert summary['character'] == 'minimum'
    assert outputs['results'].point_group(0) == 'Dinfh'
    assert outputs['results'].temperatures == [300.0, 400.0]


def test_outputs_of_a_set(job):
    outputs, node = job.parse()
    assert node.exit_status in (None, 0)
    results = outputs['results']
    assert [results.point_group(index) for index in range(2)] == ['Dinfh', 'Dinfh']
    assert results.get_array('spin_multiplicities').tolist() == [3, 3]
    assert results.base.attributes.get('settings') == {'gas_pressure': 101325.0, 'low_frequency_cutoff': 20.0}
    assert 'gibbs_energies' not in outputs['output_parameters'].get_dict()
    assert outputs['output_parameters']['n_minima'] == 2


@pytest.mark.parametrize('temperatures', [[300.0], None, [300.0, -1.0], [300.0, 'hot']])
def test_temperatures_that_are_not_those_of_the_job(job, temperatures):
    job.change_info(temperatures=temperatures)
    _, node = job.parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status
    assert 'temperature' in node.exit_message


@pytest.mark.slow
def test_point_groups_of_other_structures_are_refused(job):
    from aiida_mlpotential.worker.frames import write_npz

    write_npz(job.directory / 'symmetry.npz', symmetry(3))
    outputs, node = job.parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status
    assert 'point groups' in node.exit_message
    (job.directory / 'symmetry.npz').unlink()
    outputs, node = job.parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status
    assert 'symmetry.npz is missing' in node.exit_message
    assert 'output_parameters' in outputs


def test_a_saddle_has_its_exit_code(job):
    job.save('status', np.array([15, 15], dtype='i1'))
    _, node = job.parse()
    assert node.exit_status == CODES.ERROR_WRONG_CHARACTER.status
