"""``aiida-mlpotential models``: the pre-parameterised models, and those in the profile."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from aiida.cmdline.utils import echo

from .models_export import export_command
from .models_import import import_command
from .models_show import show
from .params import ProfileGroup, sentence, with_profile
from .progress import Steps
from .tables import format_table

if TYPE_CHECKING:
    from aiida_mlpotential.data.model import ModelData


@click.group('models', cls=ProfileGroup)
def models() -> None:
    """List, install, import, export and inspect models."""


@models.command('list')
@click.option('-a', '--all', 'show_all', is_flag=True, help='Also your own models, beside the published ones.')
@with_profile
def list_models(show_all: bool) -> None:
    """List the published models, and the PK of those in the profile."""
    from aiida_mlpotential import library

    rows = []
    known = set()
    for model in library.list_models():
        node = library.find_model(model.name)
        if node is not None:
            known.add(node.uuid)
        facts = [model.name, ' '.join(model.elements), model.ensemble_size, model.method, model.doi]
        rows.append([*facts, 'torchani', '', '-' if node is None else node.pk])
    if show_all:
        for node in _own_models(known):
            elements = ' '.join(node.elements) if node.elements else 'any'
            facts = [node.name, elements, node.ensemble_size, node.method, node.doi]
            rows.append([*facts, node.backend_name, 'trusted' if node.trusted else '', node.pk])
    headers = ['Name', 'Elements', 'Members', 'Method', 'DOI', 'Backend', 'Trust', 'PK']
    if not show_all:  # the published ones have one backend, and need no trust
        rows = [[*row[:5], row[-1]] for row in rows]
        headers = [*headers[:5], headers[-1]]
    echo.echo(format_table(rows, headers, right=(2, len(headers) - 1)))
    if any(row[-1] == '-' for row in rows):
        echo.echo('\nGet a model that has no PK with `aiida-mlpotential models install NAME`.')


@models.command('install')
@click.argument('names', metavar='NAME...', nargs=-1, required=True)
@click.option(
    '--from',
    'directory',
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help='Take the parameter files from this directory, and look nowhere else.',
)
@with_profile
def install(names: tuple[str, ...], directory: Path | None) -> None:
    """Store published models in the profile.

    The parameters are looked for in the directories of AIIDA_MLPOTENTIAL_MODELS, those of the configuration file
    (~/.config/aiida-mlpotential/config.json), the cache (~/.cache/aiida-mlpotential/models), on the Hugging Face
    hub and in a wheel on PyPI, which has ANI-1x and ANI-1ccx only. Their sha256 is checked against the registered
    one.
    """
    from aiida_mlpotential import library

    try:
        chosen = [library.resolve_name(name).name for name in names]
    except library.LibraryError as exception:
        raise click.ClickException(sentence(exception)) from exception
    steps = Steps()
    for name in dict.fromkeys(chosen):
        install_model(name, steps, directory)


def _own_models(known: set[str]) -> Iterable[ModelData]:
    from aiida import orm

    from aiida_mlpotential.data.model import ModelData

    query = orm.QueryBuilder().append(ModelData, tag='model').order_by({'model': {'id': 'asc'}})
    return (node for node in query.all(flat=True) if node.uuid not in known)


def install_model(name: str, steps: Steps, directory: Path | None = None) -> ModelData:
    """Return the node of a published model, fetched and stored if the profile has none yet, as one step."""
    from aiida_mlpotential import library

    sources = None if directory is None else (library.DirectorySource([directory]),)
    with steps.step(f'Model {name}') as step:
        there = library.find_model(name) is not None
        try:
            node = library.get_model(name, sources=sources, report=step.report)
        except library.LibraryError as exception:
            raise click.ClickException(sentence(exception)) from exception
        step.result = f'{"in the profile already" if there else "stored"}, PK {node.pk}'
        if there and directory is not None:
            step.result += f'; {directory} was not looked at'
    return node


for command in (show, import_command, export_command):
    models.add_command(command)
