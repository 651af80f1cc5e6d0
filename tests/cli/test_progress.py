"""Steps: plain lines, the spinner, and what a failure leaves on the screen."""

from __future__ import annotations

import io
import time

import pytest

from aiida_mlpotential.cli.progress import Steps


class Stream(io.StringIO):
    """A text stream that says it is UTF-8, and whether it is a terminal."""

    encoding = 'utf-8'

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def test_plain_lines() -> None:
    """Without a terminal there is a line when a step begins, for each message, and for the result."""
    stream = Stream()
    steps = Steps(stream)
    with steps.step('Model') as step:
        step.report('asking the directory')
        step.result = 'stored'
    first, message, last = stream.getvalue().splitlines()
    assert first == '· Model ...'
    assert message.strip() == 'asking the directory'
    assert last.startswith('✓ Model: stored (0.')
    assert '\r' not in stream.getvalue()
    assert steps.seconds >= 0


def test_failure_is_said_and_passed_on() -> None:
    """An exception ends the step as failed, and is not swallowed."""
    stream = Stream()
    with pytest.raises(ValueError, match='broken'), Steps(stream).step('Model') as step:
        step.result = 'stored'
        raise ValueError('broken')
    assert stream.getvalue().splitlines()[-1].startswith('✗ Model: failed')


def test_an_end_that_is_not_good() -> None:
    """A step may come to its end without the wanted result."""
    stream = Stream()
    with Steps(stream).step('Calculation') as step:
        step.result, step.state = 'Calculation<1> failed', 'failed'
    assert stream.getvalue().splitlines()[-1].startswith('✗ Calculation: Calculation<1> failed')


def test_spinner_on_a_terminal() -> None:
    """On a terminal the line is drawn again and again, with the latest message, and erased in the end."""
    stream = Stream(terminal=True)
    with Steps(stream).step('Model') as step:
        step.report('downloading')
        time.sleep(0.3)
    text = stream.getvalue()
    assert text.count('Model: downloading (0 s)') >= 2
    assert '⠋' in text
    assert '✓\x1b[0m Model: done' in text.rpartition('\r\033[K')[2]


def test_ascii_where_the_stream_knows_no_better() -> None:
    """A terminal without Unicode gets symbols that it can print."""

    class Ascii(Stream):
        encoding = 'ascii'

    stream = Ascii()
    with Steps(stream).step('Model'):
        pass
    assert stream.getvalue().isascii()
    assert stream.getvalue().splitlines()[0] == '- Model ...'
