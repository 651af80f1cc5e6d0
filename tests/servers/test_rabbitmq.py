"""The same jobs under RabbitMQ and PostgreSQL; all other tests with a daemon have ZeroMQ and SQLite."""

from __future__ import annotations

import psutil
import pytest
from aiida.engine.processes.control import kill_processes
from waiting import wait_for

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def test_jobs_at_once(rabbitmq_profile, submit_copper, assert_energies):
    """Several jobs that were submitted together end well, and the profile has the broker and storage it claims."""
    assert rabbitmq_profile.profile.process_control_backend == 'core.rabbitmq'
    assert rabbitmq_profile.profile.storage_backend == 'core.psql_dos'
    nodes = [submit_copper(rabbitmq_profile.code, 10) for _ in range(4)]
    for node in nodes:
        wait_for(lambda node=node: node.is_terminated, 90)
        assert node.is_finished_ok, node.exit_message
        assert assert_energies(node.outputs.results) == 10


def test_the_daemon_is_restarted_under_a_job(rabbitmq_profile, submit_copper, assert_energies):
    """The job runs on; the new worker of the daemon takes its process over."""
    node = submit_copper(rabbitmq_profile.code, 60, calculator={'seconds': 0.1})
    wait_for(node.get_job_id, 60, 'the job is submitted')
    rabbitmq_profile.daemon.restart_daemon(wait=True)
    wait_for(lambda: node.is_terminated, 90)
    assert node.is_finished_ok, node.exit_message
    assert assert_energies(node.outputs.results) == 60


def test_a_killed_process_ends_its_job(rabbitmq_profile, submit_copper):
    """The order goes through the broker to the daemon, and the worker ends."""
    node = submit_copper(rabbitmq_profile.code, 600, calculator={'seconds': 0.1})
    wait_for(node.get_job_id, 60, 'the job is submitted')
    job = psutil.Process(int(node.get_job_id()))
    kill_processes([node], timeout=30)
    wait_for(lambda: node.is_terminated, 60)
    assert node.is_killed
    wait_for(lambda: not job.is_running() or job.status() == psutil.STATUS_ZOMBIE, 20, 'the job ends')
