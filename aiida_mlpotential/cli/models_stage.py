"""``aiida-mlpotential models stage``, ``unstage`` and ``staged``: copies of models on computers, for all jobs there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from aiida.cmdline.params import options, types
from aiida.cmdline.utils import echo

from .models_show import resolve_stored
from .params import with_profile
from .tables import format_table

if TYPE_CHECKING:
    from aiida.orm import Computer

    from aiida_mlpotential.queries.staged import StagedModel

COMPUTER = options.COMPUTER(type=types.ComputerParamType(), help='Only on this computer.')


@click.command('stage')
@click.argument('model', metavar='NAME|PK|UUID')
@options.COMPUTER(type=types.ComputerParamType(), required=True, help='Where to.')
@with_profile
def stage(model: str, computer: Computer) -> None:
    """Copy the files of a model to a computer, once for all later jobs there.

    Jobs link the copy, check the sha256 of its files, and bring no model themselves. Workflows do this on their own.
    """
    from aiida.engine import run_get_node

    from aiida_mlpotential.calculations.stage_model import StageModelCalculation, validate_model
    from aiida_mlpotential.queries.staged import find_staged

    node = resolve_stored(model)
    message = validate_model(node, None)
    if message:
        raise click.ClickException(message)
    there = find_staged(node, computer)
    if there is not None:
        echo.echo_success(f'{node.name} is on {computer.label} already: {there.get_remote_path()}.')
        return
    if not computer.is_configured:
        raise click.ClickException(
            f'the computer {computer.label} is not configured: run `verdi computer configure '
            f'{computer.transport_type} {computer.label}`.'
        )
    _, job = run_get_node(StageModelCalculation, model=node, metadata={'computer': computer})
    if not job.is_finished_ok:
        raise click.ClickException(
            f'the copy failed: see `verdi process report {job.pk}`, and try `verdi computer test {computer.label}`.'
        )
    echo.echo_success(f'{node.name} is on {computer.label}: {job.outputs.remote_folder.get_remote_path()}.')


@click.command('unstage')
@click.argument('model', metavar='NAME|PK|UUID')
@COMPUTER
@click.option('-f', '--force', is_flag=True, help='Also where unfinished jobs link the copy, which then fail.')
@with_profile
def unstage(model: str, computer: Computer | None, force: bool) -> None:
    """Remove the copies of a model from computers, also those that turned out broken."""
    from aiida_mlpotential.queries.staged import jobs_linking, list_staged

    node = resolve_stored(model)
    copies = list_staged(node, computer)
    if not copies:
        where = f'on {computer.label}' if computer is not None else 'on any computer'
        echo.echo_report(f'there is no copy of {node.name} {where}.')
    for copy in copies:
        jobs = jobs_linking(copy.folder, unfinished=True)
        if jobs and not force:
            raise click.ClickException(
                f'{len(jobs)} unfinished jobs link the copy on {copy.computer.label}, the first is {jobs[0]}: '
                'wait for them, or give --force.'
            )
        _remove(copy)
        echo.echo_success(f'removed {copy.folder.get_remote_path()} on {copy.computer.label}.')


def _remove(copy: StagedModel) -> None:
    """Remove a copy from its computer, and note that it is gone."""
    from aiida_mlpotential.queries.staged import is_work_directory

    path = copy.folder.get_remote_path()
    if not is_work_directory(copy.folder):
        raise click.ClickException(
            f'{path} on {copy.computer.label} is not the work directory of the job that made the copy: look at it, and '
            'remove it by hand.'
        )
    try:
        with copy.computer.get_transport() as transport:
            if transport.path_exists(path):
                transport.rmtree(path)
    except Exception as exception:  # each transport plugin raises its own types
        raise click.ClickException(f'{path} on {copy.computer.label} cannot be removed: {exception}') from exception
    copy.folder.base.extras.set(copy.folder.KEY_EXTRA_CLEANED, True)


@click.command('staged')
@COMPUTER
@with_profile
def staged(computer: Computer | None) -> None:
    """List the copies of models on computers."""
    from aiida_mlpotential.queries.staged import jobs_linking, list_staged

    copies = list_staged(computer=computer)
    if not copies:
        echo.echo_report('there is no copy of a model on any computer: `aiida-mlpotential models stage` makes one.')
        return
    rows = [
        [
            copy.model.name,
            copy.model.pk,
            copy.computer.label,
            len(jobs_linking(copy.folder)),
            'broken' if copy.broken else 'sound',
            copy.folder.get_remote_path(),
        ]
        for copy in copies
    ]
    echo.echo(format_table(rows, ['Model', 'PK', 'Computer', 'Jobs', 'State', 'Folder'], right=(1, 3)))
