"""How far a process is: slices by phase, structures done, rate and time left."""

from __future__ import annotations

import dataclasses

import pytest
from aiida import orm
from aiida.common.exceptions import NotExistent
from aiida.common.links import LinkType

from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.queries.progress import PLAN_EXTRA, Phase, Progress, SliceProgress, progress_of

SINGLE_POINT = 'aiida.calculations:mlpotential.single_point'


@pytest.fixture
def slices(aiida_profile_clean, make_process, copper, emt_model, monkeypatch):
    """Return a function that stores a job for a slice of two structures, in a chain, with so many done."""
    monkeypatch.setattr(ResultsData, '_validate', lambda self: True)

    def function(chain, number, state='finished', done=None, failed=0, **attributes):
        selection = orm.Dict({'start': 2 * number, 'stop': 2 * number + 2}).store()
        inputs = {'model': emt_model, 'structures': copper, 'selection': selection}
        job_state = attributes.pop('job_state', None)
        node = make_process(orm.CalcJobNode, chain, state, SINGLE_POINT, inputs, **attributes)
        if job_state:
            node.base.attributes.set('state', job_state)
        if done is not None:
            results = ResultsData()
            counts = {'n_frames': 2, 'n_ok': done - failed, 'n_failed': failed, 'n_pending': 2 - done}
            results.base.attributes.set_many(counts)
            results.base.links.add_incoming(node, LinkType.CREATE, 'results')
            results.store()
        return node

    return function


@pytest.mark.slow
def test_finished_job(run, copper):
    node = run(structures=copper)
    progress = progress_of(node.pk)
    assert (progress.total, progress.done, progress.failed, progress.n_slices) == (6, 6, 0, 1)
    assert progress.is_terminated
    assert progress.is_successful
    assert progress.label == 'SinglePointCalculation'
    assert progress.count(Phase.DONE) == 1
    assert progress.slices == (SliceProgress('single_point', 'EMT', 6, 6, 0, Phase.DONE, (node.pk,)),)
    assert 0 < progress.seconds < 300
    assert progress.rate == pytest.approx(6 / progress.seconds)
    assert progress.seconds_left is None


@pytest.mark.parametrize(
    ('attributes', 'expected'),
    [
        ({'state': 'created'}, Phase.QUEUED),
        ({'job_state': 'uploading'}, Phase.QUEUED),
        ({'job_state': 'withscheduler', 'scheduler_state': 'queued'}, Phase.QUEUED),
        ({'job_state': 'withscheduler', 'scheduler_state': 'running'}, Phase.RUNNING),
        ({'job_state': 'retrieving', 'scheduler_state': 'done'}, Phase.RUNNING),
        ({'job_state': 'parsing'}, Phase.RUNNING),
        ({'job_state': 'withscheduler', 'scheduler_state': 'running', 'paused': True}, Phase.PAUSED),
    ],
)
def test_phase_of_a_slice_that_is_under_way(make_process, slices, attributes, expected):
    chain = make_process()
    slices(chain, 0, **{'state': 'waiting', **attributes})
    (found,) = progress_of(chain.pk).slices
    assert (found.phase, found.size, found.done) == (expected, 2, 0)


@pytest.mark.parametrize(
    ('caller', 'state', 'done', 'expected'),
    [
        ('waiting', 'finished', 2, Phase.DONE),
        ('waiting', 'finished', 1, Phase.QUEUED),
        ('finished', 'finished', 1, Phase.FAILED),
        ('waiting', 'killed', None, Phase.QUEUED),
        ('killed', 'killed', None, Phase.FAILED),
        ('excepted', 'excepted', None, Phase.FAILED),
    ],
)
def test_phase_of_a_slice_whose_job_has_ended(make_process, slices, caller, state, done, expected):
    """One that is not complete waits for another try, as long as there is somebody to try."""
    chain = make_process(state=caller)
    slices(chain, 0, state, done)
    (found,) = progress_of(chain.pk).slices
    assert (found.phase, found.done) == (expected, done or 0)


def test_restarts_are_one_slice(make_process, slices):
    """Of several tries the one that came farthest counts, and the state of the last."""
    screening = make_process()
    first, second = (make_process(caller=screening, state=state) for state in ('finished', 'waiting'))
    jobs = [slices(first, 0, 'finished', 1, 1), slices(first, 0, 'killed'), slices(second, 0, 'waiting')]
    progress = progress_of(screening.pk)
    assert progress.slices == (
        SliceProgress('single_point', 'EMT', 2, 1, 1, Phase.QUEUED, tuple(job.pk for job in jobs)),
    )
    slices(second, 0, 'finished', 2, 1)
    (found,) = progress_of(screening.pk).slices
    assert (found.phase, found.done, found.failed, len(found.jobs)) == (Phase.DONE, 2, 1, 4)


def test_plan_knows_what_has_not_begun(make_process, slices):
    """A slice without a calculation is queued until the process ends; then it never was one."""
    screening = make_process()
    screening.base.extras.set(
        PLAN_EXTRA, {'structures': 20, 'slices': 10, 'reused_structures': 4, 'reused_slices': 2, 'reused_failed': 1}
    )
    chain = make_process(caller=screening)
    slices(chain, 2, done=2)
    slices(chain, 3, 'waiting', job_state='withscheduler', scheduler_state='running')
    progress = progress_of(screening.pk)
    assert (progress.total, progress.done, progress.failed, progress.n_slices) == (20, 6, 1, 10)
    counts = {phase: progress.count(phase) for phase in Phase}
    assert counts == {Phase.DONE: 3, Phase.RUNNING: 1, Phase.QUEUED: 6, Phase.PAUSED: 0, Phase.FAILED: 0}
    killed = dataclasses.replace(progress, state='killed')
    assert killed.count(Phase.QUEUED) == 0
    assert killed.is_terminated
    assert not killed.is_successful


def test_rate_and_time_left():
    """What came from the database cost no time and says nothing about the rest."""
    done = SliceProgress('single_point', 'EMT', 100, 100, 0, Phase.DONE, (1,))
    progress = Progress(
        pk=1,
        label='',
        state='waiting',
        exit_status=None,
        exit_message='',
        paused=False,
        slices=(done,),
        plan={'structures': 500, 'reused_structures': 200},
        seconds=50.0,
    )
    assert progress.rate == 2.0
    assert progress.seconds_left == 100.0
    assert dataclasses.replace(progress, slices=()).rate is None
    assert dataclasses.replace(progress, slices=()).seconds_left is None
    assert dataclasses.replace(progress, state='finished').seconds_left is None


def test_process_that_has_just_been_made(aiida_profile_clean, make_process):
    progress = progress_of(make_process(state='created').pk)
    assert (progress.state, progress.total, progress.done, progress.n_slices) == ('created', 0, 0, 0)
    assert not progress.is_terminated


@pytest.mark.parametrize('kind', ['missing', 'data'])
def test_what_is_no_process(aiida_profile_clean, kind):
    pk = 999999 if kind == 'missing' else orm.Int(1).store().pk
    with pytest.raises(NotExistent, match=f'there is no process {pk}'):
        progress_of(pk)
