"""A computer seen through its AiiDA transport: short commands, files, and long steps that outlive a lost connection."""

from __future__ import annotations

import contextlib
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from aiida.orm import Computer

Report = Callable[[str], None]

#: Begins each line that is for us: login shells and prepended texts may print what they like.
MARK = 'aiida-mlpotential:'

_ATTEMPTS = 5
_WAIT = 2.0
#: A step whose processes cannot be seen, because the connection now ends on another machine, may be silent so long.
_PATIENCE = 3600.0
_LOG_BYTES = 20000


class InstallerError(Exception):
    """Something cannot be installed, checked or removed; the message is one sentence with the remedy.

    :ivar log: last lines of what was printed on the computer, for the user to read
    """

    def __init__(self, message: str, log: str = '') -> None:
        super().__init__(message)
        self.log = log


class Outcome(NamedTuple):
    """What a step left: its exit status, ``None`` if something killed it, and the end of its log."""

    status: int | None
    log: str


class _Job(NamedTuple):
    """A step that runs: its directory, process group, and the machine it runs on."""

    directory: str
    group: str
    host: str


class Remote:
    """A computer, connected to while the ``with`` block lasts, and again whenever the connection is lost."""

    def __init__(self, computer: Computer, wait: float = _WAIT) -> None:
        self.computer = computer
        self._wait = wait
        self._transport: Any = None

    def __enter__(self) -> Remote:
        self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnect()

    @property
    def is_local(self) -> bool:
        """Return whether the computer has the file system of the machine that runs AiiDA."""
        return bool(self.computer.transport_type == 'core.local')

    def _connect(self) -> None:
        transport: Any = self.computer.get_transport()
        try:
            transport.open()
        except Exception as exception:  # each transport plugin raises its own types
            # The asynchronous transport of AiiDA needs the broker, which some profiles have with the daemon only.
            remedy = 'start the daemon with `verdi daemon start`, or ' if 'broker' in str(exception).lower() else ''
            raise InstallerError(
                f'the computer {self.computer.label} cannot be reached ({exception}): '
                f'{remedy}see `verdi computer test {self.computer.label}`.'
            ) from exception
        self._transport = transport

    def _disconnect(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            with contextlib.suppress(Exception):  # a connection that is lost cannot be closed either
                transport.close()

    def _try(self, what: Callable[[Any], Any]) -> Any:
        """Do something with the transport, again after a new connection if it raises."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if self._transport is None:
                    self._connect()
                return what(self._transport)
            except Exception as exception:
                self._disconnect()
                if attempt == _ATTEMPTS:
                    raise InstallerError(
                        f'the connection to {self.computer.label} was lost ({exception}): try again later.'
                    ) from exception
                time.sleep(self._wait * attempt)

    def run(self, command: str) -> tuple[int, str, str]:
        """Run a short command; it may run twice, after a lost connection, and must not mind.

        :return: exit status, output and errors
        """
        # The closing command keeps the shell from handing its process over, which would change the exit status.
        text = f'( {command}\n); exit $?'
        status, output, errors = self._try(lambda transport: transport.exec_command_wait(text))
        return int(status), str(output), str(errors)

    def ask(self, command: str) -> list[str]:
        """Run a short command and return what it printed behind the mark, line by line.

        :raises InstallerError: if it printed no such line
        """
        status, output, errors = self.run(command)
        lines = [line[len(MARK) :].strip() for line in output.splitlines() if line.startswith(MARK)]
        if not lines:
            cause = (errors.strip().splitlines() or output.strip().splitlines() or [f'exit status {status}'])[-1]
            raise InstallerError(f'a command on {self.computer.label} failed: {cause}')
        return lines

    def home(self) -> str:
        """Return the home directory of the user there."""
        return self.ask(f'printf "{MARK}%s\\n" "$HOME"')[0]

    def read(self, path: str) -> str | None:
        """Return the text of a small file, or ``None`` if there is none."""
        status, output, _ = self.run(f'test -f {shlex.quote(path)} && echo {MARK} && cat < {shlex.quote(path)}')
        return output.split(f'{MARK}\n', 1)[1] if status == 0 and f'{MARK}\n' in output else None

    def write(self, path: str, text: str) -> None:
        """Write a small file, all of it or nothing."""
        new = shlex.quote(f'{path}.new')
        command = f'printf %s {shlex.quote(text)} > {new} && mv -f {new} {shlex.quote(path)}'
        status, _, errors = self.run(command)
        if status:
            cause = (errors.strip().splitlines() or [f'exit status {status}'])[-1]
            raise InstallerError(f'{path} cannot be written on {self.computer.label}: {cause}')

    def exists(self, path: str) -> bool:
        """Return whether there is anything at a path, be it a broken link."""
        quoted = shlex.quote(path)
        return self.ask(f'if test -e {quoted} || test -L {quoted}; then echo {MARK}yes; else echo {MARK}no; fi') == [
            'yes'
        ]

    def same(self, path: str, other: str) -> bool:
        """Return whether two paths lead to the same place."""
        return self.run(f'test {shlex.quote(path)} -ef {shlex.quote(other)}')[0] == 0

    def upload(self, source: Path, target: str) -> None:
        """Send a file, or a directory with all that is in it."""
        method = 'puttree' if source.is_dir() else 'putfile'
        self._try(lambda transport: getattr(transport, method)(str(source), target))

    def run_step(self, directory: str, commands: Sequence[str], report: Report | None = None) -> Outcome:
        """Run commands one after the other until one fails, in a process that a lost connection does not end.

        Its files lie in a folder ``step`` of the directory. On any exception here, such as Ctrl-C, all of its
        processes are killed.

        :param report: called with the last line of its log whenever that changes
        """
        try:
            return self._wait_for(self._start(directory, commands), report)
        except BaseException:
            with undisturbed():
                self.stop_step(directory)
            raise

    def _start(self, directory: str, commands: Sequence[str]) -> _Job:
        folder = f'{directory}/step'
        self.run(f'rm -rf -- {shlex.quote(folder)} && mkdir -- {shlex.quote(folder)}')
        lines = [
            "trap '' HUP",
            self.computer.get_prepend_text(),
            '(',
            'set -e',
            *commands,
            ')',
            'status=$?',
            f'cd {shlex.quote(folder)} && echo "$status" > status.new && mv -f status.new status',
        ]
        self.write(f'{folder}/script', '\n'.join(line for line in lines if line) + '\n')
        # Job control gives the script a process group of its own, by which all of it can be killed. Should this
        # command run twice, after a lost connection, the second finds the first.
        launch = (
            f'cd {shlex.quote(folder)} && {{ mkdir started 2>/dev/null && set -m && '
            '{ nohup bash ./script > log 2>&1 < /dev/null & echo "$! $(uname -n)" > group; }; sleep 0.1; '
            f'printf "{MARK}%s\\n" "$(cat group)"; }}'
        )
        group, _, host = self.ask(launch)[0].partition(' ')
        return _Job(folder, group, host)

    def _wait_for(self, job: _Job, report: Report | None) -> Outcome:
        folder = shlex.quote(job.directory)
        # First the processes, then the status: a step that ends in between has left it.
        poll = (
            f'cd {folder} || exit 0; if [ "$(uname -n)" != {shlex.quote(job.host)} ]; then echo {MARK}elsewhere; '
            f'elif kill -0 -- -{job.group} 2>/dev/null; then echo {MARK}alive; else echo {MARK}gone; fi; '
            f'printf "{MARK}%s\\n" "$(cat status 2>/dev/null)"; echo {MARK}; tail -c {_LOG_BYTES} log'
        )
        shown, changed, pause = '', time.monotonic(), 0.1
        while True:
            time.sleep(pause)
            pause = min(1.5 * pause, self._wait)
            _, output, _ = self.run(poll)
            _, mark, output = output.partition(MARK)
            if not mark:  # somebody removed the directory
                return Outcome(None, shown)
            state, _, output = output.partition(f'\n{MARK}')
            status, _, log = output.partition(f'\n{MARK}\n')
            line = last_line(log)
            if line != shown:
                shown, changed = line, time.monotonic()
                if report is not None and line:
                    report(line)
            if status.strip():
                return Outcome(int(status), log)
            if state == 'gone' or (state == 'elsewhere' and time.monotonic() - changed > _PATIENCE):
                return Outcome(None, log)

    def stop_step(self, directory: str) -> None:
        """Kill the step that runs in a directory, if there is one."""
        # A process of that number which is another one, long after a step of which nobody saw the end, is left alone.
        self.run(
            f'cd {shlex.quote(directory)}/step 2>/dev/null || exit 0; read -r group host < group || exit 0; '
            'if [ "$(uname -n)" = "$host" ] && ps -p "$group" -o args= 2>/dev/null | grep -q "[.]/script"; then '
            'kill -TERM -- "-$group"; '
            'for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 -- "-$group" 2>/dev/null || exit 0; sleep 0.2; done; '
            'kill -KILL -- "-$group"; sleep 0.2; fi; true'
        )


def last_line(log: str) -> str:
    """Return the last line of a log that says something, shortened; warnings are none."""
    for line in reversed(log.replace('\r', '\n').splitlines()):
        line = line.strip()
        if line and not line.startswith(('WARNING:', '[notice]')):
            return line if len(line) <= 100 else line[:99] + '…'
    return ''


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let nobody interrupt the block, which puts things in order: a second Ctrl-C would leave a mess."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():  # only the main thread is ever interrupted
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let a closed terminal or a ``kill`` end the block as Ctrl-C does, so that things are put in order."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def temporary_directory(remote: Remote) -> Iterator[str]:
    """Make a directory for the user alone on the computer, and remove it when the block ends, however it ends."""
    directory = remote.ask(
        f'directory=$(mktemp -d "${{TMPDIR:-/tmp}}/aiida-mlpotential-{"X" * 8}") && printf "{MARK}%s\\n" "$directory"'
    )[0]
    try:
        yield directory
    finally:
        with undisturbed():
            remote.run(f'rm -rf -- {shlex.quote(directory)}')
