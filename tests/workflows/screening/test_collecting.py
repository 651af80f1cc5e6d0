"""What there is of each slice after its lanes have ended, in whatever way."""

from __future__ import annotations

import pytest
from aiida import orm

from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.workflows.screening.collecting import Outcome, collect, outcome_of

OK, PENDING, CLOSE = FrameStatus.OK, FrameStatus.PENDING, FrameStatus.ATOMS_TOO_CLOSE


@pytest.fixture
def make_chain(make_process):
    """Return a function that stores the base workflow of a slice."""

    def function(name, caller=None):
        return make_process(orm.WorkChainNode, caller, label=name)

    return function


@pytest.fixture
def make_lane(make_process):
    """Return a function that stores a lane."""
    return lambda: make_process(orm.WorkChainNode, kind='ScreeningLaneWorkChain')


def test_a_job_with_all_results_is_complete(make_job, make_results, copper):
    results, optimized = make_results(copper), StructureSetData.from_frames(copper.get_frames())
    job = make_job(results=results, structures=optimized)
    assert outcome_of(job) == Outcome(results.pk, optimized.pk, job.outputs.remote_folder.pk, is_complete=True)


def test_bad_structures_have_their_outcome_and_those_not_reached_do_not(make_job, make_results, copper):
    bad = make_job(results=make_results(copper, status=[OK, CLOSE, OK, OK, OK, OK]))
    late = make_job(results=make_results(copper, status=[OK, CLOSE, OK, OK, OK, PENDING]))
    assert outcome_of(bad).is_complete
    assert not outcome_of(late).is_complete
    assert outcome_of(late).results == late.outputs.results.pk


def test_an_optimization_without_structures_is_not_complete(make_job, make_results, copper):
    """Files with the geometries were damaged on their way: the results alone are not what was asked for."""
    task, optimized = 'geometry_optimization', StructureSetData.from_frames(copper.get_frames())
    assert not outcome_of(make_job(results=make_results(copper), task=task)).is_complete
    assert outcome_of(make_job(results=make_results(copper), structures=optimized, task=task)).is_complete


def test_a_killed_job_leaves_its_directory_at_most(make_job):
    job = make_job()
    assert outcome_of(job) == Outcome(parent=job.outputs.remote_folder.pk)
    assert outcome_of(make_job(folder=False)) == Outcome()


def test_slices_are_found_in_lanes_and_on_their_own(make_lane, make_chain, make_job, make_results, copper):
    lane = make_lane()
    jobs = {}
    for name, caller in (('emt__000000000', lane), ('emt__000000003', lane), ('emt__000000006', None)):
        chain = make_chain(name, caller)
        jobs[name] = make_job(chain, make_results(copper))
    found = collect([lane, chain])
    assert {name: outcome.results for name, outcome in found.items()} == {
        name: job.outputs.results.pk for name, job in jobs.items()
    }


def test_the_last_job_with_results_counts(make_chain, make_job, make_results, copper):
    """A later job that was killed before it had any takes nothing away."""
    chain = make_chain('emt__000000000')
    make_job(chain, make_results(copper, status=[OK] * 5 + [PENDING]))
    second = make_job(chain, make_results(copper))
    make_job(chain)
    assert collect([chain]) == {'emt__000000000': outcome_of(second)}


def test_results_of_any_job_are_better_than_a_directory_of_the_first(make_chain, make_job, make_results, copper):
    chain = make_chain('emt__000000000')
    first = make_job(chain)
    assert collect([chain]) == {'emt__000000000': Outcome(parent=first.outputs.remote_folder.pk)}
    second = make_job(chain, make_results(copper))
    assert collect([chain])['emt__000000000'].results == second.outputs.results.pk


def test_the_copy_of_the_model_is_no_directory_to_go_on_from(make_chain, make_job):
    chain = make_chain('emt__000000000')
    make_job(chain, inputs={})
    assert collect([chain]) == {}


def test_a_slice_without_anything_is_not_there(make_lane, make_chain, make_job):
    lane = make_lane()
    make_chain('emt__000000000', lane)
    make_job(make_chain('emt__000000003', lane), folder=False)
    assert collect([lane]) == {}
