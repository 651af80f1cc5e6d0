"""Fixtures of real servers (``real_servers.py``), and of AiiDA profiles with a daemon that use them.

A pytest plugin, loaded by ``tests/conftest.py``; the fixtures are described in ``tests/servers/conftest.py``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from real_servers import Cluster, RabbitMQ, Service, free_ports, require

#: Quick polling, patience with the daemon on a busy machine, and errors of transport that are tried again after 2 and 4
#: seconds and then pause the process.
OPTIONS = {
    'daemon.timeout': 30,
    'runner.poll.interval': 1,
    'transport.task_retry_initial_interval': 2,
    'transport.task_maximum_attempts': 3,
}

# AiiDA looks for verdi, with which it starts daemons, in PATH, when it is imported.
if shutil.which('verdi') is None:
    os.environ['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', os.defpath)])


@dataclass(frozen=True)
class ServerProfile:
    """What a test needs of a profile whose daemon is running.

    :param profile: the loaded profile
    :param computer: computer on which jobs run
    :param code: the running Python there, as a code; the worker comes with each job
    :param daemon: client of the daemon
    """

    profile: Any
    computer: Any
    code: Any
    daemon: Any


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables for a while."""
    patch = pytest.MonkeyPatch()
    for name, value in variables.items():
        patch.setenv(name, value)
    try:
        yield
    finally:
        patch.undo()


def make_code(computer: Any) -> Any:
    """Return the running Python as a stored code of a computer."""
    from aiida import orm

    return orm.InstalledCode(
        label='python',
        computer=computer,
        filepath_executable=sys.executable,
        default_calc_job_plugin='mlpotential.single_point',
    ).store()


def local_computer(workdir: Path) -> Any:
    """Return this machine as a stored computer without waiting times."""
    from aiida import orm

    computer = orm.Computer(
        label='localhost',
        hostname='localhost',
        transport_type='core.local',
        scheduler_type='core.direct',
        workdir=str(workdir),
    ).store()
    computer.configure(safe_interval=0)
    computer.set_minimum_job_poll_interval(0)
    computer.set_default_mpiprocs_per_machine(1)
    return computer


def cluster_computer(cluster: Cluster) -> Any:
    """Return the cluster as a stored computer without waiting times."""
    from aiida import orm

    computer = orm.Computer(
        label=cluster.name,
        hostname=cluster.name,
        transport_type='core.ssh_async',
        scheduler_type='core.slurm',
        workdir=str(cluster.scratch / 'aiida'),
    )
    computer.set_mpirun_command(['srun', '-n', '{tot_num_mpiprocs}'])
    computer.store()
    computer.configure(host=cluster.name, backend='asyncssh', safe_interval=0, use_login_shell=True)
    computer.set_minimum_job_poll_interval(0)
    computer.set_default_mpiprocs_per_machine(1)
    return computer


@contextlib.contextmanager
def profile_with_daemon(
    context: Any, make_computer: Callable[[], Any], variables: dict[str, str] | None = None
) -> Iterator[ServerProfile]:
    """Load a profile, start its daemon, and stop it at the end.

    :param context: what AiiDA's fixture ``aiida_profile_factory`` returns
    :param make_computer: makes the computer once the profile is loaded
    :param variables: environment of the daemon, and meanwhile of the test
    """
    from aiida.engine.daemon.client import get_daemon_client
    from aiida.manage.configuration import get_config

    with environment(**(variables or {})), context as profile:
        config = get_config()
        for name, value in OPTIONS.items():
            config.set_option(name, value, scope=profile.name)
        config.store()
        computer = make_computer()
        client = get_daemon_client()
        client.start_daemon()
        try:
            yield ServerProfile(profile, computer, make_code(computer), client)
        finally:
            client.stop_daemon(wait=True)


@pytest.fixture(scope='session')
def start_service(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that starts servers for the session: ``start_service(class, script, kind, n_ports, **env)``."""

    def start(cls: type[Service], kind: str, ports: int, prefix: str, **variables: str) -> Any:
        require(kind)
        directory = Path(tempfile.mkdtemp(prefix=f'mlpotential-{kind}-'))
        directory.chmod(0o755)
        port = free_ports(ports)
        variables |= {f'{prefix}_DIR': str(directory), f'{prefix}_PORT': str(port)}
        service = cls(f'{kind}.sh', directory, port, variables)

        def stop() -> None:
            service.call('down')
            shutil.rmtree(directory, ignore_errors=True)

        request.addfinalizer(stop)
        service.call('up')
        return service

    return start


@pytest.fixture(scope='session')
def make_cluster(start_service: Callable[..., Any], aiida_config: Any) -> Callable[..., Cluster]:
    """Return a function that starts another cluster: ``make_cluster(CLUSTER_CPUS='1', ...)``."""

    def make(**variables: str) -> Cluster:
        # The cluster sees neither the configuration nor the repository of the AiiDA host.
        variables.setdefault('CLUSTER_HIDE', str(aiida_config.dirpath))
        return start_service(Cluster, 'cluster', 5, 'CLUSTER', **variables)

    return make


@pytest.fixture(scope='session')
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Return the running two-node SLURM behind SSH."""
    return make_cluster()


@pytest.fixture(scope='session')
def rabbitmq(start_service: Callable[..., Any]) -> RabbitMQ:
    """Return a running RabbitMQ."""
    return start_service(RabbitMQ, 'rabbitmq', 3, 'RABBITMQ')


@pytest.fixture(scope='session')
def postgres(start_service: Callable[..., Any]) -> Service:
    """Return a running PostgreSQL with a user and a database ``aiida`` (password ``aiida``)."""
    return start_service(Service, 'postgres', 1, 'POSTGRES')


@pytest.fixture(scope='module')
def cluster_profile(cluster: Cluster, aiida_config: Any, aiida_profile_factory: Any) -> Iterator[ServerProfile]:
    """Return a profile (SQLite, ZeroMQ) with a running daemon whose computer is the cluster."""
    context = aiida_profile_factory(aiida_config, storage_backend='core.sqlite_dos', broker_backend='core.zeromq')
    with profile_with_daemon(context, lambda: cluster_computer(cluster), {'HOME': str(cluster.home)}) as profile:
        yield profile


@pytest.fixture(scope='module')
def local_profile(
    aiida_config: Any, aiida_profile_factory: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProfile]:
    """Return a profile (SQLite, ZeroMQ) with a running daemon whose computer is this machine."""
    context = aiida_profile_factory(aiida_config, storage_backend='core.sqlite_dos', broker_backend='core.zeromq')
    workdir = tmp_path_factory.mktemp('work')
    with profile_with_daemon(context, lambda: local_computer(workdir)) as profile:
        yield profile


@pytest.fixture(scope='module')
def rabbitmq_context(
    rabbitmq: RabbitMQ,
    postgres: Service,
    aiida_config: Any,
    aiida_profile_factory: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """Return a context manager that loads a new profile (PostgreSQL, RabbitMQ), with a database of its own."""
    folder = tmp_path_factory.mktemp('aiida')
    postgres.call('create', folder.name)
    return aiida_profile_factory(
        aiida_config,
        storage_backend='core.psql_dos',
        storage_config={
            'database_engine': 'postgresql_psycopg',
            'database_hostname': '127.0.0.1',
            'database_port': postgres.port,
            'database_name': folder.name,
            'database_username': 'aiida',
            'database_password': 'aiida',
            'repository_uri': f'file://{folder / "repository"}',
        },
        broker_backend='core.rabbitmq',
        broker_config={
            'broker_protocol': 'amqp',
            'broker_username': 'guest',
            'broker_password': 'guest',
            'broker_host': '127.0.0.1',
            'broker_port': rabbitmq.port,
            'broker_virtual_host': '',
        },
    )


@pytest.fixture(scope='module')
def rabbitmq_profile(rabbitmq_context: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProfile]:
    """Return a profile (PostgreSQL, RabbitMQ) with a running daemon whose computer is this machine."""
    workdir = tmp_path_factory.mktemp('work')
    with profile_with_daemon(rabbitmq_context, lambda: local_computer(workdir)) as profile:
        yield profile
