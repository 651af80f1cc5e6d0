"""``aiida-mlpotential watch``: how far a process is, from the database alone."""

from __future__ import annotations

import itertools
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from . import failures, reports
from .params import ProfileCommand, with_profile

if TYPE_CHECKING:
    from aiida_mlpotential.queries.progress import Progress, SliceProgress

_MAX_WIDTH = 110
#: Shown in this order, those that there are.
_PHASES = ('done', 'running', 'queued', 'paused', 'failed')


@click.command('watch', cls=ProfileCommand)
@click.argument('process', metavar='PK')
@click.option('--once', is_flag=True, help='Print the state once and return at once.')
@click.option(
    '--interval',
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help='Seconds from one look at the database to the next.',
)
@with_profile
def watch(process: str, once: bool, interval: float) -> None:
    """Show how far a calculation or workflow is, until it ends.

    Slices are the parts into which a screening takes a set of structures; a calculation of its own is one slice. While
    a job is on its computer only its state is known: its structures count when it has ended. Nothing but the database
    is read, so that this costs a cluster nothing; Ctrl-C ends the display and not the process.

    The exit status is 1 if the process has ended and not well, else 0.
    """
    pk = load_process(process)
    progress = _follow(pk, interval, once)
    if progress.is_terminated and not progress.is_successful:
        for line in _causes(pk):
            click.echo(line)
        raise click.exceptions.Exit(1)


def load_process(identifier: str) -> int:
    """Return the PK of a process; for any other node, say what it is."""
    from aiida import orm
    from aiida.common.exceptions import MultipleObjectsError, NotExistent

    try:
        node = orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError):
        raise click.ClickException(f'there is no node {identifier!r}.') from None
    if not isinstance(node, orm.ProcessNode):
        creator = node.creator if isinstance(node, orm.Data) else None
        hint = '' if creator is None else f': watch the process that made it, {creator.pk}'
        raise click.ClickException(f'node {identifier} is no process, but a {type(node).__name__}{hint}.')
    assert node.pk is not None  # noqa: S101 - for the type checker; it was loaded
    return node.pk


def _causes(pk: int) -> list[str]:
    """Return why structures of a process failed that has ended."""
    from aiida import orm

    node = orm.load_node(pk)
    return [f'{line}.' for line in failures.describe_failures(node)] if isinstance(node, orm.ProcessNode) else []


def _follow(pk: int, interval: float, once: bool) -> Progress:
    """Show the progress again and again, on a terminal in place, elsewhere when it has changed; return the last."""
    from aiida_mlpotential.queries.progress import progress_of

    in_place = click.get_text_stream('stdout').isatty() and not once
    shown: list[str] = []
    while True:
        progress = progress_of(pk)
        lines = list(format_progress(progress, _width())) if in_place or once else [one_line(progress)]
        if in_place:
            lines = [line[: _width()] for line in lines]  # one that wraps could not be erased again
            if shown:  # back to the first of the lines, and erase them
                click.echo(f'\033[{len(shown)}F\033[J', nl=False, color=True)
        if in_place or lines != shown:
            click.echo('\n'.join(lines))
            shown = lines
        if once or progress.is_terminated:
            return progress
        time.sleep(interval)


def _width() -> int:
    return min(shutil.get_terminal_size().columns - 1, _MAX_WIDTH)


def format_progress(progress: Progress, width: int) -> Iterator[str]:
    """Yield the lines that show a progress: the process, a bar, slices by phase, and each of several parts."""
    yield _title(progress)
    yield _bar(progress, width)
    yield f'slices: {_phases(progress)}'
    if progress.failed:
        yield f'structures that failed: {progress.failed}'
    if progress.plan.get('reused_slices'):
        reused = progress.plan['reused_slices']
        yield f'taken from the database: {reused} slice{"" if reused == 1 else "s"}'
    parts = _parts(progress.slices)
    if len(parts) > 1:
        yield from (f'  {name}: {done} of {total}' for name, (done, total) in parts.items())


def one_line(progress: Progress) -> str:
    """Return a progress as a line, which is the same as long as nothing has happened."""
    failed = f', {progress.failed} failed' if progress.failed else ''
    return (
        f'{_title(progress)}: {progress.done} of {reports.count(progress.total)}{failed}; slices: {_phases(progress)}'
    )


def _title(progress: Progress) -> str:
    state = progress.state
    if progress.paused and not progress.is_terminated:
        state = f'paused, `verdi process play {progress.pk}` goes on'
    elif progress.is_terminated and progress.exit_status is not None:
        state = f'{state} [{progress.exit_status}]'
    message = f': {progress.exit_message.rstrip(".")}' if progress.exit_message else ''
    return f'{progress.label}<{progress.pk}> {state}{message}'


def _phases(progress: Progress) -> str:
    from aiida_mlpotential.queries.progress import Phase

    numbers = {name: progress.count(Phase(name)) for name in _PHASES}
    found = [f'{number} {name}' for name, number in numbers.items() if number]
    return f'{", ".join(found) or "none yet"} (of {progress.n_slices})' if progress.n_slices else 'none yet'


def _bar(progress: Progress, width: int) -> str:
    """Return a bar with the numbers of structures, the time so far, the rate and the time that is left."""
    from tqdm import tqdm

    share = progress.done / progress.total if progress.total else 0.0
    rate, left = progress.rate, progress.seconds_left
    numbers = f'{progress.done}/{progress.total} structures, {format_seconds(progress.seconds)}'
    if rate is not None:
        numbers += f', {rate:.3g}/s'
    if left is not None:
        numbers += f', about {format_seconds(left)} left' if left else ', all done, ending'
    # Truncated, so that 100% means all.
    percent = math.floor(100 * share)
    bar: str = tqdm.format_meter(
        progress.done,
        max(progress.total, 1),
        progress.seconds,
        ncols=width,
        bar_format=f'{percent:3d}%|{{bar}}| {numbers}',
    )
    return bar


def format_seconds(seconds: float) -> str:
    """Return a time as a person says it, in its two largest units."""
    rest = round(seconds)
    parts: list[str] = []
    for unit, length in (('d', 86400), ('h', 3600), ('min', 60), ('s', 1)):
        number, rest = divmod(rest, length)
        if number or (unit == 's' and not parts):
            parts.append(f'{number} {unit}')
    return ' '.join(parts[:2])


def _parts(slices: Sequence[SliceProgress]) -> dict[str, tuple[int, int]]:
    """Return the structures done and in total of each task with each model."""
    names = [f'{item.task.replace("_", " ")} with {item.model}' for item in slices]
    pairs = sorted(zip(names, slices, strict=True), key=lambda pair: names.index(pair[0]))
    return {
        name: (sum(item.done for _, item in group), sum(item.size for _, item in group))
        for name, group in ((key, list(items)) for key, items in itertools.groupby(pairs, key=lambda pair: pair[0]))
    }
