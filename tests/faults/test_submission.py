"""A daemon that dies at every moment of a job, and a job that is submitted twice."""

from __future__ import annotations

import time

import pytest
from waiting import wait_for

pytestmark = [pytest.mark.daemon, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.fault(
    what='A worker of the daemon is killed while it sends, fetches or parses files',
    injected='SIGKILL after the first file that is sent, after the first that is fetched, and before the parser, all '
    'in the life of one job',
    then='The daemon starts another, which does that step again',
)
def test_kills_at_every_step(site, faulty_code, nothing_lost):
    moments = ('upload', 'retrieval', 'parsing')
    for moment in moments:
        site.arm(moment)
    node = site.finish(site.submit(code=faulty_code))
    assert not [moment for moment in moments if site.armed(moment)]
    assert node.is_finished_ok, node.exit_message
    nothing_lost(node.outputs.results)


@pytest.mark.fault(
    what='A job is submitted twice',
    injected='SIGKILL to the worker of the daemon after the job was submitted and before AiiDA has noted its number',
    then='The daemon submits the job once more, and both run in the same work directory: the second waits for the '
    'first, and takes its results over',
)
def test_a_job_submitted_twice(site, faulty_code, nothing_lost):
    site.arm('submission')
    node = site.submit_half(code=faulty_code)
    wait_for(lambda: not site.armed('submission') and node.get_job_id(), what='the job is submitted again')
    wait_for(lambda: len(site.workers_of(node)) == 2, what='both jobs run')
    time.sleep(3)  # in which the second would compute, if it did not wait
    site.gate.open()
    site.finish(node)
    assert node.is_finished_ok, node.exit_message
    nothing_lost(node.outputs.results)


@pytest.mark.fault(
    what='The AiiDA host is switched off',
    injected='SIGKILL to the whole daemon, its workers and the broker, with one job running and another under way to '
    'the scheduler',
    then='`verdi daemon start`: both jobs go on',
)
def test_the_host_is_switched_off(site, nothing_lost):
    first = site.submit_half()
    second = site.submit()
    site.kill_daemon()
    site.gate.open()
    site.start_daemon()
    for node in (first, second):
        site.finish(node)
        assert node.is_finished_ok, node.exit_message
    nothing_lost(first.outputs.results, beside=len(second.outputs.results))
    nothing_lost(second.outputs.results, beside=len(first.outputs.results))
