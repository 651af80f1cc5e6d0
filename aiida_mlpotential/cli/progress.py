"""Progress of a command, step by step: a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import Literal, TextIO

import click

_FRAMES = '⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏'
_ASCII_FRAMES = '-\\|/'
_INTERVAL = 0.1

State = Literal['good', 'partial', 'failed']
_SYMBOLS = {'good': ('✓', '+', 'green'), 'partial': ('!', '!', 'yellow'), 'failed': ('✗', 'x', 'red')}


class Step:
    """One step while it runs: what it does now, and what came of it."""

    def __init__(self, title: str, steps: Steps) -> None:
        self.title = title
        self.message = ''
        #: What came of it, printed behind the title when the step is done.
        self.result = 'done'
        #: How a step ended that came to its end: as it was wanted, in part, or not at all.
        self.state: State = 'good'
        self._steps = steps
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return the time since the step began."""
        return time.monotonic() - self._start

    def report(self, message: str) -> None:
        """Say what is being done now."""
        self.message = message
        self._steps.on_report(message)


class Steps:
    """Prints the steps of a command one after the other.

    :param stream: where to print; standard output by default
    :param live: whether to draw a spinner; by default where the stream is a terminal
    """

    def __init__(self, stream: TextIO | None = None, live: bool | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty() if live is None else live
        self._unicode = 'utf' in (getattr(self._stream, 'encoding', None) or '').lower()
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return the time since the first step could begin."""
        return time.monotonic() - self._start

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Print a step while the block runs, its result and duration afterwards, and that it failed if it raises."""
        step = Step(title, self)
        done = threading.Event()
        spinner = threading.Thread(target=self._spin, args=(step, done), daemon=True) if self._live else None
        if spinner is None:
            self._print(f'{self._symbol("·", "-")} {title} ...')
        else:
            spinner.start()
        result, state = 'failed', 'failed'
        try:
            yield step
            result, state = step.result, step.state
        finally:
            done.set()
            if spinner is not None:
                spinner.join()
                self._print('\r\033[K', newline=False)
            symbol, ascii_symbol, colour = _SYMBOLS[state]
            symbol = click.style(self._symbol(symbol, ascii_symbol), fg=colour, bold=True)
            self._print(f'{symbol} {title}: {result} ({step.seconds:.1f} s)')

    def on_report(self, message: str) -> None:
        """Print a message of the running step, where no spinner shows it."""
        if not self._live:
            self._print(f'    {message}')

    def _symbol(self, symbol: str, ascii_symbol: str) -> str:
        return symbol if self._unicode else ascii_symbol

    def _print(self, text: str, newline: bool = True) -> None:
        click.echo(text, file=self._stream, nl=newline)

    def _spin(self, step: Step, done: threading.Event) -> None:
        for symbol in itertools.cycle(_FRAMES if self._unicode else _ASCII_FRAMES):
            text = f'{symbol} {step.title}{": " if step.message else ""}{step.message} ({step.seconds:.0f} s)'
            # A line that wraps could not be erased again.
            self._print('\r\033[K' + text[: shutil.get_terminal_size().columns - 1], newline=False)
            if done.wait(_INTERVAL):
                return
