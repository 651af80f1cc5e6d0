"""Plugins of AiiDA that fail on purpose, once, when a test has armed them: a file of their name makes them fail."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

from aiida.schedulers.plugins.direct import DirectScheduler
from aiida.transports.plugins.local import LocalTransport


def _armed(name: str) -> bool:
    """Return whether the fault shall happen now, and disarm it."""
    try:
        (Path(os.environ['AIIDA_FAULTS']) / name).unlink()
    except FileNotFoundError:
        return False
    return True


def _die(name: str) -> None:
    """Kill this process, a worker of the daemon, if a test wants it."""
    if _armed(name):
        os.kill(os.getpid(), signal.SIGKILL)


def _fill(name: str) -> None:
    """Fill a disk: the file that a test has armed names the file that takes all room."""
    path = Path(os.environ['AIIDA_FAULTS']) / name
    if path.exists():
        ballast = Path(path.read_text())
        path.unlink()
        ballast.write_bytes(bytes(shutil.disk_usage(ballast.parent).free))


class FaultyScheduler(DirectScheduler):
    """Dies, and the worker of the daemon with it, right after a job was submitted or before it is parsed."""

    def submit_job(self, working_directory: Any, filename: str) -> Any:
        """Submit a job; perhaps die before AiiDA notes its number."""
        result = super().submit_job(working_directory, filename)
        _die('submission')
        return result

    def parse_output(self, *args: Any, **kwargs: Any) -> Any:
        """Perhaps die, or fill the disk that the test names, with everything retrieved and nothing parsed."""
        _die('parsing')
        _fill('fill')
        return super().parse_output(*args, **kwargs)


class FaultyTransport(LocalTransport):
    """Dies with a part of the files sent or fetched; or loses half an array and does not notice."""

    def put(self, *args: Any, **kwargs: Any) -> None:
        """Send files, and perhaps die after the first."""
        super().put(*args, **kwargs)
        _die('upload')

    def get(self, remotepath: Any, localpath: Any, *args: Any, **kwargs: Any) -> None:
        """Fetch files; perhaps die after the first, or lose the second half of the largest array."""
        super().get(remotepath, localpath, *args, **kwargs)
        _die('retrieval')
        arrays = sorted(Path(localpath).rglob('*.npy'), key=lambda path: path.stat().st_size)
        if arrays and _armed('cut_short'):
            os.truncate(arrays[-1], arrays[-1].stat().st_size // 2)
