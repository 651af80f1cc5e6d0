"""Progress as plain lines on standard output, with rate and time left, once every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO


class Progress:
    """Counts frames and says so now and then.

    :param total: frames in all
    :param done: frames that an earlier run has done
    :param interval: seconds between two lines
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        interval: float = 5.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._done, self._start_done = total, done, done
        self._interval, self._stream, self._clock = interval, stream or sys.stdout, clock
        self._begin = self._last = clock()

    def advance(self, number: int) -> None:
        """Count ``number`` more frames."""
        self._done += number
        now = self._clock()
        if now - self._last >= self._interval or self._done == self._total:
            self._last = now
            print(self.line(), file=self._stream, flush=True)

    def line(self) -> str:
        """Return the present state as one line."""
        elapsed = max(self._clock() - self._begin, 1e-9)
        rate = (self._done - self._start_done) / elapsed
        left = f'{format_seconds((self._total - self._done) / rate)} left' if rate > 0 else 'time left unknown'
        share = 100 * self._done / self._total if self._total else 100
        return f'progress: {self._done}/{self._total} structures ({share:.1f} %), {rate:.4g} structures/s, {left}'


def format_seconds(seconds: float) -> str:
    """Return a duration for people, such as ``2 min 05 s``."""
    if seconds < 60:
        return f'{seconds:.0f} s'
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f'{minutes} min {rest:02d} s'
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes:02d} min'
