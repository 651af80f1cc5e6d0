"""A lane computes its slices in turn, and goes on when one of them fails."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import run_get_node

from aiida_mlpotential.workflows.screening.lane import ScreeningLaneWorkChain, workflow_of
from aiida_mlpotential.workflows.screening.slices import Slice
from aiida_mlpotential.workflows.tasks import GeometryOptimizationBaseWorkChain, SinglePointBaseWorkChain


@pytest.fixture
def shared(copper, emt_model, python_code):
    return {
        'structures': copper,
        'models': {'emt': emt_model},
        'codes': {'emt': python_code},
        'task': 'single_point',
        'options': {'max_wallclock_seconds': 600},
        'allow_cpu': False,
    }


def test_a_slice_is_a_part_of_the_same_node(shared, copper, emt_model, python_code):
    workflow, inputs = workflow_of(Slice('emt', 3, 6), shared)
    assert workflow is SinglePointBaseWorkChain
    calc = inputs['calc']
    assert (calc['structures'], calc['model'], calc['code']) == (copper, emt_model, python_code)
    assert calc['selection'].get_dict() == {'start': 3, 'stop': 6}
    assert calc['metadata'] == {'label': 'emt__000000003', 'options': {'max_wallclock_seconds': 600}}
    assert inputs['metadata'] == {'label': 'emt__000000003', 'call_link_label': 'slice_emt__000000003'}
    assert inputs['allow_cpu'] is False
    assert not {'parameters', 'parent_folder'} & set(calc)
    assert not {'max_iterations', 'stage_model'} & set(inputs)


def test_what_was_asked_for_goes_along(shared, localhost):
    folder = orm.RemoteData(remote_path='/nowhere', computer=localhost).store()
    parameters, runs = orm.Dict({'max_steps': 5}), orm.Int(2)
    more = {'task': 'geometry_optimization', 'parameters': parameters, 'max_iterations': runs, 'stage_model': False}
    workflow, inputs = workflow_of(Slice('emt', 0, 3, parent=folder.pk), {**shared, **more})
    assert workflow is GeometryOptimizationBaseWorkChain
    assert inputs['calc']['parent_folder'].pk == folder.pk
    assert inputs['calc']['parameters'] is parameters
    assert (inputs['max_iterations'], inputs['stage_model']) == (runs, False)


def test_options_are_no_longer_those_of_the_caller(shared):
    """Each job gets its own: what AiiDA fills into one is not in the next."""
    _, inputs = workflow_of(Slice('emt', 0, 3), shared)
    inputs['calc']['metadata']['options']['queue_name'] = 'fast'
    assert shared['options'] == {'max_wallclock_seconds': 600}


@pytest.mark.slow
def test_one_after_the_other_and_past_one_that_fails(shared, monkeypatch):
    begin, order = SinglePointBaseWorkChain.setup_handlers, []

    def lose_first(self):
        begin(self)
        order.append(self.ctx.inputs.selection['start'])
        if order[-1] == 0:
            raise RuntimeError('lost')

    monkeypatch.setattr(SinglePointBaseWorkChain, 'setup_handlers', lose_first)
    slices = orm.List([Slice('emt', start, start + 3).to_dict() for start in (0, 3)])
    outputs, node = run_get_node(ScreeningLaneWorkChain, slices=slices, **shared)
    assert node.is_finished_ok
    assert order == [0, 3]
    assert list(outputs['results']) == ['emt__000000003']
    assert outputs['results']['emt__000000003'].n_ok == 3
    links = node.base.links.get_outgoing(link_type=LinkType.CALL_WORK).all_link_labels()
    assert sorted(links) == ['slice_emt__000000000', 'slice_emt__000000003']
    reports = [record.message for record in orm.Log.collection.get_logs_for(node)]
    assert any('emt__000000000: SinglePointBaseWorkChain' in text for text in reports)


def test_a_lane_without_slices_has_nothing_to_do(shared):
    outputs, node = run_get_node(ScreeningLaneWorkChain, slices=orm.List([]), **shared)
    assert node.is_finished_ok
    assert not outputs.get('results')
    assert node.called == []
