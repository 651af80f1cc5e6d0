"""One worker at a time in a work directory: a second one waits for the first.

AiiDA submits a job once more when its daemon dies between the submission and the note of it, and schedulers start a
job again after a node failure. A worker therefore keeps a file in its work directory and writes into it all the time.
Another worker waits as long as the file changes, and takes over

- at once where the first is known to be dead: its process is gone from this very machine, or the scheduler itself
  started its job again;
- else when the file has not changed for :data:`STALE` seconds, by the clock of the one that waits.

So a killed worker never blocks a restart, and nothing depends on clocks that agree, on locks of the file system, which
network file systems do not always have, or on signals that arrive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from .schema import LOCK_FILE

#: Seconds between two signs of life.
BEAT = 5.0
#: Seconds without a sign of life after which a worker on another machine counts as dead.
STALE = 60.0
#: Seconds between two looks at the file of another worker.
POLL = 1.0
#: All signs of life have one length, so that a full disk does not stop them.
_LENGTH = 512
#: Where schedulers say which job this is, and how often they have started it before.
_JOB, _RESTARTS = 'SLURM_JOB_ID', 'SLURM_RESTART_COUNT'


@dataclasses.dataclass(frozen=True)
class Owner:
    """Who works in a directory.

    :ivar token: differs between any two workers
    :ivar machine: host, boot and namespace of process numbers; empty where that is not known
    :ivar process: number of the process and the moment of its start, as the kernel counts
    :ivar job: number of the job in the scheduler, empty without one
    :ivar restarts: how often the scheduler had started this job before
    """

    token: str
    machine: str = ''
    process: tuple[int, str] = (0, '')
    job: str = ''
    restarts: int = 0

    @classmethod
    def of_this_process(cls) -> Owner:
        """Return this worker."""
        pid, job = os.getpid(), os.environ.get(_JOB, '')
        restarts = os.environ.get(_RESTARTS, '0')
        return cls(
            token=uuid.uuid4().hex,
            machine=_machine(),
            process=(pid, _started(pid)),
            job=job,
            restarts=int(restarts) if restarts.isdecimal() else 0,
        )

    def is_dead(self, other: Owner) -> bool:
        """Return whether another worker is known not to live any more; ``False`` where nothing is known."""
        if other.job and other.job == self.job and other.restarts < self.restarts:
            return True
        return bool(self.machine) and other.machine == self.machine and _started(other.process[0]) != other.process[1]

    def encode(self, beat: int) -> bytes:
        """Return the content of the file."""
        text = json.dumps({**dataclasses.asdict(self), 'beat': beat})
        return text.encode('ascii').ljust(_LENGTH)

    @classmethod
    def decode(cls, content: bytes) -> Owner | None:
        """Return the worker of a file; ``None`` for one that is being written, or no such file at all."""
        try:
            data = json.loads(content)
            data.pop('beat')
            return cls(**{**data, 'process': tuple(data['process'])})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b''


def _machine() -> str:
    """Return what process numbers are counted in: a boot of a machine, and in it perhaps a container."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text().strip()
        return f'{platform.node()} {boot} {os.readlink("/proc/self/ns/pid")}'  # noqa: PTH115 - a link to no path
    except OSError:
        return ''


def _started(pid: int) -> str:
    """Return when a process of this machine was started, in the kernel's count; empty if there is none."""
    try:
        text = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return ''
    fields = text.rpartition(')')[2].split()  # the name of the program, before it, may have spaces
    return '' if fields[0] in ('Z', 'X') else fields[19]


class WorkLock:
    """The right to work in a directory; a context manager.

    :param directory: the work directory
    :param stopping: says that the job should end; asked while waiting
    :param report: takes a sentence for the user
    """

    def __init__(
        self,
        directory: Path,
        stopping: Callable[[], bool] = lambda: False,
        report: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._path = directory / LOCK_FILE
        self._stopping, self._report = stopping, report
        self._owner = Owner.of_this_process()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._handle = -1
        #: Whether another worker took over, because this one gave no sign of life: it must not go on.
        self.is_lost = False
        #: Whether there was another worker to wait for.
        self.has_waited = False

    def __enter__(self) -> WorkLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> bool:
        """Wait until no other worker is in the directory; return ``False`` if the job should end before.

        Where the directory cannot be written there is no lock: what follows has the better message.
        """
        last, since = b'', time.monotonic()
        while not self._create():
            content = _read(self._path)
            if content != last:
                last, since = content, time.monotonic()
            other = Owner.decode(content)
            dead = other is not None and self._owner.is_dead(other)
            if dead or time.monotonic() - since > STALE:
                if self._replace():
                    break
                continue
            if not self.has_waited:
                self.has_waited = True
                self._report('another worker is at work in this directory: waiting for it')
            if self._stopping():
                return False
            time.sleep(POLL)
        if self._handle >= 0:
            self._thread = threading.Thread(target=self._beat, name='lock', daemon=True)
            self._thread.start()
        return True

    def release(self) -> None:
        """Let the next worker in; a lock that another one has taken over stays."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._handle >= 0:
            self._close()
            if self._is_mine():
                self._path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Make the file if there is none; return whether there is nothing to wait for."""
        try:
            self._handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
            self._write(0)
        except FileExistsError:
            return False
        except OSError:
            if self._handle >= 0:  # made, but without room for its content
                self._close()
                self._path.unlink(missing_ok=True)
        return True

    def _replace(self) -> bool:
        """Put this worker in the place of a dead one; of several that do so at once the last one stays.

        :return: whether this is the one, or there is no lock, as where the disk is full
        """
        temporary = self._path.with_name(f'{self._path.name}.{self._owner.token}')
        try:
            self._handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
            self._write(0)
            temporary.replace(self._path)
        except OSError:
            self._close()
            temporary.unlink(missing_ok=True)
            return True
        time.sleep(POLL)
        if self._is_mine():
            return True
        self._close()
        return False

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _is_mine(self) -> bool:
        owner = Owner.decode(_read(self._path))
        return owner is not None and owner.token == self._owner.token

    def _write(self, beat: int) -> None:
        os.pwrite(self._handle, self._owner.encode(beat), 0)
        os.fsync(self._handle)

    def _beat(self) -> None:
        """Give signs of life; find out when another worker has taken over."""
        beat = 0
        while not self._ended.wait(BEAT):
            beat += 1
            with contextlib.suppress(OSError):  # the file system may be away for a while; the next one tells
                self._write(beat)
                other = Owner.decode(_read(self._path))
                self.is_lost = other is not None and other.token != self._owner.token
