"""The calculations below a process, at any depth, with what the database knows of each."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.common.links import LinkType

from aiida_mlpotential.data.selection import Selection
from aiida_mlpotential.queries.tree import called_jobs

SINGLE_POINT = 'aiida.calculations:mlpotential.single_point'


@pytest.mark.slow
def test_real_job_is_its_own_tree(run, copper, emt_model):
    node = run(structures=copper, selection={'start': 1, 'stop': 5})
    (job,) = called_jobs(node.pk)
    assert (job.pk, job.task, job.model) == (node.pk, 'single_point', 'EMT')
    assert job.origin == (emt_model.pk, copper.pk, Selection(1, 5))
    assert (job.size, job.done, job.failed) == (4, 4, 0)
    assert (job.state, job.caller_ended, job.paused) == ('finished', True, False)


def test_jobs_at_any_depth_are_found(aiida_profile_clean, make_process, copper, emt_model):
    """Beside calculations of other plugins, and functions."""
    screening = make_process()
    lanes = [make_process(caller=screening) for _ in range(2)]
    chains = [make_process(caller=lane) for lane in lanes]
    inputs = {'model': emt_model, 'structures': copper}
    below = [make_process(orm.CalcJobNode, chain, process_type=SINGLE_POINT, inputs=inputs) for chain in chains]
    make_process(orm.CalcJobNode, screening, process_type='aiida.calculations:core.arithmetic.add')
    make_process(orm.CalcFunctionNode, screening, 'finished')
    own = make_process(orm.CalcJobNode, screening, process_type=SINGLE_POINT, inputs=inputs)
    assert {job.pk for job in called_jobs(screening.pk)} == {own.pk, *(node.pk for node in below)}
    assert [job.pk for job in called_jobs(lanes[1].pk)] == [below[1].pk]
    assert called_jobs(make_process().pk) == []


@pytest.mark.parametrize(('state', 'ended'), [('waiting', False), ('finished', True), ('killed', True)])
def test_what_the_caller_may_still_do(aiida_profile_clean, make_process, state, ended):
    chain = make_process(state=state)
    make_process(orm.CalcJobNode, chain, 'finished', process_type=SINGLE_POINT)
    (job,) = called_jobs(chain.pk)
    assert job.caller_ended is ended


def test_job_of_one_structure_that_has_just_begun(aiida_profile_clean, make_process, copper, emt_model):
    """Size one, nothing done; what AiiDA and the scheduler say of it."""
    structure = copper.get_structure(0).store()
    inputs = {'model': emt_model, 'structure': structure}
    node = make_process(
        orm.CalcJobNode,
        process_type=SINGLE_POINT,
        inputs=inputs,
        state='waiting',
        scheduler_state='queued',
        paused=True,
    )
    node.base.attributes.set('state', 'withscheduler')
    (job,) = called_jobs(node.pk)
    assert (job.size, job.done, job.failed, job.paused) == (1, 0, 0, True)
    assert (job.job_state, job.scheduler_state) == ('withscheduler', 'queued')
    assert job.origin == (emt_model.pk, structure.pk, None)


@pytest.mark.slow
def test_results_that_are_not_complete(run, copper, make_process):
    """What a job did before its time was over counts as done, what it did not reach does not."""
    whole = run(structures=copper)
    node = make_process(orm.CalcJobNode, state='finished', process_type=SINGLE_POINT, inputs={'structures': copper})
    results = whole.outputs.results.clone()
    results.base.attributes.set_many({'n_ok': 3, 'n_failed': 1, 'n_pending': 2})
    results.base.links.add_incoming(node, LinkType.CREATE, 'results')
    results.store()
    (job,) = called_jobs(node.pk)
    assert (job.size, job.done, job.failed) == (6, 4, 1)
