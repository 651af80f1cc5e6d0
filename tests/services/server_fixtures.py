"""Real servers for tests: a cluster behind SSH, RabbitMQ, PostgreSQL, and AiiDA profiles with a daemon that use them.

A pytest plugin, loaded by ``tests/conftest.py``; the fixtures are described in ``tests/servers/conftest.py``.
The servers themselves are started and stopped by the scripts beside this file, which work by hand, too.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
#: What must be installed for each kind of server, and for containers and drawings.
PROGRAMS = {
    'cluster': ('slurmctld', 'slurmd', 'slurmdbd', 'sbatch', 'munged', 'mariadbd', 'sshd', 'ssh', 'unshare', 'nsenter'),
    'rabbitmq': ('rabbitmq-server', 'runuser'),
    'postgres': ('pg_ctl', 'runuser'),
    'container': ('bwrap',),
    'drawing': ('dot',),
}
FOR_EVERYBODY = {'container', 'drawing'}
SYSTEM_PATH = f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'
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


def reason_against(kind: str) -> str | None:
    """Return why what is of this kind cannot run here, or ``None``."""
    if kind not in FOR_EVERYBODY and os.geteuid() != 0:
        return 'real servers are started by root only'
    path = os.pathsep.join([SYSTEM_PATH, *map(str, Path('/usr/lib/postgresql').glob('*/bin'))])
    missing = [name for name in PROGRAMS[kind] if shutil.which(name, path=path) is None]
    if missing:
        return f'not installed: {", ".join(missing)} (tests/services/packages.sh install)'
    unshare = ['unshare', '--mount', 'true']
    if kind == 'cluster' and subprocess.run(unshare, capture_output=True, check=False).returncode:
        return 'mount namespaces are forbidden here'
    return None


def require(kind: str) -> None:
    """Skip the test where what is of this kind cannot run; with MLPOTENTIAL_REQUIRE_SERVERS set, as in CI, fail."""
    reason = reason_against(kind)
    if reason and os.environ.get('MLPOTENTIAL_REQUIRE_SERVERS'):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def free_ports(number: int) -> int:
    """Return the first of some consecutive ports that nobody listens on, below those that the system gives away."""
    for _ in range(200):
        first = random.randrange(15000, 20000, 10)
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + number):
                    stack.enter_context(socket.socket()).bind(('127.0.0.1', port))
            except OSError:
                continue
        return first
    raise RuntimeError('no free ports between 15000 and 20000')


def wait_for(condition: Callable[[], Any], seconds: float = 120.0, what: str = '') -> Any:
    """Wait until a condition is true, and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f'not after {seconds} seconds: {what or condition}'
        time.sleep(0.2)
    return value


@dataclass(frozen=True)
class Service:
    """Servers that a script of this folder starts and stops.

    :param script: name of the script
    :param directory: where the servers keep everything
    :param port: first of their ports
    :param variables: environment of the script
    """

    script: str
    directory: Path
    port: int
    variables: dict[str, str]

    def call(self, *arguments: str, timeout: float = 120.0) -> str:
        """Run the script with arguments and return what it prints; an error is raised with its messages."""
        # A file and no pipe: the servers keep their standard output open as long as they live.
        with tempfile.TemporaryFile('w+') as output:
            process = subprocess.run(
                [str(HERE / self.script), *arguments],
                env={**os.environ, 'PATH': SYSTEM_PATH, **self.variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
            output.seek(0)
            text = output.read()
        if process.returncode != 0:
            raise RuntimeError(f'{self.script} {" ".join(arguments)} ended with {process.returncode}: {text}')
        return text


class Cluster(Service):
    """A login host behind SSH with SLURM and two nodes, in a file system that the AiiDA host does not see."""

    #: Name of the login host for SSH.
    name = 'mlcluster'

    @property
    def home(self) -> Path:
        """Return the HOME from which SSH reaches the login host."""
        return self.directory / 'home'

    @property
    def scratch(self) -> Path:
        """Return the file system of the cluster: empty when seen from here."""
        return self.directory / 'scratch'

    @property
    def nodes(self) -> tuple[str, str]:
        """Return the names of the nodes; the first has two make-believe GPUs."""
        return f'ml{self.port}n1', f'ml{self.port}n2'

    @property
    def limits_memory(self) -> bool:
        """Return whether SLURM can hold jobs to the memory they asked for."""
        return Path('/sys/fs/cgroup/memory').is_dir() and Path('/sys/fs/cgroup/freezer').is_dir()

    def run(self, *command: str, timeout: float = 60.0) -> str:
        """Run a command on the login host and return what it prints."""
        return self.call('exec', *command, timeout=timeout)

    def shell(self, line: str, timeout: float = 60.0) -> str:
        """Run a line of bash on the login host and return what it prints."""
        return self.run('bash', '-c', line, timeout=timeout)

    def kill_node(self, node: str) -> None:
        """Kill a node's slurmd and all that its jobs run, as if the power had failed."""
        self.call('kill-node', node)

    def start_node(self, node: str) -> None:
        """Start a node that was killed, and wait until SLURM uses it."""
        self.call('start-node', node)

    def stop_ssh(self) -> None:
        """End the SSH server and all connections."""
        self.call('stop-ssh')

    def start_ssh(self) -> None:
        """Start the SSH server again."""
        self.call('start-ssh')

    def sacct(self, job_id: str, *fields: str) -> list[str]:
        """Return fields of SLURM's accounting for a job, for instance ``State``, ``NodeList``, ``AllocTRES``."""
        lines = self.run('sacct', '-X', '-n', '-P', '-j', str(job_id), '-o', ','.join(fields)).splitlines()
        return lines[0].split('|') if lines else []

    def node_of(self, job_id: str) -> str:
        """Return the node on which a job runs, or ``''``."""
        return self.run('squeue', '-h', '-t', 'R', '-j', str(job_id), '-o', '%N').strip()


class RabbitMQ(Service):
    """RabbitMQ with a port mapper of its own."""

    def kill(self) -> None:
        """Kill the broker (kill -9)."""
        os.kill(int((self.directory / 'pid').read_text()), signal.SIGKILL)

    def start(self) -> None:
        """Start the broker again, with the queues that it has on disk."""
        self.call('up')


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
