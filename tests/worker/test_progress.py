"""Progress lines: rate, share and time left, not more often than asked."""

from __future__ import annotations

import io

from aiida_mlpotential.worker.progress import Progress, format_seconds


def test_lines_come_every_few_seconds_and_at_the_end():
    now, stream = [0.0], io.StringIO()
    progress = Progress(100, done=20, interval=5, stream=stream, clock=lambda: now[0])
    for now[0] in (1.0, 4.0, 6.0, 7.0, 8.0):
        progress.advance(16)
    lines = stream.getvalue().splitlines()
    assert lines == [
        'progress: 68/100 structures (68.0 %), 8 structures/s, 4 s left',
        'progress: 100/100 structures (100.0 %), 10 structures/s, 0 s left',
    ]


def test_durations_are_for_people():
    assert [format_seconds(value) for value in (3.4, 125, 7260)] == ['3 s', '2 min 05 s', '2 h 01 min']
