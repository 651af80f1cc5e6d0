"""Real servers on this machine: a cluster behind SSH, RabbitMQ, PostgreSQL; and whether what a test needs is there.

They are started and stopped by the scripts beside this file, which work by hand, too.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

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
