"""What breaks in the middle of a screening: some slices are done, others under way, others not begun."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.daemon, pytest.mark.slow, pytest.mark.timeout(600)]


def _finish(site, screening, nothing_lost, computed_again=0):
    """Let the screening go on to its end and compare its results."""
    site.gate.open()
    site.finish(screening, seconds=300)
    assert screening.is_finished_ok, screening.exit_message
    nothing_lost(screening.outputs.results, computed_again)


@pytest.mark.fault(
    what='The workers of a screening are killed',
    injected='SIGKILL to both workers that run, in the middle of the screening',
    then='The base workflows start the jobs again, which compute what is missing',
)
def test_kill_of_the_workers(site, nothing_lost):
    screening = site.screen_half()
    killed = [worker for job in site.running(screening) for worker in site.workers_of(job)]
    assert len(killed) == 2
    for worker in killed:
        worker.kill()
    _finish(site, screening, nothing_lost, computed_again=2 * 4)
    assert len(site.jobs(screening)) == 6


@pytest.mark.fault(
    what='All workers of the daemon are killed during a screening',
    injected='SIGKILL to both in the middle of the screening',
    then='The daemon starts others, which take up the jobs and workflows',
)
def test_kill_of_the_daemon_workers(site, nothing_lost):
    screening = site.screen_half()
    for process in site.daemon_workers():
        process.kill()
    _finish(site, screening, nothing_lost)
    assert len(site.jobs(screening)) == 4


@pytest.mark.fault(
    what='The broker is killed during a screening',
    injected='SIGKILL to the ZeroMQ broker in the middle of the screening',
    then='Jobs that run end by themselves, the next slices wait until `verdi daemon stop`, `verdi process repair`, '
    '`verdi daemon start`; then the screening goes on',
)
def test_kill_of_the_broker(site, nothing_lost):
    screening = site.screen_half(slice_size=8)
    running = site.running(screening)
    assert len(site.jobs(screening)) < 8
    site.kill_broker()
    site.gate.open()
    for job in running:
        site.finish(job)
    site.repair()
    _finish(site, screening, nothing_lost)
    assert len(site.jobs(screening)) == 8


@pytest.mark.fault(
    what='A screening is killed',
    injected='`verdi process kill` in the middle of the screening; then the same screening is submitted again',
    then='Slices that were done are taken from the database, those under way go on from their work directories',
)
def test_a_killed_screening_is_submitted_again(site, nothing_lost):
    killed = site.screen_half(slice_size=12)  # as no other test has it, whose slices would be taken up as well
    done = len(site.slices(killed))
    site.kill(killed)
    site.gate.open()
    again = site.screen(slice_size=12, reuse=True)
    _finish(site, again, nothing_lost, computed_again=2 * 4)
    assert len(site.jobs(again)) == 5 - done


@pytest.mark.fault(
    what='The same screening is submitted twice',
    injected='The second is submitted while the first is at its half',
    then='Both run to their end; the second takes from the first what is done, and computes the rest once more',
)
def test_a_screening_submitted_twice(site, nothing_lost):
    first = site.screen_half(slice_size=10)
    n_done = sum(len(job.outputs.results) for job in site.slices(first))
    assert n_done >= 20
    second = site.screen(slice_size=10, reuse=True)
    site.gate.open()
    for screening in (first, second):
        site.finish(screening, seconds=300)
        assert screening.is_finished_ok, screening.exit_message
        nothing_lost(screening.outputs.results, computed_again=40)
    assert len(site.jobs(second)) <= 6 - n_done // 10
