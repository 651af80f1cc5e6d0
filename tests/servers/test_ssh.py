"""SSH for real: a computer whose files the AiiDA host cannot see, and a connection that breaks."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiida.cmdline.commands.cmd_verdi import verdi
from aiida.engine.processes.control import play_processes
from aiida.manage.configuration import get_config
from click.testing import CliRunner
from waiting import wait_for

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def _running(cluster, node):
    """Wait until a job runs on the cluster, some structures are done, and AiiDA has seen it."""

    def done():
        directory = node.get_remote_workdir()
        return directory and node.get_job_id() and 'arrays' in cluster.shell(f'ls {directory} 2>/dev/null || true')

    wait_for(done, 60, 'the job runs')


def test_neither_side_sees_the_files_of_the_other(cluster, cluster_profile, submit_copper, assert_energies, tmp_path):
    """The work directory exists there only, AiiDA's files here only; outputs are read through the transport."""
    node = submit_copper(cluster_profile.code, 20)
    wait_for(lambda: node.is_terminated, 90)
    assert node.is_finished_ok, node.exit_message
    assert assert_energies(node.outputs.results) == 20

    directory = node.get_remote_workdir()
    assert Path(directory).is_relative_to(cluster.scratch)
    assert not list(cluster.scratch.iterdir())
    assert 'results.json' in cluster.shell(f'ls {directory}').split()
    assert cluster.shell(f'ls -A {get_config().dirpath}').split() == []

    remote = node.outputs.remote_folder
    remote.getfile('job.json', str(tmp_path / 'job.json'))
    assert '"single_point"' in (tmp_path / 'job.json').read_text()
    command = ['-p', cluster_profile.profile.name, 'calcjob', 'cleanworkdir', '--force', str(node.pk)]
    result = CliRunner().invoke(verdi, command)
    assert result.exit_code == 0, result.output
    assert 'results.json' not in cluster.shell(f'ls {directory} 2>/dev/null || true').split()


def test_a_short_interruption_is_bridged(cluster, cluster_profile, submit_copper, assert_energies):
    """The daemon tries again by itself."""
    node = submit_copper(cluster_profile.code, 40, calculator={'seconds': 0.1})
    _running(cluster, node)
    cluster.stop_ssh()
    cluster.start_ssh()
    wait_for(lambda: node.is_terminated, 90)
    assert node.is_finished_ok, (node.exit_message, node.process_status)
    assert assert_energies(node.outputs.results) == 40


def test_a_lost_connection_pauses_the_job_and_loses_nothing(cluster, cluster_profile, submit_copper, assert_energies):
    """After the last attempt the process is paused; meanwhile the job ends on the cluster; `play` fetches all of it."""
    node = submit_copper(cluster_profile.code, 40, calculator={'seconds': 0.1})
    _running(cluster, node)
    cluster.stop_ssh()
    try:
        wait_for(lambda: node.paused, 90, 'the process is paused')
        assert not node.is_terminated
        assert 'failed' in node.process_status
    finally:
        cluster.start_ssh()
    wait_for(lambda: cluster.sacct(node.get_job_id(), 'State') == ['COMPLETED'], 60, 'the job ends on the cluster')
    play_processes([node], timeout=20)
    wait_for(lambda: node.is_terminated, 90)
    assert node.is_finished_ok, (node.exit_message, node.process_status)
    assert assert_energies(node.outputs.results) == 40
    directories = cluster.run('sacct', '-X', '-n', '-P', '-o', 'WorkDir').splitlines()
    assert directories.count(node.get_remote_workdir()) == 1  # submitted once
