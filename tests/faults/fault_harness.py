"""What the tests of faults work with: a profile with a daemon, jobs that stop where a test wants, rows of the table."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from aiida import orm
from aiida.manage import get_manager
from waiting import wait_for

from aiida_mlpotential.data.model import ModelData

HERE = Path(__file__).parent
INJECTED = HERE / 'injected'
TABLE = HERE.parents[1] / 'docs' / 'reference' / 'measured' / 'faults.md'
#: Structures of the set that the jobs compute, and how many of them go into a batch.
N_FRAMES, BATCH = 60, 4
#: Where in a job things break: so many structures are computed, the batch after is under way.
HALF = 22
#: Slices of a screening, two of them at once; it stops when so many structures are computed, in the second half.
N_SLICES, SCREENED = 4, 36
#: Name of the model in a screening.
MODEL = 'emt'

#: Quick polling, and errors of transport that are tried again after 1 and 2 seconds and then pause the process.
_OPTIONS = {
    'daemon.timeout': 20,
    'runner.poll.interval': 1,
    'transport.task_retry_initial_interval': 1,
    'transport.task_maximum_attempts': 3,
}
_ENTRY_POINTS = """\
[aiida.schedulers]
faults.direct = aiida_faults:FaultyScheduler

[aiida.transports]
faults.local = aiida_faults:FaultyTransport
"""


class Gate:
    """Where the calculator of the jobs waits, and what it has computed; see ``injected/gated_emt.py``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)

    def close(self, after: int, together: bool = False) -> None:
        """Let every process that computes stop after so many structures.

        :param together: let all stop after so many structures of all
        """
        (self.folder / 'closed.new').write_text(f'all {after}' if together else str(after))
        (self.folder / 'closed.new').rename(self.folder / 'closed')

    def open(self) -> None:
        """Let all go on."""
        (self.folder / 'closed').unlink(missing_ok=True)

    def computed(self) -> list[str]:
        """Return a line for each structure that was computed, in this order, by whatever process."""
        path = self.folder / 'computed'
        return path.read_text().splitlines() if path.exists() else []

    def forget(self) -> None:
        """Forget what was computed."""
        (self.folder / 'computed').unlink(missing_ok=True)


@dataclasses.dataclass
class Outcome:
    """What a test of a fault found; all of it stands in the table."""

    reference: dict[str, Any]
    gate: Gate
    n_frames: int = 0
    repeated: int = 0
    checked: bool = False

    def __call__(self, results: Any, computed_again: int = 0, beside: int = 0) -> None:
        """Compare results with those of an undisturbed run, bit by bit.

        :param results: the results node that is there in the end, or those of a screening
        :param computed_again: at most so many structures may have been computed twice
        :param beside: so many were computed for other jobs
        """
        results = results[MODEL] if isinstance(results, Mapping) else results  # those of a screening
        assert set(results.get_arraynames()) == set(self.reference)
        for name, expected in self.reference.items():
            found = results.get_array(name)
            assert found.dtype == expected.dtype
            assert found.tobytes() == expected.tobytes(), f'{name} differs'
        assert results.n_ok == results.n_frames == len(results.status)
        repeated = len(self.gate.computed()) - beside - results.n_frames
        assert 0 <= repeated <= computed_again, f'{repeated} structures were computed again'
        self.n_frames, self.repeated, self.checked = results.n_frames, computed_again, True


def row_of(fault: dict[str, str], outcome: Outcome) -> str:
    """Return the row of the table that a test makes."""
    again = f'at most {outcome.repeated}' if outcome.repeated else '0'
    cells = (fault['what'], fault['injected'], fault['then'], f'0 of {outcome.n_frames}', again)
    return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


@dataclasses.dataclass
class Site:
    """A profile with a running daemon, and what a job needs: nodes by their UUID, as other profiles come between."""

    folder: Path
    gate: Gate
    client: Any
    code: str
    model: str
    structures: str
    is_local: bool = True

    def inputs(self, **changes: Any) -> dict[str, Any]:
        """Return the inputs of the job that all tests run."""
        parameters = {'properties': ['energy', 'forces', 'stress'], 'batch_atoms': 4 * BATCH}
        nodes = {name: orm.load_node(getattr(self, name)) for name in ('code', 'model', 'structures')}
        return {**nodes, 'parameters': parameters, **changes}

    def submit(self, **changes: Any) -> Any:
        """Submit that job to the daemon."""
        from aiida.engine import submit

        from aiida_mlpotential.calculations.single_point import SinglePointCalculation

        return submit(SinglePointCalculation, **self.inputs(**changes))

    def submit_half(self, **changes: Any) -> Any:
        """Submit the job with the gate closed; return when it stands there, half of its work on disk."""
        self.gate.close(HALF)
        node = self.submit(**changes)
        wait_for(lambda: len(self.gate.computed()) >= HALF, what='the job reaches the gate')
        return node

    def screen(self, slice_size: int = N_FRAMES // N_SLICES, reuse: bool = False, **changes: Any) -> Any:
        """Submit a screening of the same structures to the daemon: by default four slices, two at once.

        :param reuse: whether it may take what other screenings left, among them those of other tests
        """
        from aiida.engine import submit
        from aiida.plugins import WorkflowFactory

        inputs = self.inputs(**changes)
        inputs['models'] = {MODEL: inputs.pop('model')}
        limits = {'slice_size': slice_size, 'max_concurrent': 2, 'reuse': reuse}
        return submit(WorkflowFactory('mlpotential.screening'), **limits, **inputs)

    def screen_half(self, **changes: Any) -> Any:
        """Submit the screening; return when some slices are done and the others under way, at the gate."""
        self.gate.close(SCREENED, together=True)
        node = self.screen(**changes)
        wait_for(lambda: len(self.gate.computed()) >= SCREENED, 200, 'the screening reaches the gate')
        wait_for(lambda: len(self.slices(node)) >= 2, what='the first slices are stored')
        wait_for(lambda: len(self.running(node)) == 2, what='the next slices are under way')
        return node

    def jobs(self, screening: Any) -> list[Any]:
        """Return the jobs of a screening."""
        jobs = [item for item in screening.called_descendants if isinstance(item, orm.CalcJobNode)]
        return sorted(jobs, key=lambda item: item.pk)

    def slices(self, screening: Any) -> list[Any]:
        """Return the jobs of a screening that have ended well."""
        return [job for job in self.jobs(screening) if job.is_finished_ok]

    def running(self, screening: Any) -> list[Any]:
        """Return the jobs of a screening whose workers have begun."""
        jobs = [job for job in self.jobs(screening) if not job.is_terminated and job.get_job_id()]
        return [job for job in jobs if not self.is_local or self.workers_of(job)]

    def play(self, node: Any) -> None:
        """Let a paused process go on, as ``verdi process play`` does."""
        from aiida.engine.processes.control import play_processes

        play_processes([node], timeout=30)

    def kill(self, node: Any) -> None:
        """Kill a process, as ``verdi process kill`` does."""
        from aiida.engine.processes.control import kill_processes

        kill_processes([node], timeout=30)
        self.finish(node)

    def repair(self) -> None:
        """Give the daemon the processes that it has dropped, with the commands that a user has for it."""
        for command in (['daemon', 'stop'], ['process', 'repair'], ['daemon', 'start', '2']):
            subprocess.run(['verdi', '-p', self.client.profile.name, *command], input='y\n', text=True, check=True)
        self.reconnect()

    def start_daemon(self) -> None:
        """Start the daemon anew; its broker is another one."""
        self.client.start_daemon(number_workers=2)
        self.reconnect()

    def reconnect(self) -> None:
        """Let this process look for the broker again, as every new command does."""
        get_manager().reset_broker()
        get_manager().reset_runner()

    def kill_broker(self) -> None:
        """Kill the broker, and wait until the daemon has started another."""
        killed = self.broker()
        killed.kill()
        killed.wait(10)
        wait_for(
            lambda: [item for item in self._daemon() if 'broker' in item.cmdline()], what='there is another broker'
        )

    def arm(self, name: str, content: str = '') -> None:
        """Let a plugin of ``injected/aiida_faults.py`` fail the next time."""
        (self.folder / 'armed' / name).write_text(content)

    def armed(self, name: str) -> bool:
        """Return whether the fault is still to come."""
        return (self.folder / 'armed' / name).exists()

    def finish(self, node: Any, seconds: float = 200.0) -> Any:
        """Wait until a process has ended; return its node."""
        wait_for(lambda: node.is_terminated, seconds, f'{node.process_label}<{node.pk}> ends')
        return node

    def make_code(self, work: Path, label: str, **kinds: str) -> Any:
        """Return the running Python as a code on a further computer of this machine.

        :param kinds: ``transport`` and ``scheduler``
        """
        computer = make_computer(work, label, **kinds)
        return orm.InstalledCode(label='python', computer=computer, filepath_executable=sys.executable).store()

    def workers_of(self, node: Any) -> list[psutil.Process]:
        """Return the workers of the plugin that run in the work directory of a job."""
        return workers_in(node.get_remote_workdir())

    def daemon_workers(self) -> list[psutil.Process]:
        """Return the running workers of the daemon."""
        return [item for item in self._daemon() if 'worker' in item.cmdline()]

    def broker(self) -> psutil.Process:
        """Return the broker."""
        found = [item for item in self._daemon() if 'broker' in item.cmdline()]
        assert len(found) == 1, [item.cmdline() for item in self._daemon()]
        return found[0]

    def kill_daemon(self) -> None:
        """Kill the daemon with all its workers and the broker."""
        processes = [psutil.Process(self.client.get_daemon_pid()), *self._daemon()]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)

    def _daemon(self) -> list[psutil.Process]:
        pid = self.client.get_daemon_pid()
        return [item for item in psutil.Process(pid).children() if item.status() != psutil.STATUS_ZOMBIE]


def workers_in(directory: str) -> list[psutil.Process]:
    """Return the workers of the plugin that run in a work directory."""
    found = []
    for process in psutil.process_iter(['cmdline']):
        try:
            if 'worker.pyz' in (process.info['cmdline'] or []) and process.cwd() == os.path.realpath(directory):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended meanwhile, or is somebody else's
    return found


def copper(number: int) -> Any:
    """Return a stored set of rattled copper cells with four atoms each."""
    from ase.build import bulk

    from aiida_mlpotential.data.structures import StructureSetData

    random = np.random.default_rng(5)
    cells = []
    for _ in range(number):
        atoms = bulk('Cu') * (2, 2, 1)
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        cells.append(atoms)
    return StructureSetData.from_ase(cells).store()


def install_faults(folder: Path) -> None:
    """Make the plugins of ``injected`` known to processes that start with the environment of this one."""
    (folder / 'armed').mkdir()
    plugins = shutil.copytree(INJECTED, folder / 'plugins', ignore=shutil.ignore_patterns('__pycache__'))
    metadata = plugins / 'aiida_faults-1.0.dist-info'
    metadata.mkdir()
    (metadata / 'METADATA').write_text('Metadata-Version: 2.1\nName: aiida-faults\nVersion: 1.0\n')
    (metadata / 'entry_points.txt').write_text(_ENTRY_POINTS)


def make_computer(
    work: Path, label: str = 'localhost', transport: str = 'core.local', scheduler: str = 'core.direct'
) -> Any:
    """Return this machine as a stored computer without waiting times."""
    computer = orm.Computer(
        label=label, hostname='localhost', transport_type=transport, scheduler_type=scheduler, workdir=str(work)
    ).store()
    computer.configure(safe_interval=0)
    computer.set_minimum_job_poll_interval(0.2)
    computer.set_default_mpiprocs_per_machine(1)
    return computer


@contextlib.contextmanager
def running_site(
    config: Any, context: Any, folder: Path, computer_of: Callable[[], Any] | None = None, prepend: str = ''
) -> Iterator[Site]:
    """Load a profile, start its daemon with two workers, and stop it at the end.

    :param context: what AiiDA's fixture ``aiida_profile_factory`` returns
    :param computer_of: makes the computer, by default this machine
    :param prepend: lines of the job script before the worker starts
    """
    from aiida.engine.daemon.client import get_daemon_client

    with context as profile:
        for name, value in _OPTIONS.items():
            config.set_option(name, value, scope=profile.name)
        config.store()
        computer = computer_of() if computer_of else make_computer(folder / 'work')
        code = orm.InstalledCode(
            label='python', computer=computer, filepath_executable=sys.executable, prepend_text=prepend
        ).store()
        gate = Gate(folder / 'gate')
        model = ModelData.from_ase_calculator('gated_emt.GatedEMT', {'gate': str(gate.folder)}, elements=['Cu'])
        client = get_daemon_client()
        client.start_daemon(number_workers=2)
        try:
            yield Site(
                folder,
                gate,
                client,
                code.uuid,
                model.get_or_store().uuid,
                copper(N_FRAMES).uuid,
                is_local=computer_of is None,
            )
        finally:
            gate.open()
            client.stop_daemon(wait=True)


@contextlib.contextmanager
def mount_tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system in memory; yield where it is, and take it away."""
    if os.geteuid() != 0:
        pytest.skip('mounting a small file system needs root')
    folder.mkdir(parents=True, exist_ok=True)
    command = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f'a file system cannot be mounted here: {mounted.stderr.strip()}')
    try:
        yield folder
    finally:
        subprocess.run(['umount', '--lazy', str(folder)], check=True)
