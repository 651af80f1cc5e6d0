"""Whether the job was asked to end in order: by a signal of the scheduler, or by a file in the work directory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .schema import STOP_FILE

#: Seconds between two looks for the file: the work directory may lie on a slow network.
_INTERVAL = 1.0


class StopRequest:
    """Remembers that somebody asked; a task asks it after each batch.

    :param directory: the work directory
    :param signalled: whether a signal came
    """

    def __init__(
        self, directory: Path, signalled: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = directory / STOP_FILE
        self._signalled, self._clock = signalled, clock
        self._next = clock()
        #: Who asked, for the notes of the results; empty where nobody did.
        self.reason = ''

    def __call__(self) -> bool:
        """Return whether to stop after the batch at hand."""
        if self._signalled():
            self.reason = 'asked to stop by the scheduler or the user (SIGTERM)'
        elif not self.reason and self._clock() >= self._next:
            self._next = self._clock() + _INTERVAL
            if self._path.exists():
                self.reason = f'asked to stop by the file `{STOP_FILE}` in the work directory'
        return bool(self.reason)
