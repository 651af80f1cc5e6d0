"""Thermochemistry of minima through the engine: saddle points are left along their imaginary modes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import run_get_node
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from ase import Atoms
from ase.calculators.emt import EMT
from ase.optimize import BFGS

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.normal_modes import NormalModesData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.workflows.thermochemistry import ThermochemistryWorkChain

pytestmark = pytest.mark.slow

CODES = ThermochemistryWorkChain.exit_codes


@pytest.fixture
def molecules_model(aiida_profile):
    """Return the EMT calculator with the light elements that it has for tests."""
    elements = ['H', 'C', 'N', 'O', 'Cu']
    return ModelData.from_ase_calculator('ase.calculators.emt.EMT', elements=elements, name='EMT').get_or_store()


@pytest.fixture
def run(python_code, molecules_model):
    """Return a function that runs the workflow for structures, with parameters by stage."""

    def function(structures, protocol=None, **inputs):
        stages = ('optimization', 'thermochemistry')
        overrides = {name: {'calc': {'parameters': inputs.pop(name)}} for name in stages if name in inputs}
        builder = ThermochemistryWorkChain.get_builder_from_protocol(
            python_code, molecules_model, structures, protocol, {**inputs, **overrides}
        )
        return run_get_node(builder)

    return function


def _tetrahedron():
    return Atoms('Cu4', positions=[[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [1.2, 0.7, 2.0]])


def _square():
    """Return four atoms that an optimization leaves in a square: a saddle point of order 2."""
    return Atoms('Cu4', positions=[[0, 0, 0], [2.3, 0, 0], [0, 2.3, 0], [2.3, 2.3, 0]])


def _nitrogen():
    return Atoms('N2', positions=[[0, 0, 0], [0, 0, 1.2]])


def _jobs(node):
    return [item for item in node.called_descendants if isinstance(item, orm.CalcJobNode)]


def test_a_minimum(run):
    structure = orm.StructureData(ase=_tetrahedron())
    outputs, node = run(structure, thermochemistry={'temperatures': [298.15, 400.0]})
    assert node.is_finished_ok, node.exit_message
    summary = outputs['output_parameters'].get_dict()
    assert (summary['n_ok'], summary['displaced'], summary['unoptimized']) == (1, {}, {})
    assert (summary['point_group'], summary['symmetry_number']) == ('Td', 12)
    assert summary['gibbs_energies'] == pytest.approx(outputs['results'].thermochemistry(0)['gibbs_energies'].tolist())
    assert len(_jobs(node)) == 2
    atoms = outputs['output_structure'].get_ase()
    atoms.calc = EMT()
    assert np.abs(atoms.get_forces()).max() < 1e-3
    assert summary['energy'] == pytest.approx(atoms.get_potential_energy(), abs=1e-5)


def test_a_saddle_point_is_left(run):
    """The square becomes what the tetrahedron is: another optimization and another analysis."""
    expected, _ = run(orm.StructureData(ase=_tetrahedron()))
    outputs, node = run(orm.StructureData(ase=_square()))
    assert node.is_finished_ok, node.exit_message
    assert len(_jobs(node)) == 4
    assert outputs['output_parameters']['displaced'] == {'0': 1}
    assert outputs['output_parameters']['energy'] == pytest.approx(expected['output_parameters']['energy'], abs=1e-4)
    assert outputs['output_parameters']['point_group'] == 'Td'
    names = {item.process_label for item in node.called}
    assert {'displace_structure', 'summarize_minima'} <= names


def test_only_saddle_points_of_a_set_are_computed_again(run):
    """Of four molecules one: its results are put in its place, and a list of parameters goes along."""
    atoms = [_nitrogen(), _square(), _tetrahedron()]
    structures = StructureSetData.from_ase(atoms, labels=['nitrogen', 'square', 'tetrahedron'])
    outputs, node = run(structures, thermochemistry={'spin_multiplicity': [1, 3, 1], 'temperatures': [298.15, 400.0]})
    assert node.is_finished_ok, node.exit_message
    results, minima = outputs['results'], outputs['output_structures']
    assert outputs['output_parameters']['displaced'] == {'1': 1}
    assert [len(job.inputs.structures) for job in _jobs(node)] == [3, 3, 1, 1]
    assert results.status.tolist() == [0, 0, 0]
    assert [results.character(index) for index in range(3)] == ['minimum'] * 3
    assert [results.point_group(index) for index in range(3)] == ['Dinfh', 'Td', 'Td']
    assert results.get_array('spin_multiplicities').tolist() == [1, 3, 1]
    assert minima.labels == ('nitrogen', 'square', 'tetrahedron')
    assert results.get_structures_node().uuid == minima.uuid
    for index in range(3):
        found = minima.get_ase(index)
        found.calc = EMT()
        assert np.abs(found.get_forces()).max() < 1e-3
        assert results.energies[index] == pytest.approx(found.get_potential_energy(), abs=1e-5)
    first, last = _jobs(node)[1].outputs.results, _jobs(node)[3].outputs.results
    for name in ('frequencies', 'hessian', 'gibbs_energies', 'entropies'):
        whole, part = results.frame(1), last.frame(0)
        expected = part.hessian if name == 'hessian' else part.extra[name]
        np.testing.assert_array_equal(whole.hessian if name == 'hessian' else whole.extra[name], expected)
        for index in (0, 2):
            old, new = first.frame(index), results.frame(index)
            before = old.hessian if name == 'hessian' else old.extra[name]
            np.testing.assert_array_equal(new.hessian if name == 'hessian' else new.extra[name], before)
    assert results.base.attributes.get('n_minima') == 3
    assert results.base.attributes.get('energy_min') == pytest.approx(results.energies.min())
    assert results.messages == {}


def test_a_saddle_point_may_stay(run):
    """Without displacements it is what it is, with its modes; the message says so."""
    outputs, node = run(orm.StructureData(ase=_square()), max_displacements=0)
    assert node.exit_status == CODES.ERROR_NO_MINIMUM.status
    assert 'WRONG_CHARACTER' in node.exit_message
    assert outputs['results'].character(0) == 'saddle point of order 2'
    assert 'output_structure' in outputs
    assert len(_jobs(node)) == 2


def test_saddle_points_may_be_wanted(run):
    """Where any kind is expected, nothing is moved."""
    outputs, node = run(orm.StructureData(ase=_square()), thermochemistry={'expected': 'any'})
    assert node.is_finished_ok, node.exit_message
    assert outputs['results'].character(0) == 'saddle point of order 2'


def test_a_structure_that_does_not_converge_costs_no_other(run):
    relaxed = _nitrogen()
    relaxed.calc = EMT()
    BFGS(relaxed, logfile=None).run(fmax=1e-5)
    structures = StructureSetData.from_ase([relaxed, _tetrahedron()], labels=['nitrogen', 'tetrahedron'])
    outputs, node = run(structures, optimization={'max_steps': 1})
    assert node.exit_status == CODES.ERROR_SOME_STRUCTURES_FAILED.status, node.exit_message
    assert '(tetrahedron); the first: its optimization ended with NOT_CONVERGED' in node.exit_message
    assert outputs['output_parameters']['unoptimized'] == {'1': 'NOT_CONVERGED'}
    assert outputs['results'].status[0] == 0


def _at_rest(atoms):
    """Return atoms on which no force acts: an optimization takes no step."""
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-6)
    return atoms


def _chain():
    """Return five atoms in a row: a saddle point far from any minimum."""
    return Atoms('Cu5', positions=[[2.3 * number, 0, 0] for number in range(5)])


def test_a_saddle_point_stays_where_the_way_down_does_not_converge(run):
    """Two are moved, and the square needs 20 steps: the other one is what it was before, modes and all."""
    atoms = [_at_rest(item) for item in (_nitrogen(), _chain(), _square())]
    structures = StructureSetData.from_ase(atoms, labels=['nitrogen', 'chain', 'square'])
    outputs, node = run(structures, optimization={'max_steps': 25})
    assert node.exit_status == CODES.ERROR_SOME_STRUCTURES_FAILED.status
    assert '1 of 3 (chain); the first: WRONG_CHARACTER' in node.exit_message
    reason = 'moved along its imaginary modes, its optimization ended with NOT_CONVERGED: GeometryOptimizationBase'
    assert reason in node.exit_message
    summary, results, minima = outputs['output_parameters'], outputs['results'], outputs['output_structures']
    assert (summary['displaced'], summary['unoptimized']) == ({'1': 1, '2': 1}, {})
    assert list(summary['left_at_saddle']) == ['1']
    assert results.status.tolist() == [FrameStatus.OK, FrameStatus.WRONG_CHARACTER, FrameStatus.OK]
    assert (results.character(0), results.character(2)) == ('minimum', 'minimum')
    assert results.character(1).startswith('saddle point of order')
    assert list(results.messages) == [1]
    first, now = _jobs(node)[1].outputs.results.frame(1), results.frame(1)
    assert now.energy == first.energy
    np.testing.assert_array_equal(now.hessian, first.hessian)
    for name, values in first.extra.items():
        np.testing.assert_array_equal(now.extra[name], values)
    np.testing.assert_array_equal(minima.get_ase(1).positions, atoms[1].positions)
    assert results.point_group(2) == 'Td'


@pytest.mark.parametrize('single', [True, False], ids=['structure', 'set'])
def test_where_none_gets_down_the_saddle_points_are_the_results(run, single):
    """The others of the set are as good as before; nothing is analysed that was not optimized."""
    square = _at_rest(_square())
    structures = orm.StructureData(ase=square) if single else StructureSetData.from_ase([_at_rest(_nitrogen()), square])
    outputs, node = run(structures, optimization={'max_steps': 2})
    label = 'ERROR_NO_MINIMUM' if single else 'ERROR_SOME_STRUCTURES_FAILED'
    assert node.exit_status == CODES[label].status, node.exit_message
    assert 'WRONG_CHARACTER' in node.exit_message and 'ended with NOT_CONVERGED' in node.exit_message
    number = 0 if single else 1
    assert outputs['results'].character(number) == 'saddle point of order 2'
    assert list(outputs['output_parameters']['left_at_saddle']) == [str(number)]
    kept = outputs['output_structure'].get_ase() if single else outputs['output_structures'].get_ase(1)
    np.testing.assert_allclose(kept.positions, square.positions, atol=1e-12)
    stages = [job.process_label for job in _jobs(node)]
    assert stages.count('ThermochemistryCalculation') == 1
    assert stages.count('GeometryOptimizationCalculation') == 4


def test_a_saddle_point_stays_where_the_next_analysis_fails(python_code, molecules_model):
    """Made up: the minimum was found, and its modes were not."""
    structure = orm.StructureData(ase=_square())
    builder = ThermochemistryWorkChain.get_builder_from_protocol(python_code, molecules_model, structure)
    process = instantiate_process(get_manager().get_runner(), builder)
    process.setup()
    saddle = process.ctx.results = NormalModesData()
    process.ctx.round = 1
    results = SimpleNamespace(status=np.array([FrameStatus.BACKEND_FAILED], 'i1'))
    outputs = AttributeDict({'results': results})
    process.ctx.child = SimpleNamespace(outputs=outputs, process_label='Chain', pk=7, exit_status=701)
    assert process.inspect_thermochemistry() is None
    assert process.ctx.results is saddle and process.ctx.structures.uuid == structure.uuid
    assert process.ctx.left == {
        '0': 'moved along its imaginary modes, its thermochemistry ended with BACKEND_FAILED: Chain<7> [701]'
    }
    outputs.results.status[0] = FrameStatus.WRONG_CHARACTER
    process.ctx.left = {}
    process.inspect_thermochemistry()
    assert process.ctx.results is results


def test_a_failed_optimization_keeps_the_structure(run):
    outputs, node = run(orm.StructureData(ase=_tetrahedron()), optimization={'max_steps': 1})
    assert node.exit_status == CODES.ERROR_OPTIMIZATION_FAILED.status
    assert 'GeometryOptimizationBaseWorkChain<' in node.exit_message
    assert 'output_structure' in outputs
    assert 'results' not in outputs


def test_inputs_are_checked_before_the_first_job(run):
    before = orm.QueryBuilder().append(orm.ProcessNode).count()
    structures = StructureSetData.from_ase([_nitrogen(), _tetrahedron()])
    with pytest.raises(ValueError, match='thermochemistry: parameters: spin_multiplicity has 3 values for 2'):
        run(structures, thermochemistry={'spin_multiplicity': [1, 1, 1]})
    with pytest.raises(ValueError, match='optimization: parameters: '):
        run(structures, optimization={'optimizer': 'BFGS'})
    with pytest.raises(ValueError, match='can evaluate none of them'):
        run(StructureSetData.from_ase([Atoms('Xe')] * 2))
    assert orm.QueryBuilder().append(orm.ProcessNode).count() == before


def test_protocols(python_code, molecules_model):
    """The protocol of both jobs is that of the workflow; overrides and options reach them."""
    builder = ThermochemistryWorkChain.get_builder_from_protocol(
        python_code.uuid,
        molecules_model,
        orm.StructureData(ase=_nitrogen()),
        'precise',
        {'thermochemistry': {'calc': {'parameters': {'gas_pressure': 1e5}}}},
        {'max_wallclock_seconds': 77},
    )
    assert builder.optimization.calc.parameters['force_tolerance'] == 1e-4
    assert builder.optimization.calc.parameters['precision'] == 'double'
    assert builder.thermochemistry.calc.parameters['gas_pressure'] == 1e5
    assert len(builder.thermochemistry.calc.parameters['temperatures']) > 1
    for stage in (builder.optimization, builder.thermochemistry):
        assert stage.calc.metadata.options.max_wallclock_seconds == 77
        assert stage.calc.code.uuid == python_code.uuid
    with pytest.raises(ValueError, match='there is no protocol'):
        ThermochemistryWorkChain.get_builder_from_protocol(
            python_code, molecules_model, orm.StructureData(ase=_nitrogen()), 'sloppy'
        )
