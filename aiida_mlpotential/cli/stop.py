"""``aiida-mlpotential stop``: ask a running calculation to end in order, with what it has stored."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click
from aiida.cmdline.utils import echo

from aiida_mlpotential.calculations.monitors import STOP_EXTRA
from aiida_mlpotential.worker.schema import STOP_FILE

from .params import ProfileCommand, with_profile
from .tasks import LaunchTask, task_of

if TYPE_CHECKING:
    from aiida.orm import CalcJobNode


class StopError(click.ClickException):
    """The calculation cannot be asked to stop, with the reason."""


@click.command('stop', cls=ProfileCommand)
@click.argument('calculation', metavar='PK')
@with_profile
def stop(calculation: str) -> None:
    """Ask a running calculation to stop in order.

    The worker ends after the batch at hand and stores what it has: results of structures that are done, and a
    checkpoint of those under way. The results are retrieved as usual, and `launch ... --continue PK` goes on from
    there.
    """
    node, task = find_running(calculation)
    put_stop_file(node)
    node.base.extras.set(STOP_EXTRA, True)
    echo.echo_success(f'asked {node.process_label}<{node.pk}> to stop: it ends after the batch at hand.')
    echo.echo(
        f'Follow it with `aiida-mlpotential watch {node.pk}`; go on from there with '
        f'`aiida-mlpotential launch {task.command} --continue {node.pk}`.'
    )


def find_running(identifier: str) -> tuple[CalcJobNode, LaunchTask]:
    """Return a calculation of this plugin that runs, and its task.

    :raises StopError: if it is no such calculation, has ended, or has not started
    """
    from aiida import orm
    from aiida.common.exceptions import MultipleObjectsError, NotExistent

    try:
        node = orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError):
        raise StopError(f'there is no node {identifier!r}.') from None
    task = task_of(node) if isinstance(node, orm.CalcJobNode) else None
    if task is None or not isinstance(node, orm.CalcJobNode):
        kind = getattr(node, 'process_label', None) or type(node).__name__
        raise StopError(f'node {identifier} is no calculation of aiida-mlpotential, but a {kind}.')
    if node.is_terminated:
        raise StopError(f'calculation {node.pk} has ended already: there is nothing to stop.')
    if node.get_remote_workdir() is None or node.get_job_id() is None:
        raise StopError(
            f'calculation {node.pk} has not started yet: there is nothing to keep, end it with '
            f'`verdi process kill {node.pk}`.'
        )
    return node, task


def put_stop_file(node: CalcJobNode) -> None:
    """Put the file that the worker looks for into the work directory of a calculation.

    :raises StopError: if the computer cannot be reached, or the directory is gone
    """
    directory = str(node.get_remote_workdir())
    target = str(PurePosixPath(directory) / STOP_FILE)
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / STOP_FILE
        source.write_text('asked to stop by `aiida-mlpotential stop`\n')
        try:
            with node.get_authinfo().get_transport() as transport:
                if not transport.isdir(directory):
                    raise StopError(f'the work directory of calculation {node.pk} is gone: {directory}.')
                transport.putfile(str(source), target)
        except StopError:
            raise
        except Exception as exception:  # each transport plugin raises its own types
            label = node.computer.label if node.computer else ''
            raise StopError(f'the computer {label} cannot be reached: {exception}.') from exception
