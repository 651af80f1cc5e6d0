"""``aiida-mlpotential models``: the pre-parameterised models, and those in the profile."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from aiida.cmdline.utils import echo

from aiida_mlpotential.worker.backends import BACKENDS

from .models_export import export_command
from .models_import import import_command
from .models_show import show
from .models_stage import stage, staged, unstage
from .params import ProfileGroup, sentence, with_profile
from .progress import Steps
from .tables import format_table

if TYPE_CHECKING:
    from aiida_mlpotential.data.model import ModelData

#: Of a model with more elements the list has their number; `models show` names them.
MAX_ELEMENTS = 8


@click.group('models', cls=ProfileGroup)
def models() -> None:
    """List, install, import, export, inspect and stage models."""


@models.command('list')
@with_profile
def list_models() -> None:
    """List the published models, and your own with their units; each has its PK, if it is in the profile."""
    from aiida_mlpotential import library

    rows, known = [], set()
    for model in library.list_models():
        node = library.find_model(model.name)
        if node is not None:
            known.add(node.uuid)
        facts = [model.name, ' '.join(model.elements), model.ensemble_size, model.method]
        rows.append([*facts, '-' if node is None else node.pk])
    echo.echo(format_table(rows, ['Published', 'Elements', 'Members', 'Method', 'PK'], right=(2, 4)))
    if any(row[-1] == '-' for row in rows):
        echo.echo('\nGet one that has no PK with `aiida-mlpotential models install NAME`.')
    own = [_own_row(node) for node in _own_models(known)]
    if not own:
        return
    headers = ['Your own', 'Backend', 'Elements', 'Members', 'Units', 'Trust', 'PK']
    if not any(row[5] for row in own):  # a column in which no model has anything says nothing
        headers.remove('Trust')
        own = [[*row[:5], row[6]] for row in own]
    echo.echo('\n' + format_table(own, headers, right=(3, len(headers) - 1)))
    if any('*' in row[4] for row in own):
        echo.echo('\n* assumed: neither the file nor whoever imported it said it.')


def _own_row(node: ModelData) -> list[str]:
    """Return what the list says of a model that was imported."""
    own = BACKENDS[node.backend_name].module == 'ase'  # whose units are eV and angstrom by definition
    units = ', '.join(
        f'{unit}*' if node.units_from.get(kind) == 'default' and not own else unit
        for kind, unit in (('energy', node.energy_unit), ('distance', node.distance_unit))
    )
    elements = 'any' if not node.elements else ' '.join(node.elements)
    if node.elements and len(node.elements) > MAX_ELEMENTS:
        elements = f'{len(node.elements)} elements'
    trust = 'trusted' if node.trusted else ''
    return [node.name, node.backend_name, elements, str(node.ensemble_size), units, trust, str(node.pk)]


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


for command in (show, import_command, export_command, stage, unstage, staged):
    models.add_command(command)
