"""``aiida-mlpotential models``: the pre-parameterised models, and those in the profile."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from aiida.cmdline.utils import echo

from aiida_mlpotential.worker.registry import PretrainedModel

from .params import ProfileGroup, sentence, with_profile
from .progress import Steps
from .tables import format_table

if TYPE_CHECKING:
    from aiida_mlpotential.data.model import ModelData


@click.group('models', cls=ProfileGroup)
def models() -> None:
    """List, install and inspect pre-parameterised models."""


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
        installed = '-' if node is None else node.pk
        rows.append([model.name, ' '.join(model.elements), model.ensemble_size, model.method, model.doi, installed])
    if show_all:
        for node in _own_models(known):
            elements = ' '.join(node.elements) if node.elements else 'any'
            rows.append([node.name, elements, node.ensemble_size, node.method, node.doi, node.pk])
    echo.echo(format_table(rows, ['Name', 'Elements', 'Members', 'Method', 'DOI', 'PK'], right=(2, 5)))
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


@models.command('show')
@click.argument('model', metavar='NAME|PK|UUID')
@with_profile
def show(model: str) -> None:
    """Show what is known about a model, and where it was used."""
    from aiida_mlpotential import library

    found = resolve_model(model)
    node = library.find_model(found.name) if isinstance(found, PretrainedModel) else found
    if node is not None:
        echo.echo(format_table(describe_node(node)))
    elif isinstance(found, PretrainedModel):
        echo.echo(format_table(describe_published(found)))
        echo.echo(f'\nNot in the profile: `aiida-mlpotential models install {found.name}`.')


def resolve_model(identifier: str) -> PretrainedModel | ModelData:
    """Return a published model by name, or a node by PK or UUID; for anything else, say what there is."""
    from aiida import orm
    from aiida.common.exceptions import MultipleObjectsError, NotExistent

    from aiida_mlpotential import library
    from aiida_mlpotential.data.model import ModelData

    try:
        return library.resolve_name(identifier)
    except library.LibraryError as exception:
        message = f'{sentence(exception)} Your own have a PK: `aiida-mlpotential models list --all`.'
    try:
        node = orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError):
        raise click.ClickException(message) from None
    if not isinstance(node, ModelData):
        raise click.ClickException(f'node {identifier} is of type {type(node).__name__}, not ModelData.')
    return node


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


def describe_published(model: PretrainedModel) -> list[tuple[str, Any]]:
    """Return what the registry knows about a model that is not in the profile."""
    return [
        ('Name', model.name),
        ('Elements', ' '.join(model.elements)),
        ('Members', model.ensemble_size),
        ('Method', model.method),
        ('DOI', model.doi),
        ('Licence', model.licence),
        ('sha256', model.sha256),
    ]


def describe_node(node: ModelData) -> list[tuple[str, Any]]:
    """Return what a node knows about its model, and the number of calculations that used it."""
    rows = [
        ('Name', node.name),
        ('Backend', node.backend_name),
        ('Elements', ' '.join(node.elements) if node.elements else 'any'),
        ('Members', node.ensemble_size),
        ('Method', node.method),
        ('DOI', node.doi),
        ('Licence', node.licence),
        ('Source', node.source_text),
        ('Units', f'{node.energy_unit}, {node.distance_unit}'),
        ('sha256', node.sha256),
        ('PK', node.pk),
        ('UUID', node.uuid),
        ('Used by', _count_uses(node)),
    ]
    return [(name, value) for name, value in rows if value]


def _count_uses(node: ModelData) -> str:
    from aiida import orm

    query = orm.QueryBuilder().append(type(node), filters={'id': node.pk}, tag='model')
    number = query.append(orm.CalcJobNode, with_incoming='model').count()
    return f'{number} calculation{"" if number == 1 else "s"}'
