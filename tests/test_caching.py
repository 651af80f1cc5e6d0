"""Caching: the same inputs are not computed twice; other ones, a new version of the results, and bad luck are."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching
from aiida.plugins import CalculationFactory, ParserFactory
from ase.build import bulk

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.queries import latest_result, results_of_model
from aiida_mlpotential.worker.errors import EXIT_CODES
from aiida_mlpotential.worker.schema import RESULTS_VERSION
from aiida_mlpotential.workflows.tasks import SinglePointBaseWorkChain

TASKS = ('single_point', 'geometry_optimization', 'vibrations', 'thermochemistry')


@pytest.fixture
def copper(aiida_profile_clean):
    """Return four crystals as a stored set."""
    return StructureSetData.from_ase([bulk('Cu', a=a) for a in (3.5, 3.6, 3.7, 3.8)]).store()


@pytest.fixture
def run(copper, python_code, emt_model):
    """Return a function that runs a single point with caching on, and returns its node."""

    def function(**inputs):
        complete = {'code': python_code, 'model': emt_model, 'structures': copper, **inputs}
        with enable_caching(identifier='aiida.calculations:mlpotential.*'):
            return run_get_node(SinglePointCalculation, **complete)[1]

    return function


def _is_cached(node):
    return node.base.caching.is_created_from_cache


@pytest.mark.slow
def test_same_inputs_are_computed_once(run, copper, emt_model):
    """Also where the nodes are others with the same content, and the scheduler is asked for something else."""
    first = run(parameters={'batch_atoms': 7})
    assert not _is_cached(first)
    copy = StructureSetData.from_frames(copper.get_frames()).store()
    again = run(
        structures=copy, parameters=orm.Dict({'batch_atoms': 7}), metadata={'options': {'max_wallclock_seconds': 77}}
    )
    assert again.base.caching.get_cache_source() == first.uuid
    assert again.is_finished_ok
    results, cached = first.outputs.results, again.outputs.results
    assert cached.base.attributes.all == results.base.attributes.all
    for name in results.get_arraynames():
        np.testing.assert_array_equal(cached.get_array(name), results.get_array(name))
    assert len(results_of_model(emt_model)) == 2
    assert latest_result(copper, 1).frame.energy == results.energies[1]


@pytest.mark.slow
def test_other_inputs_are_computed(run, python_code):
    """Another model, other structures, other parameters."""
    run()
    other_model = ModelData.from_ase_calculator(
        'ase.calculators.emt.EMT', {'asap_cutoff': True}, elements=['Cu']
    ).get_or_store()
    other_set = StructureSetData.from_ase([bulk('Cu', a=3.61)])
    for change in ({'model': other_model}, {'structures': other_set}, {'parameters': {'precision': 'double'}}):
        assert not _is_cached(run(**change)), change


@pytest.mark.slow
def test_slices_are_told_apart(run):
    """Each is computed once; the whole set is none of them."""
    first, second, whole = {'start': 0, 'stop': 2}, {'start': 2, 'stop': 4}, {'start': 0, 'stop': 4}
    nodes = [run(selection=part) for part in (first, second, whole)]
    assert [_is_cached(node) for node in (*nodes, run())] == [False] * 4
    again = run(selection=second)
    assert again.base.caching.get_cache_source() == nodes[1].uuid
    assert again.outputs.results.base.attributes.get('selection') == second
    assert again.outputs.results.get_structures().positions.shape == (2, 3)


@pytest.mark.slow
def test_new_version_of_the_results_is_computed(run, monkeypatch):
    """And the results of the earlier version stay what they are for whoever has that version."""
    first = run()
    monkeypatch.setattr(SinglePointCalculation, 'CACHE_VERSION', RESULTS_VERSION + 1)
    newer = run()
    assert not _is_cached(newer)
    assert run().base.caching.get_cache_source() == newer.uuid
    monkeypatch.undo()
    assert run().base.caching.get_cache_source() == first.uuid


@pytest.mark.parametrize('task', TASKS)
def test_every_calculation_and_parser_has_the_version_of_the_results(task):
    assert CalculationFactory(f'mlpotential.{task}').CACHE_VERSION == RESULTS_VERSION
    assert ParserFactory(f'mlpotential.{task}').CACHE_VERSION == RESULTS_VERSION


@pytest.mark.slow
def test_failed_structures_are_tried_again(run):
    """The cause may lie in the structure, or may not: a job is cheaper than a wrong answer for ever."""
    mixed = StructureSetData.from_ase([bulk('Cu'), bulk('Si')]).store()
    first = run(structures=mixed)
    assert first.exit_status == 400
    assert not first.base.caching.is_valid_cache
    assert not _is_cached(run(structures=mixed))


@pytest.mark.parametrize('code', EXIT_CODES, ids=lambda code: code.label)
def test_only_failures_that_lie_in_the_inputs_are_kept(aiida_profile_clean, code):
    """No memory, no disk, a killed worker, a missing library: another time it may work."""
    node = orm.CalcJobNode(process_type='aiida.calculations:mlpotential.single_point')
    node.set_process_state('finished')
    node.set_exit_status(code.status)
    node.store()
    node.seal()
    lies_in_inputs = {'ERROR_JOB_INVALID', 'ERROR_MODEL_UNSUPPORTED', 'ERROR_PROPERTY_UNAVAILABLE'}
    assert node.base.caching.is_valid_cache == (code.label in lies_in_inputs)


@pytest.mark.parametrize(('exit_status', 'valid'), [(0, True), (110, False), (120, False), (140, False)])
def test_verdicts_of_the_scheduler_are_not_kept(aiida_profile_clean, exit_status, valid):
    node = orm.CalcJobNode(process_type='aiida.calculations:mlpotential.single_point')
    node.set_process_state('finished')
    node.set_exit_status(exit_status)
    node.store()
    node.seal()
    assert node.base.caching.is_valid_cache is valid


@pytest.mark.slow
def test_jobs_in_a_restart_workflow_are_taken_from_the_cache(run, copper, python_code, emt_model):
    """Of a job that was run on its own, and of one that another workflow ran."""
    first = run()
    with enable_caching(identifier='aiida.calculations:mlpotential.*'):
        calc = {'code': python_code, 'model': emt_model, 'structures': copper}
        outputs, chain = run_get_node(SinglePointBaseWorkChain, calc=calc)
    assert chain.is_finished_ok, chain.exit_message
    assert [node.base.caching.get_cache_source() for node in chain.called] == [first.uuid]
    np.testing.assert_array_equal(outputs['results'].energies, first.outputs.results.energies)
