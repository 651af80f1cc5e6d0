"""The computer seen through a transport: noise, awkward paths, lost connections, and steps that must not stay."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from aiida import orm

from aiida_mlpotential.installer import remote as module
from aiida_mlpotential.installer.remote import MARK, InstallerError, Remote, last_line

NASTY = 'a $(touch pwned) `touch pwned` "b" \'c\'\n%s \\n ;&| é\n'


def _running(pattern: str) -> bool:
    return subprocess.run(['pgrep', '-f', pattern], capture_output=True, check=False).returncode == 0


def test_noise_of_a_shell(remote: Remote) -> None:
    """Only marked lines are answers; a command without one failed."""
    assert remote.ask(f'echo Welcome; echo "{MARK} two words "; echo bye') == ['two words']
    with pytest.raises(InstallerError, match=r'a command on localhost failed: .*nothing_of_the_kind'):
        remote.ask('nothing_of_the_kind')


def test_home(remote: Remote, home: Path) -> None:
    """The name of the directory is not run, however it reads."""
    assert remote.home() == str(home)
    assert not list(home.parent.rglob('pwned'))


def test_files(remote: Remote, home: Path) -> None:
    """Texts come back as they went, and nothing in them is run."""
    path = str(home / 'a file')
    assert remote.read(path) is None
    assert not remote.exists(path)
    remote.write(path, NASTY)
    assert remote.read(path) == NASTY
    assert remote.exists(path)
    Path(home / 'broken').symlink_to('/nowhere')
    assert remote.exists(str(home / 'broken'))
    assert not list(home.parent.rglob('pwned'))
    with pytest.raises(InstallerError, match='cannot be written on localhost'):
        remote.write(str(home / 'absent' / 'file'), 'x')


def test_upload(remote: Remote, home: Path, tmp_path: Path) -> None:
    """Files and directories arrive under the given name."""
    source = tmp_path / 'source'
    source.mkdir()
    (source / 'x.txt').write_text('x')
    remote.upload(source, str(home / 'target'))
    remote.upload(source / 'x.txt', str(home / 'y.txt'))
    assert (home / 'target' / 'x.txt').read_text() == (home / 'y.txt').read_text() == 'x'


def test_step(remote: Remote, home: Path) -> None:
    """Status and log come back; commands run until the first fails, in the environment of the computer's jobs."""
    remote.computer.set_prepend_text('export GREETING=hello; echo noise')
    seen: list[str] = []
    outcome = remote.run_step(str(home), ['echo "$GREETING there"', 'sleep 0.3', '(exit 7)', 'echo never'], seen.append)
    assert outcome.status == 7
    assert outcome.log == 'noise\nhello there\n'
    assert seen[-1] == 'hello there'
    assert remote.run_step(str(home), ['true']).status == 0


def test_long_log(remote: Remote, home: Path) -> None:
    """Only its end is fetched."""
    outcome = remote.run_step(str(home), ['seq 100000'])
    assert outcome.log.endswith('\n100000\n')
    assert len(outcome.log) <= module._LOG_BYTES


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_step_that_is_killed(remote: Remote, home: Path, number: int) -> None:
    """It is not waited for, and has no status."""
    outcome = remote.run_step(str(home), ['echo begun', f'kill -{number:d} 0'])
    assert outcome == (None, 'begun\n')


@pytest.mark.slow
def test_interruption_kills_all_processes(remote: Remote, home: Path) -> None:
    """Ctrl-C, here as an exception from the report, leaves no process of the step, nor of what it started."""

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.run_step(str(home), ['sleep 54321 &', 'sleep 54322 &', 'echo begun', 'wait'], interrupt)
    for _ in range(20):
        if not _running('sleep 5432[12]'):
            break
        time.sleep(0.1)
    assert not _running('sleep 5432[12]')


@pytest.mark.slow
def test_processes_that_do_not_listen(remote: Remote, home: Path) -> None:
    """Those that ignore the polite signal get the other one."""

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.run_step(str(home), ["trap '' TERM", 'echo begun', 'while true; do sleep 0.54323; done'], interrupt)
    assert not _running('sleep 0.54323')


def test_an_old_process_number(remote: Remote, home: Path) -> None:
    """A process that has the number of a step of long ago, and is another one, is left alone."""
    (home / 'step').mkdir()
    other = subprocess.Popen(['sleep', '30'], start_new_session=True)
    try:
        (home / 'step' / 'group').write_text(f'{other.pid} {Path("/proc/sys/kernel/hostname").read_text()}')
        remote.stop_step(str(home))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


class _Flaky:
    """A transport whose connection is lost at some calls, after the command has run: the worst moment."""

    def __init__(self, transport: Any, failures: list[bool]) -> None:
        self._transport, self._failures = transport, failures

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._transport, name)
        if name != 'exec_command_wait' or not self._failures or not self._failures.pop(0):
            return found

        def lose(command: str) -> None:
            found(command)
            raise OSError('Broken pipe')

        return lose


def test_lost_connection(computer: orm.Computer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step goes on without it, runs once, and is found again after a new connection."""
    failures: list[bool] = []
    get = orm.Computer.get_transport
    monkeypatch.setattr(orm.Computer, 'get_transport', lambda self: _Flaky(get(self), failures))
    with Remote(computer, wait=0.05) as remote:
        failures += [True, False] * 4  # while its directory is made, its script written, it is started, and looked at
        outcome = remote.run_step(str(home), ['echo run >> count', 'sleep 1', 'cat count'])
    assert outcome == (0, 'run\n')
    assert not failures


def test_connection_that_stays_lost(computer: orm.Computer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some attempts it is one sentence."""
    get = orm.Computer.get_transport
    monkeypatch.setattr(orm.Computer, 'get_transport', lambda self: _Flaky(get(self), [True] * 50))
    with (
        Remote(computer, wait=0.0) as remote,
        pytest.raises(InstallerError, match=r'connection to localhost was lost \(Broken pipe\)'),
    ):
        remote.run('true')


def test_unreachable_computer(aiida_profile_clean: object, tmp_path: Path) -> None:
    """The message names the command that finds out more."""
    computer = orm.Computer('gone', 'localhost', '', 'core.ssh', 'core.direct', str(tmp_path)).store()
    computer.configure(port=1, look_for_keys=False, allow_agent=False, safe_interval=0)
    with pytest.raises(InstallerError, match=r'gone cannot be reached .*verdi computer test gone'), Remote(computer):
        pass


def test_temporary_directory(remote: Remote) -> None:
    """It is gone after the block, however that ends."""
    with pytest.raises(KeyboardInterrupt), module.temporary_directory(remote) as directory:
        assert Path(directory).is_dir()
        assert Path(directory).stat().st_mode & 0o077 == 0
        raise KeyboardInterrupt
    assert not Path(directory).exists()


def test_signals() -> None:
    """A closed terminal is an interruption; while things are put in order nothing is."""
    with module.interruptible(), pytest.raises(KeyboardInterrupt, match='SIGHUP'):
        signal.raise_signal(signal.SIGHUP)
    before = signal.getsignal(signal.SIGINT)
    with module.undisturbed():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ('log', 'line'),
    [('', ''), ('a\n\n', 'a'), ('a\rb\r', 'b'), ('a\nWARNING: x\n[notice] y\n', 'a'), ('x' * 200, 'x' * 99 + '…')],
)
def test_last_line(log: str, line: str) -> None:
    """What is shown is short, and says something."""
    assert last_line(log) == line
