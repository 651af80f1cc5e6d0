"""Thermochemistry without a job: other temperatures from stored modes give what a job gives."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_mlpotential.calculations.ideal_gas import ideal_gas, run_ideal_gas
from aiida_mlpotential.calculations.thermochemistry import ThermochemistryCalculation
from aiida_mlpotential.calculations.vibrations import VibrationsCalculation
from aiida_mlpotential.data.normal_modes import NormalModesData
from aiida_mlpotential.data.structures import StructureSetData

pytestmark = pytest.mark.slow

HOT = {'temperatures': [500.0, 700.0, 900.0], 'gas_pressure': 1e6}
NUMBERS = {'symmetry_number': [12, 2], 'spin_multiplicity': [1, 3]}


@pytest.fixture
def structures(tetrahedron, nitrogen):
    return StructureSetData.from_ase([tetrahedron, nitrogen], labels=['a', 'b']).store()


@pytest.fixture
def run(python_code, molecules_model, structures):
    """Return a function that runs a job and returns its results."""

    def function(process, **parameters):
        outputs, node = run_get_node(
            process, code=python_code, model=molecules_model, structures=structures, parameters=parameters
        )
        assert node.is_finished_ok, node.exit_message
        return outputs['results']

    return function


def test_it_gives_what_a_job_gives(run, structures):
    cold, hot = run(ThermochemistryCalculation, **NUMBERS), run(ThermochemistryCalculation, **NUMBERS, **HOT)
    again = run_ideal_gas(cold, **HOT)
    assert isinstance(again, NormalModesData)
    assert again.is_stored
    assert set(again.get_arraynames()) == set(hot.get_arraynames())
    for name in hot.get_arraynames():
        np.testing.assert_allclose(again.get_array(name), hot.get_array(name), atol=1e-8, err_msg=name)
    skipped = {'precision', 'messages'}
    ours, theirs = again.base.attributes.all, hot.base.attributes.all
    for key in set(ours) - skipped:
        assert ours[key] == (pytest.approx(theirs[key], abs=1e-6) if isinstance(theirs[key], float) else theirs[key]), (
            key
        )
    # The parameters of a job are known to its results, those of the function to its own process.
    assert set(theirs) - set(ours) == {'parameters_hash'}
    assert set(ours) <= set(theirs)
    assert again.temperatures == HOT['temperatures']
    assert again.to_ase()[1].get_potential_energy() == cold.to_ase()[1].get_potential_energy()
    process = again.creator
    assert process.inputs.results.uuid == cold.uuid
    assert process.inputs.structures.uuid == structures.uuid
    assert process.inputs.parameters.get_dict() == HOT


def test_modes_without_thermochemistry_get_the_symmetry_numbers_of_their_point_groups(run, structures):
    modes = run(VibrationsCalculation)
    found = run_ideal_gas(modes, **HOT)
    assert found.get_array('symmetry_numbers').tolist() == NUMBERS['symmetry_number']
    assert [found.point_group(index) for index in range(2)] == ['Td', 'Dinfh']
    gas = run_ideal_gas(modes, **NUMBERS, **HOT)
    job = run(ThermochemistryCalculation, **NUMBERS, **HOT)
    np.testing.assert_allclose(gas.get_array('gibbs_energies'), job.get_array('gibbs_energies'), atol=1e-8)
    other = ideal_gas(gas, structures, orm.Dict({'symmetry_number': [1, 1]}))
    # one spin, three directions and twelve orientations: the entropies differ by k ln of the ratio
    difference = other.get_array('entropies') - gas.get_array('entropies')
    np.testing.assert_allclose(difference[:, 0], 8.617333e-5 * np.log([12, 2]), rtol=1e-5)
    assert other.temperatures == HOT['temperatures']


@pytest.mark.parametrize(
    ('parameters', 'text'),
    [
        ({'temperatures': [-1.0]}, 'temperatures above 0 K'),
        ({'gas_pressure': 0}, 'gas_pressure'),
        ({'symmetry_number': [1, 2, 3]}, 'symmetry_number has 3 values for 2 structures'),
        ({'precision': 'double'}, 'precision is none of temperatures, gas_pressure'),
        ({'temperature': [300.0]}, 'temperature is none of'),
    ],
)
def test_bad_parameters_are_refused_before_there_is_a_process(run, parameters, text):
    modes = run(VibrationsCalculation)
    before = orm.QueryBuilder().append(orm.CalcFunctionNode).count()
    with pytest.raises(ValueError, match=text):
        run_ideal_gas(modes, **parameters)
    assert orm.QueryBuilder().append(orm.CalcFunctionNode).count() == before


def test_other_structures_are_refused(run, tetrahedron):
    modes = run(VibrationsCalculation)
    with pytest.raises(ValueError, match='these are 1 others than the 2'):
        run_ideal_gas(modes, orm.StructureData(ase=tetrahedron), symmetry_number=1)
    with pytest.raises(ValueError, match='a Int is neither'):
        run_ideal_gas(modes, orm.Int(1), symmetry_number=1)


def test_a_point_group_that_is_not_found_is_asked_for(run, monkeypatch):
    from aiida_mlpotential.calculations import ideal_gas as module

    modes = run(VibrationsCalculation)
    monkeypatch.setattr(module, 'symmetry_numbers', lambda frames: (np.zeros(2, dtype='i4'), ('unknown', 'unknown')))
    with pytest.raises(ValueError, match='no point group was found: give symmetry_number'):
        run_ideal_gas(modes, **HOT)
    monkeypatch.setattr(module, 'symmetry_numbers', lambda frames: (np.array([0, 2], dtype='i4'), ('unknown', 'Dinfh')))
    some = run_ideal_gas(modes, **HOT)
    assert [some.frame(index).status.name for index in range(2)] == ['NO_SYMMETRY_NUMBER', 'OK']
    assert (some.n_ok, some.n_failed) == (1, 1)
    assert some.thermochemistry(0) == {}
    whole = run_ideal_gas(some, symmetry_number=[12, 2])
    assert whole.n_ok == 2
    assert np.isfinite(whole.get_array('gibbs_energies')).all()
