"""The screening as a whole, with real jobs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.workflows.screening.chain import ScreeningWorkChain
from aiida_mlpotential.workflows.tasks import SinglePointBaseWorkChain

pytestmark = pytest.mark.slow


def make_structures(number=10, bad=(), seed=3):
    random = np.random.default_rng(seed)
    found = []
    for index in range(number):
        atoms = bulk('Si' if index in bad else 'Cu') * (1 + index % 2, 1, 1)
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        found.append(atoms)
    return StructureSetData.from_ase(found, labels=[f's{index}' for index in range(number)]).store()


@pytest.fixture
def screen(python_code, emt_model):
    def function(**inputs):
        values = {'code': python_code, 'models': {'emt': emt_model}, 'slice_size': 4, 'max_concurrent': 2, **inputs}
        return run_get_node(ScreeningWorkChain, **values)

    return function


def test_slices_together_are_what_one_job_gives(screen, python_code, emt_model):
    structures = make_structures()
    outputs, node = screen(structures=structures)
    assert node.is_finished_ok, node.exit_message
    results = outputs['results']['emt']
    _, single = run_get_node(SinglePointCalculation, code=python_code, model=emt_model, structures=structures)
    for name in single.outputs.results.get_arraynames():
        np.testing.assert_array_equal(results.get_array(name), single.outputs.results.get_array(name), err_msg=name)
    assert outputs['summary']['slices']['slices'] == 3
    jobs = [item for item in node.called_descendants if isinstance(item, orm.CalcJobNode)]
    assert sorted(job.inputs.selection['start'] for job in jobs) == [0, 3, 6]
    assert {job.inputs.structures.pk for job in jobs} == {structures.pk}
    assert results.to_dataframe()['label'].tolist() == [f's{index}' for index in range(10)]


def jobs_of(node):
    return [item for item in node.called_descendants if isinstance(item, orm.CalcJobNode)]


def test_a_bad_structure_costs_no_other(screen):
    structures = make_structures(bad=(4,))
    outputs, node = screen(structures=structures)
    assert node.exit_status == 700
    assert '1 of 10 with emt (1 UNSUPPORTED_ELEMENT)' in node.exit_message
    results = outputs['results']['emt']
    assert (results.n_ok, results.n_failed, results.n_pending) == (9, 1, 0)
    assert list(results.messages) == [4]
    assert outputs['ranking'].get_array('order')[-1] == 4
    # Such a slice is as good as it gets: it is not run again.
    assert len(jobs_of(node)) == 3


def test_what_is_done_is_not_computed_again(screen):
    structures = make_structures()
    first, _ = screen(structures=structures)
    again, second = screen(structures=structures)
    assert second.is_finished_ok
    assert jobs_of(second) == []
    assert again['results']['emt'].energies.tobytes() == first['results']['emt'].energies.tobytes()
    assert again['summary']['slices']['reused_slices'] == 3
    _, third = screen(structures=structures, reuse=False)
    assert len(jobs_of(third)) == 3
    _, fourth = screen(structures=structures, parameters={'properties': ['energy']})
    assert len(jobs_of(fourth)) == 3


def test_structures_are_optimized_first(screen):
    structures = make_structures(6)
    outputs, node = screen(structures=structures, optimization={'parameters': {'force_tolerance': 1e-3}})
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['emt'].base.attributes.get('force_max') < 1.1e-3
    optimized = outputs['output_structures']
    assert optimized.labels == structures.labels
    assert outputs['results']['emt'].get_structures_node().pk == optimized.pk
    assert {job.process_label for job in jobs_of(node)} == {'GeometryOptimizationCalculation', 'SinglePointCalculation'}
    again, second = screen(structures=structures, optimization={'parameters': {'force_tolerance': 1e-3}})
    assert second.is_finished_ok
    assert again['summary']['slices']['reused_slices'] >= 2


def test_several_models_and_the_most_uncertain_structures(python_code, run_screening_models):
    structures, models = run_screening_models
    outputs, node = run_get_node(
        ScreeningWorkChain,
        structures=structures,
        models=models,
        code=python_code,
        slice_size=5,
        max_concurrent=1,
        max_qbc=0.01,
        n_selected=3,
    )
    assert node.is_finished_ok, node.exit_message
    assert set(outputs['results']) == {'first', 'second'}
    ranking = outputs['ranking']
    assert ranking.base.attributes.get('models') == ['first', 'second']
    assert ranking.get_array('qbc').shape == (2, len(structures))
    assert len(outputs['selected_structures']) == 3


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'models': {}}, 'give at least one'),
        ({'code': None}, 'there is no code for the model'),
        ({'slice_size': 0}, 'slice_size is 0'),
        ({'parameters': {'propertys': ['energy']}}, "did you mean 'properties'"),
        ({'n_selected': 3}, 'no model is an ensemble'),
        ({'max_qbc': 0.1}, 'no model is an ensemble'),
        ({'optimization': {'parameters': {}, 'model': 'other'}}, "there is no model 'other'"),
        (
            {'optimization': {'parameters': {'constraints': [{'kind': 'atoms', 'atoms': [0], 'structures': [1]}]}}},
            'other numbers in a slice',
        ),
    ],
)
def test_bad_input_is_refused_before_submission(screen, changes, text):
    values = {'structures': make_structures(4), **changes}
    with pytest.raises(ValueError, match=text):
        screen(
            **{name: value for name, value in values.items() if value is not None}
            | ({'code': None} if 'code' in changes else {})
        )


def test_nothing_is_selected_where_no_structure_has_a_spread(python_code, run_screening_models):
    """Two atoms on one spot everywhere: all structures fail, and the screening says so and nothing else."""
    structures, models = run_screening_models
    frames = structures.get_frames()
    squeezed = StructureSetData.from_frames(dataclasses.replace(frames, positions=frames.positions * 0.01)).store()
    outputs, node = run_get_node(
        ScreeningWorkChain,
        structures=squeezed,
        models={'first': models['first']},
        code=python_code,
        parameters={'minimum_distance': 0.5},
        n_selected=3,
    )
    assert node.exit_status == 701
    assert 'selected_structures' not in outputs
    assert outputs['results']['first'].n_failed == len(structures)


def test_only_missing_slices_run_again(screen, monkeypatch):
    """The middle slice is lost on its first turn: the second round runs that one and no other."""
    begin, lost = SinglePointBaseWorkChain.setup_handlers, []

    def lose_one(self):
        begin(self)
        if self.ctx.inputs.selection['start'] == 3 and not lost:
            lost.append(self.node.label)
            raise RuntimeError('lost')

    monkeypatch.setattr(SinglePointBaseWorkChain, 'setup_handlers', lose_one)
    outputs, node = screen(structures=make_structures(seed=11), max_concurrent=3)
    assert lost
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['emt'].n_ok == 10
    assert sorted(job.inputs.selection['start'] for job in jobs_of(node)) == [0, 3, 6]
    assert outputs['summary']['slices']['missing_slices'] == []


def test_what_stays_missing_is_said_and_the_rest_is_kept(screen, monkeypatch):
    begin = SinglePointBaseWorkChain.setup_handlers

    def lose_always(self):
        begin(self)
        if self.ctx.inputs.selection['start'] == 3:
            raise RuntimeError('lost')

    monkeypatch.setattr(SinglePointBaseWorkChain, 'setup_handlers', lose_always)
    structures = make_structures(seed=12)
    outputs, node = screen(structures=structures, max_concurrent=3)
    assert node.exit_status == 810
    assert 'emt__000000003' in node.exit_message
    results = outputs['results']['emt']
    assert (results.n_ok, results.n_pending) == (7, 3)
    assert np.flatnonzero(results.status == FrameStatus.PENDING).tolist() == [3, 4, 5]
    assert np.flatnonzero(np.isnan(results.energies)).tolist() == [3, 4, 5]
    monkeypatch.undo()
    again, second = screen(structures=structures, max_concurrent=3)
    assert second.is_finished_ok
    assert again['results']['emt'].n_ok == 10
    assert [job.inputs.selection['start'] for job in jobs_of(second)] == [3]


def test_a_model_is_staged_once_for_all_lanes(python_code, run_screening_models):
    structures, models = run_screening_models
    _, node = run_get_node(
        ScreeningWorkChain,
        structures=structures,
        models={'first': models['first']},
        code=python_code,
        slice_size=4,
        max_concurrent=2,
        stage_model=True,
        reuse=False,
    )
    assert node.is_finished_ok, node.exit_message
    labels = [job.process_label for job in jobs_of(node)]
    assert sorted(labels) == ['SinglePointCalculation', 'SinglePointCalculation', 'StageModelCalculation']


def test_what_an_earlier_job_did_is_kept_when_the_new_ones_get_nothing_done(screen, monkeypatch):
    structures = make_structures()
    screen(structures=structures)
    found = ScreeningWorkChain._known

    def unfinished(self, label):
        return {key: dataclasses.replace(item, is_complete=False) for key, item in found(self, label).items()}

    monkeypatch.setattr(ScreeningWorkChain, '_known', unfinished)
    monkeypatch.setattr('aiida_mlpotential.workflows.screening.chain.collect', lambda lanes: {})
    outputs, node = screen(structures=structures)
    assert node.exit_status == ScreeningWorkChain.exit_codes.ERROR_SLICES_MISSING.status
    assert outputs['results']['emt'].n_ok == len(structures)
