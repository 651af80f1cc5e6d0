"""What breaks among real servers in the middle of a screening: SLURM behind SSH, and RabbitMQ."""

from __future__ import annotations

import os
import signal

import pytest
from waiting import wait_for

pytestmark = [pytest.mark.servers, pytest.mark.daemon, pytest.mark.slow, pytest.mark.timeout(600)]

_NODE_FAILURE = 140


@pytest.mark.fault(
    what='slurmd is killed during a screening',
    injected='SIGKILL to the slurmd of a node on which slices run, on a SLURM cluster behind SSH',
    then='SLURM gives the node up, its jobs end with 140, and the base workflows go on from their work directories on '
    'the other node',
)
def test_kill_of_slurmd(cluster, cluster_site, nothing_lost):
    site = cluster_site
    screening = site.screen_half()
    running = site.running(screening)
    assert len(running) == 2
    node = cluster.node_of(running[0].get_job_id())
    hit = [job for job in running if cluster.node_of(job.get_job_id()) == node]
    os.kill(int(cluster.shell(f'cat {cluster.directory}/slurm/run/slurmd-{node}.pid')), signal.SIGKILL)
    try:
        for job in hit:
            site.finish(job)
            assert job.exit_status == _NODE_FAILURE
        site.gate.open()
        site.finish(screening, seconds=300)
    finally:
        cluster.start_node(node)
    assert screening.is_finished_ok, screening.exit_message
    nothing_lost(screening.outputs.results, computed_again=2 * 4)


@pytest.mark.fault(
    what='RabbitMQ is killed during a screening',
    injected='SIGKILL to the broker in the middle of the screening, with PostgreSQL as database; it is started again',
    then='Jobs that run notice nothing; the workers of the daemon find the new broker by themselves, and go on with '
    'the next slices',
)
def test_kill_of_rabbitmq(rabbitmq, rabbitmq_site, nothing_lost):
    site = rabbitmq_site
    screening = site.screen_half(slice_size=8)
    running = site.running(screening)
    rabbitmq.kill()
    site.gate.open()
    for job in running:
        wait_for(lambda job=job: not site.workers_of(job), what='the workers end')
    rabbitmq.start()
    site.reconnect()
    site.finish(screening, seconds=300)
    assert screening.is_finished_ok, screening.exit_message
    assert len(site.jobs(screening)) == 8
    nothing_lost(screening.outputs.results)
