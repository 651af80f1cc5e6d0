"""Reactions through the engine: real jobs, checked against the species that they are made of."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase import Atoms
from ase.build import molecule

from aiida_mlpotential.cli import demo
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.library import get_model
from aiida_mlpotential.worker.units import KCAL_PER_MOL
from aiida_mlpotential.workflows.reaction import ReactionWorkChain

CLUSTERS = {'dimer': -2, 'tetramer': 1}
#: Standard enthalpies and Gibbs energies of formation of gases at 298.15 K, kJ/mol: CRC Handbook of Chemistry and
#: Physics, "Standard Thermodynamic Properties of Chemical Substances". 2 CH3OH -> CH3OCH3 + H2O has -23.9 and -16.6
#: kJ/mol by them, which is -5.71 and -3.97 kcal/mol.
FORMATION = {
    'enthalpy': {'CH3OH': -201.0, 'CH3OCH3': -184.1, 'H2O': -241.8},
    'gibbs_energy': {'CH3OH': -162.3, 'CH3OCH3': -112.6, 'H2O': -228.6},
}
KJ_PER_KCAL = 4.184


@pytest.fixture
def molecules_model(aiida_profile):
    """Return the EMT calculator with the light elements that it has for tests."""
    elements = ['H', 'C', 'N', 'O', 'Cu']
    return ModelData.from_ase_calculator('ase.calculators.emt.EMT', elements=elements, name='EMT').get_or_store()


@pytest.fixture
def clusters():
    """Return two clusters of copper near their minima."""
    return {
        'dimer': orm.StructureData(ase=Atoms('Cu2', positions=[[0, 0, 0], [2.3, 0, 0]])),
        'tetramer': orm.StructureData(
            ase=Atoms('Cu4', positions=[[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [1.2, 0.7, 2.0]])
        ),
    }


@pytest.fixture
def ani(shared_data, monkeypatch, aiida_profile):
    """Return ANI-1ccx."""
    monkeypatch.setenv('AIIDA_MLPOTENTIAL_MODELS', str(shared_data / 'models' / 'torchani'))
    return get_model('ANI-1ccx')


def _conditions(**parameters):
    return {'thermochemistry': {'calc': {'parameters': parameters}}}


@pytest.mark.slow
def test_clusters(python_code, molecules_model, clusters):
    """Each step is one job for all species; the reaction is the difference of what they have."""
    overrides = _conditions(temperatures=[298.15, 500.0])
    builder = ReactionWorkChain.get_builder_from_protocol(
        python_code, molecules_model, clusters, CLUSTERS, overrides=overrides
    )
    builder.spin_multiplicities = {'dimer': 3}
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    jobs = [item for item in node.called_descendants if isinstance(item, orm.CalcJobNode)]
    assert [item.process_label for item in jobs] == ['GeometryOptimizationCalculation', 'ThermochemistryCalculation']
    results, reaction = outputs['results'], outputs['reaction'].get_dict()
    assert outputs['output_structures'].labels == ('dimer', 'tetramer')
    assert reaction['equation'] == '2 dimer → tetramer'
    assert reaction['temperatures'] == [298.15, 500.0]
    gibbs = results.get_array('gibbs_energies')
    numbers = {name: np.array(item['value']) for name, item in reaction['quantities'].items()}
    np.testing.assert_allclose(numbers['gibbs_energy'], gibbs[1] - 2 * gibbs[0], atol=1e-10)
    np.testing.assert_allclose(numbers['energy'], results.energies[1] - 2 * results.energies[0], atol=1e-10)
    np.testing.assert_allclose(numbers['enthalpy'] + numbers['entropy_term'], numbers['gibbs_energy'], atol=1e-10)
    assert reaction['species']['dimer']['spin_multiplicity'] == 3
    assert [reaction['species'][name]['point_group'] for name in CLUSTERS] == ['Dinfh', 'Td']
    row = next(row for row in reaction['table'] if (row['temperature'], row['quantity']) == (500.0, 'gibbs_energy'))
    assert row['kcal_per_mol'] == pytest.approx(numbers['gibbs_energy'][1] / KCAL_PER_MOL)
    assert row['std_kcal_per_mol'] is None
    assert 'reaction_members' not in outputs
    assert outputs['reaction'].creator.process_label == 'compute_reaction'
    collected = jobs[0].inputs.structures.creator
    assert collected.inputs.dimer.uuid == node.inputs.species.dimer.uuid


@pytest.mark.slow
def test_members_are_propagated_through_the_reaction(python_code, ani):
    """The spread is that of the reaction energies of the members, to be had from their own Gibbs energies."""
    names = {'methanol': 'CH3OH', 'ether': 'CH3OCH3', 'water': 'H2O'}
    species = {name: orm.StructureData(ase=molecule(formula)) for name, formula in names.items()}
    coefficients = {'methanol': -2, 'ether': 1, 'water': 1}
    builder = ReactionWorkChain.get_builder_from_protocol(python_code, ani, species, coefficients)
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    results, quantities = outputs['results'], outputs['reaction'].get_dict()['quantities']
    factors = np.array([-2.0, 1.0, 1.0])
    expected = np.einsum('n,nmt->mt', factors, results.get_array('member_gibbs_energies'))
    members = outputs['reaction_members'].get_array('gibbs_energy')
    np.testing.assert_allclose(members, expected, atol=1e-10)
    np.testing.assert_allclose(quantities['gibbs_energy']['std'], expected.std(axis=0, ddof=1), atol=1e-10)
    separate = np.sqrt(factors**2 @ results.get_array('gibbs_energy_std') ** 2)
    np.testing.assert_allclose(quantities['gibbs_energy']['std_if_independent'], separate, rtol=1e-6)
    assert all(len(item['std']) == 1 for item in quantities.values())
    for name, formation in FORMATION.items():  # of this reaction it knows more than the spread promises
        measured = float(factors @ [formation[formula] for formula in names.values()]) / KJ_PER_KCAL
        assert quantities[name]['value'][0] / KCAL_PER_MOL == pytest.approx(measured, abs=0.3)


@pytest.mark.slow
def test_reaction_14_of_isol24(python_code, ani):
    """The acceptance case: the same numbers as those of two jobs by hand, which were compared with ASE."""
    folder = Path(demo.__file__).parent / 'demo_data'
    species = {
        name: orm.StructureData(ase=ase.io.read(folder / f'{file}.xyz'))
        for name, file in (('educt', demo.EDUCT), ('product', demo.PRODUCT))
    }
    builder = ReactionWorkChain.get_builder_from_protocol(
        python_code,
        ani,
        species,
        {'educt': -1, 'product': 1},
        protocol='precise',
        overrides=_conditions(temperatures=[298.15]),
    )
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    gibbs = outputs['reaction'].get_dict()['quantities']['gibbs_energy']
    assert gibbs['value'][0] / KCAL_PER_MOL == pytest.approx(6.00, abs=0.01)
    assert gibbs['std'][0] / KCAL_PER_MOL == pytest.approx(2.34, abs=0.01)
    assert outputs['output_parameters']['displaced'] == {}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'stoichiometry': {'dimer': -1, 'tetramer': 1}}, r'the atoms do not balance in dimer → tetramer .*\+2 Cu'),
        ({'stoichiometry': {'dimer': -2, 'tetramer': 0}}, 'the coefficient 0 of tetramer'),
        ({'stoichiometry': {'dimer': -2, 'hexamer': 1}}, 'names hexamer, of which there is no structure'),
        ({'stoichiometry': {'dimer': -2}}, 'there is no product'),
        ({'spin_multiplicities': {'trimer': 2}}, 'spin_multiplicities names trimer: the species are dimer, tetramer'),
        ({'symmetry_numbers': {'dimer': 2}}, 'symmetry_numbers has none for tetramer'),
        ({'spin_multiplicities': {'dimer': 'three'}}, 'thermochemistry: parameters: spin_multiplicity = '),
        ({'thermochemistry': {'spin_multiplicity': [1, 3]}}, 'species have no order: give `spin_multiplicities`'),
        ({'thermochemistry': {'temperatures': [-1.0]}}, 'temperatures above 0 K'),
        ({'optimization': {'max_qbc': 0.1}}, 'optimization: parameters: max_qbc asks for a spread'),
        ({'max_displacements': -1}, 'max_displacements must be 0 or more'),
        ({'displacement': 0.0}, 'displacement must be above 0'),
    ],
)
def test_what_is_no_reaction_is_said_before_submission(python_code, molecules_model, clusters, changes, message):
    """One sentence, and no process."""
    builder = ReactionWorkChain.get_builder_from_protocol(python_code, molecules_model, clusters, CLUSTERS)
    before = orm.QueryBuilder().append(orm.ProcessNode).count()
    with pytest.raises(ValueError, match=message):
        for name, value in changes.items():
            if name in ('optimization', 'thermochemistry'):
                builder[name].calc.parameters = orm.Dict({**builder[name].calc.parameters.get_dict(), **value})
            else:
                setattr(builder, name, value)
        run_get_node(builder)
    assert orm.QueryBuilder().append(orm.ProcessNode).count() == before


def test_names_that_are_taken(python_code, molecules_model, clusters):
    clusters['order'] = clusters.pop('dimer')
    with pytest.raises(ValueError, match="'order' is a name that is taken"):
        builder = ReactionWorkChain.get_builder_from_protocol(
            python_code, molecules_model, clusters, {'order': -2, 'tetramer': 1}
        )
        run_get_node(builder)


@pytest.mark.slow
def test_a_species_that_fails_ends_the_reaction(python_code, molecules_model, clusters):
    """What is known of the others is kept; a reaction without one of them is none."""
    overrides = {
        'optimization': {'calc': {'parameters': {'max_steps': 1, 'optimizer': 'FIRE'}}},
        'thermochemistry': {'calc': {'parameters': {'symmetry_number': 1}}},
    }
    builder = ReactionWorkChain.get_builder_from_protocol(
        python_code, molecules_model, clusters, CLUSTERS, overrides=overrides
    )
    outputs, node = run_get_node(builder)
    assert node.exit_status == ReactionWorkChain.exit_codes.ERROR_SPECIES_FAILED.status
    assert 'without all its species: ThermochemistryWorkChain<' in node.exit_message
    assert 'reaction' not in outputs
    assert 'output_structures' in outputs


def test_a_lattice_of_protocols():
    assert set(ReactionWorkChain.get_available_protocols()) == {'fast', 'balanced', 'precise'}
