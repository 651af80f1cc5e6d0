"""Thermochemistry through the engine: real jobs on this machine, compared with ASE on the same potential."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.thermochemistry import IdealGasThermo

from aiida_mlpotential.calculations.thermochemistry import ThermochemistryCalculation
from aiida_mlpotential.data.structures import StructureSetData

pytestmark = pytest.mark.slow

CODES = ThermochemistryCalculation.exit_codes
GIVEN = {'symmetry_number': 12, 'temperatures': [298.15, 500.0], 'gas_pressure': 1e5}


@pytest.fixture
def run(python_code, molecules_model):
    """Return a function that runs a job and returns outputs and node."""

    def function(**inputs):
        return run_get_node(ThermochemistryCalculation, code=python_code, model=molecules_model, **inputs)

    return function


def test_one_molecule(run, tetrahedron):
    outputs, node = run(structure=orm.StructureData(ase=tetrahedron), parameters=GIVEN)
    assert node.is_finished_ok, node.exit_message
    results, summary = outputs['results'], outputs['output_parameters'].get_dict()
    energies = results.frequencies(0) * units.invcm
    atoms = tetrahedron.copy()
    atoms.calc = EMT()
    gas = IdealGasThermo(
        energies, 'nonlinear', atoms=atoms, symmetrynumber=12, spin=0, potentialenergy=atoms.get_potential_energy()
    )
    for number, temperature in enumerate(GIVEN['temperatures']):
        expected = gas.get_gibbs_energy(temperature, 1e5, verbose=False)
        assert summary['gibbs_energies'][number] == pytest.approx(expected, abs=1e-5)
        assert summary['enthalpies'][number] == pytest.approx(gas.get_enthalpy(temperature, verbose=False), abs=1e-5)
        total = summary['enthalpies'][number] - summary['entropy_term'][number]
        assert total == pytest.approx(summary['gibbs_energies'][number])
    assert summary['temperatures'] == GIVEN['temperatures']
    assert (summary['symmetry_number'], summary['point_group'], summary['spin_multiplicity']) == (12, None, 1)
    assert results.base.attributes.get('gibbs_energy') == pytest.approx(summary['gibbs_energies'][0])
    assert results.base.attributes.get('settings') == {'gas_pressure': 1e5, 'low_frequency_cutoff': 20.0}
    assert 'symmetry.npz' not in node.base.repository.list_object_names()


def test_point_groups_are_found_before_the_job_is_sent(run, tetrahedron, nitrogen):
    outputs, node = run(structure=orm.StructureData(ase=tetrahedron))
    assert node.is_finished_ok, node.exit_message
    summary = outputs['output_parameters'].get_dict()
    assert (summary['symmetry_number'], summary['point_group']) == (12, 'Td')
    assert 'symmetry.npz' in node.base.repository.list_object_names()

    structures = StructureSetData.from_ase([tetrahedron, nitrogen])
    outputs, node = run(structures=structures, parameters={'spin_multiplicity': [1, 3]})
    assert node.is_finished_ok, node.exit_message
    results = outputs['results']
    assert results.get_array('symmetry_numbers').tolist() == [12, 2]
    assert [results.point_group(index) for index in range(2)] == ['Td', 'Dinfh']
    assert results.get_array('spin_multiplicities').tolist() == [1, 3]
    entropies = [results.thermochemistry(index)['entropy_electronic'][0] for index in range(2)]
    np.testing.assert_allclose(entropies, [0, units.kB * np.log(3)], rtol=1e-6)


def test_a_saddle_is_no_minimum(run, square):
    _, node = run(structure=orm.StructureData(ase=square), parameters={'symmetry_number': 8})
    assert node.exit_status == CODES.ERROR_WRONG_CHARACTER.status


@pytest.mark.parametrize(
    ('structures', 'parameters', 'text'),
    [
        ([bulk('Cu')], {}, 'ideal gas of molecules'),
        ([bulk('Cu')] * 2, {}, 'all are periodic'),
        (2, {'symmetry_number': [1, 2, 3]}, 'symmetry_number has 3 values for 2 structures'),
        (2, {'spin_multiplicity': [1]}, 'spin_multiplicity has 1 values for 2 structures'),
        (1, {'temperatures': [-10.0]}, 'temperatures above 0 K'),
        (1, {'temperatures': []}, 'temperatures'),
    ],
)
def test_what_cannot_be_is_said_before_submission(run, tetrahedron, structures, parameters, text):
    found = [tetrahedron] * structures if isinstance(structures, int) else structures
    inputs = {'structure': orm.StructureData(ase=found[0])}
    if len(found) > 1:
        inputs = {'structures': StructureSetData.from_ase(found)}
    with pytest.raises(ValueError, match=text):
        run(**inputs, parameters=parameters)


def test_a_point_group_that_is_not_found_is_said_before_submission(run, tetrahedron, monkeypatch):
    from aiida_mlpotential.calculations import thermochemistry as module

    numbers = np.zeros(1, dtype='i4')
    monkeypatch.setattr(module, 'symmetry_numbers', lambda frames: (numbers, ('unknown',)))
    with pytest.raises(ValueError, match='structure: Its point group was not found: give `symmetry_number`'):
        run(structure=orm.StructureData(ase=tetrahedron))


def test_structures_without_a_symmetry_number_fail_on_their_own(run, tetrahedron, nitrogen, monkeypatch):
    from aiida_mlpotential.calculations import thermochemistry as module

    found = np.array([0, 2], dtype='i4'), ('unknown', 'Dinfh')
    monkeypatch.setattr(module, 'symmetry_numbers', lambda frames: found)
    outputs, node = run(structures=StructureSetData.from_ase([tetrahedron, nitrogen], labels=['a', 'b']))
    assert node.exit_status == CODES.ERROR_SOME_STRUCTURES_FAILED.status
    assert 'a: NO_SYMMETRY_NUMBER' in node.exit_message
    assert outputs['results'].thermochemistry(0) == {}
    assert np.isfinite(outputs['results'].thermochemistry(1)['gibbs_energies']).all()


def test_a_job_with_symmetry_goes_on_with_its_parent(run, tetrahedron):
    structure = orm.StructureData(ase=tetrahedron).store()
    _, first = run(structure=structure)
    outputs, node = run(structure=structure, parent_folder=first.outputs.remote_folder)
    assert node.is_finished_ok, node.exit_message
    assert any('went on with the results of 1' in note for note in outputs['output_parameters']['notes'])
