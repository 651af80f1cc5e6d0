"""Screenings that optimize first, of structures some of which do not get to a minimum."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk

from aiida_mlpotential.data.results import ResultsError
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.parsers.geometry_optimization import GeometryOptimizationParser
from aiida_mlpotential.workflows.screening.chain import ScreeningWorkChain

pytestmark = pytest.mark.slow


@pytest.fixture
def half_optimized(python_code, emt_model):
    """Return outputs and node of a screening in which only the first of two structures is near a minimum."""
    near, far = bulk('Cu', cubic=True), bulk('Cu', cubic=True)
    far.positions += np.random.default_rng(1).normal(scale=0.3, size=far.positions.shape)
    structures = StructureSetData.from_ase([near, far]).store()
    optimization = {'parameters': {'max_steps': 1, 'force_tolerance': 1e-3}}
    inputs = {'structures': structures, 'models': {'emt': emt_model}, 'optimization': optimization}
    # Each test begins anew: what another one computed of the same structures is not gone on with.
    return run_get_node(ScreeningWorkChain, code=python_code, max_iterations=1, reuse=False, **inputs)


def test_what_is_no_minimum_is_said_and_not_ranked(half_optimized):
    outputs, node = half_optimized
    assert node.exit_status == 700
    assert '1 of 2 in the optimization' in node.exit_message
    relative = outputs['ranking'].get_array('relative_energy')[0]
    assert relative[0] == 0.0
    assert np.isnan(relative[1])
    assert outputs['ranking'].get_array('order').tolist() == [0, 1]
    assert outputs['summary']['n_unoptimized'] == 1
    assert outputs['summary']['unoptimized'] == {'1': 'NOT_CONVERGED'}
    # Its energy is kept: it is that of the geometry where the optimization ended.
    assert np.isfinite(outputs['results']['emt'].energies).all()
    jobs = [item for item in node.called_descendants if isinstance(item, orm.CalcJobNode)]
    assert {job.process_label for job in jobs} == {'GeometryOptimizationCalculation', 'SinglePointCalculation'}


def test_what_did_not_converge_goes_on_when_the_screening_is_started_again(half_optimized, python_code, emt_model):
    """The slice is not taken for finished: its second structure goes on from where it ended, the first is kept."""
    _, first = half_optimized
    inputs = {name: first.inputs[name] for name in ('structures', 'max_iterations')}
    inputs['optimization'] = {'parameters': first.inputs.optimization.parameters}
    _, again = run_get_node(ScreeningWorkChain, models={'emt': emt_model}, code=python_code, **inputs)
    before, after = (optimization_of(node) for node in (first, again))
    assert after.inputs.parent_folder.pk == before.outputs.remote_folder.pk
    assert before.outputs.results.get_array('steps').tolist() == [0, 1]
    assert after.outputs.results.get_array('steps').tolist() == [0, 2]
    assert 'went on with the results of 1 structures of an earlier run' in after.outputs.output_parameters['notes']


def optimization_of(node):
    """Return the only optimization of a screening."""
    label = 'GeometryOptimizationCalculation'
    return next(item for item in node.called_descendants if item.process_label == label)


def test_slices_whose_geometries_are_damaged_do_not_pass_for_optimized(python_code, emt_model, monkeypatch):
    """The second slice has results and no structures: it is run again, and what comes out is called no minimum."""
    structures = StructureSetData.from_ase([bulk('Cu') * (n, 1, 1) for n in (1, 2)]).store()
    good = GeometryOptimizationParser.more_outputs

    def damaged(self, results):
        if self.node.inputs.selection['start'] == 1:
            raise ResultsError('positions.npy is truncated')
        yield from good(self, results)

    inputs = {'structures': structures, 'models': {'emt': emt_model}, 'optimization': {'parameters': {}}}
    inputs.update(code=python_code, max_iterations=1, slice_size=1, parameters={'properties': ['energy']})
    monkeypatch.setattr(GeometryOptimizationParser, 'more_outputs', damaged)
    outputs, node = run_get_node(ScreeningWorkChain, **inputs)
    assert node.exit_status == 810
    assert outputs['summary']['unoptimized'] == {'1': 'PENDING'}
    assert np.isfinite(outputs['ranking'].get_array('relative_energy')[0]).tolist() == [True, False]
    # Nor when the same screening is started again: it goes on with that slice, and now all is well.
    monkeypatch.undo()
    outputs, again = run_get_node(ScreeningWorkChain, **inputs)
    assert again.is_finished_ok, again.exit_message
    assert outputs['summary']['n_unoptimized'] == 0
