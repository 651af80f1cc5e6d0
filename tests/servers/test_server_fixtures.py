"""The fixtures themselves: when they skip, what they say when a server does not start, and that they clean up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import real_servers
from real_servers import HERE, PROGRAMS, Cluster, Service, free_ports, reason_against, require
from waiting import wait_for


def test_only_root_starts_servers(monkeypatch):
    monkeypatch.setattr(os, 'geteuid', lambda: 1000)
    assert reason_against('cluster') == 'real servers are started by root only'


def test_containers_and_drawings_need_no_root(monkeypatch):
    monkeypatch.setattr(os, 'geteuid', lambda: 1000)
    monkeypatch.setitem(PROGRAMS, 'container', ('sh',))
    monkeypatch.setitem(PROGRAMS, 'drawing', ('no-such-program',))
    assert reason_against('container') is None
    assert reason_against('drawing') == 'not installed: no-such-program (tests/services/packages.sh install)'


def test_missing_programs_are_named(monkeypatch):
    monkeypatch.setattr(os, 'geteuid', lambda: 0)
    monkeypatch.setitem(PROGRAMS, 'rabbitmq', ('sh', 'no-such-broker'))
    assert reason_against('rabbitmq') == 'not installed: no-such-broker (tests/services/packages.sh install)'


def test_skipped_with_the_reason_and_an_error_where_servers_must_be(monkeypatch):
    monkeypatch.setattr(real_servers, 'reason_against', lambda kind: f'no {kind}')
    monkeypatch.delenv('MLPOTENTIAL_REQUIRE_SERVERS', raising=False)
    with pytest.raises(pytest.skip.Exception, match='no cluster'):
        require('cluster')
    monkeypatch.setenv('MLPOTENTIAL_REQUIRE_SERVERS', '1')
    with pytest.raises(pytest.fail.Exception, match='no cluster'):
        require('cluster')


def test_free_ports_are_free():
    first = free_ports(5)
    for port in range(first, first + 5):
        with socket.socket() as server:
            server.bind(('127.0.0.1', port))


def test_waiting_ends():
    with pytest.raises(AssertionError, match='it rains'):
        wait_for(lambda: False, 0.3, 'it rains')
    assert wait_for(lambda: 'value') == 'value'


def test_a_script_that_fails_says_why(tmp_path):
    service = Service('cluster.sh', tmp_path, 15000, {'CLUSTER_DIR': str(tmp_path), 'CLUSTER_PORT': '15000'})
    with pytest.raises(RuntimeError, match=r'cluster\.sh no-such-thing ended with 2: A cluster on this machine'):
        service.call('no-such-thing')


def test_the_packages_are_listed():
    names = subprocess.run([str(HERE / 'packages.sh'), 'list'], capture_output=True, text=True, check=True).stdout
    assert {'slurmctld', 'slurmd', 'slurmdbd', 'openssh-server', 'rabbitmq-server', 'postgresql'} <= set(names.split())


@pytest.fixture
def short_path():
    """Return a directory in whose path sockets can lie, which those of pytest are too deep for."""
    with tempfile.TemporaryDirectory(prefix='mlpotential-') as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.servers
@pytest.mark.slow
def test_a_cluster_leaves_nothing_behind(short_path):
    """What was started in its namespace ends, a running job included; a second `up` is harmless."""
    require('cluster')
    port = free_ports(5)
    cluster = Cluster('cluster.sh', short_path, port, {'CLUSTER_DIR': str(short_path), 'CLUSTER_PORT': str(port)})
    cluster.call('up')
    try:
        cluster.call('up')
        namespace = _namespace((short_path / 'namespace.pid').read_text().strip())
        job = cluster.shell(f'cd {cluster.scratch} && sbatch --parsable --wrap "sleep 600"')
        wait_for(lambda: cluster.node_of(job.strip()), 30, 'the job runs')
        assert len(_inside(namespace)) > 5
    finally:
        cluster.call('down')
    wait_for(lambda: not _inside(namespace), 10, 'all processes have ended')
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that were closed a moment ago linger
        server.bind(('127.0.0.1', port))
    cluster.call('down')


@pytest.mark.servers
def test_a_path_too_long_for_sockets_is_refused(tmp_path):
    """SLURM itself says nothing: jobs wait for ever."""
    require('cluster')
    directory = tmp_path / ('x' * 60)
    variables = {'CLUSTER_DIR': str(directory), 'CLUSTER_PORT': '20000'}
    script = subprocess.run(
        [str(HERE / 'slurm.sh'), 'up'], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert script.returncode == 2
    assert 'its path is too long' in script.stderr
    assert not directory.exists()


@pytest.mark.servers
@pytest.mark.slow
def test_a_profile_to_work_with_by_hand(cluster):
    """The daemon runs, AiiDA reaches the login host and its scheduler, and a second `up` changes nothing."""
    service = Service('profile.sh', cluster.directory, cluster.port, {**cluster.variables, 'PYTHON': sys.executable})
    service.call('up', timeout=200)
    try:
        command = f'. {cluster.directory}/activate && verdi -p cluster computer test mlcluster'
        process = subprocess.run(['bash', '-c', command], capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stdout + process.stderr
        assert 'all 6 tests succeeded' in process.stdout.lower()
        assert service.call('up') == ''  # neither profile nor daemon is made again
    finally:
        service.call('down')


def _namespace(pid):
    """Return the number of the mount namespace of a process."""
    return Path(f'/proc/{pid}/ns/mnt').stat().st_ino


def _inside(namespace):
    """Return the processes that live in a mount namespace."""
    found = []
    for process in psutil.process_iter():
        try:
            if _namespace(process.pid) == namespace:
                found.append(process)
        except OSError:
            continue  # it has ended
    return found
