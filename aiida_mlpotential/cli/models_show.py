"""What a terminal shows of one model: what it is, where it came from, and what used it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from aiida.cmdline.utils import echo

from aiida_mlpotential.worker.registry import PretrainedModel

from .params import sentence, with_profile
from .tables import format_table

if TYPE_CHECKING:
    from aiida_mlpotential.data.model import ModelData

#: So many of the latest processes that used a model are listed.
MAX_USES = 10
_MAX_OPTION = 200
_ORIGINS = {'user': 'as given', 'file': 'from the file', 'default': 'default of the backend'}


@click.command('show')
@click.argument('model', metavar='NAME|PK|UUID')
@with_profile
def show(model: str) -> None:
    """Show what is known about a model, and where it was used."""
    from aiida_mlpotential import library

    found = resolve_model(model)
    node = library.find_model(found.name) if isinstance(found, PretrainedModel) else found
    if node is not None:
        echo.echo(format_table(describe_node(node)))
        if node.files:
            echo.echo('\n' + format_table(_file_rows(node), ['File', 'sha256']))
        _show_uses(node)
        show_remarks(node.remarks)
    elif isinstance(found, PretrainedModel):
        echo.echo(format_table(describe_published(found)))
        echo.echo(f'\nNot in the profile: `aiida-mlpotential models install {found.name}`.')


def show_remarks(remarks: list[str]) -> None:
    """Print what the file of a model said beside the facts, as one block."""
    if remarks:
        echo.echo('\n' + '\n'.join(f'Note: {remark}.' for remark in remarks))


def resolve_model(identifier: str) -> PretrainedModel | ModelData:
    """Return a published model by name, or a node by PK or UUID; for anything else, say what there is."""
    from aiida import orm
    from aiida.common.exceptions import MultipleObjectsError, NotExistent

    from aiida_mlpotential import library
    from aiida_mlpotential.data.model import ModelData

    try:
        return library.resolve_name(identifier)
    except library.LibraryError as exception:
        message = f'{sentence(exception)} Your own have a PK: `aiida-mlpotential models list`.'
    try:
        node = orm.load_node(identifier)
    except MultipleObjectsError:
        raise click.ClickException(
            f'there are several nodes {identifier!r}: give the PK, which `aiida-mlpotential models list` has.'
        ) from None
    except (NotExistent, ValueError):
        raise click.ClickException(message) from None
    if not isinstance(node, ModelData):
        raise click.ClickException(f'node {identifier} is of type {type(node).__name__}, not ModelData.')
    return node


def resolve_stored(identifier: str) -> ModelData:
    """Return the node of a model by name, PK or UUID; a published one must be in the profile."""
    from aiida_mlpotential import library

    found = resolve_model(identifier)
    if not isinstance(found, PretrainedModel):
        return found
    node = library.find_model(found.name)
    if node is None:
        raise click.ClickException(
            f'{found.name} is not in the profile: get it with `aiida-mlpotential models install {found.name}`.'
        )
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
    """Return what a node knows about its model."""
    members = f'{node.ensemble_size}, a committee of separate files' if node.committee else node.ensemble_size
    rows = [
        ('Name', node.name),
        ('Backend', node.backend_name),
        ('Elements', ' '.join(node.elements) if node.elements else 'any'),
        ('Members', members),
        ('Energy unit', _unit(node, 'energy')),
        ('Distance unit', _unit(node, 'distance')),
        ('Cutoff', None if node.cutoff is None else f'{node.cutoff:g} angstrom'),
        *((f'Option {key}', _option(key, value)) for key, value in sorted(node.options.items())),
        ('Method', node.method),
        ('DOI', node.doi),
        ('Licence', node.licence),
        ('Source', node.source_text),
        ('Trusted', _trust(node)),
        ('sha256', node.sha256),
        ('PK', node.pk),
        ('UUID', node.uuid),
    ]
    return [(name, value) for name, value in rows if value]


def _unit(node: ModelData, kind: str) -> str:
    unit, origin = getattr(node, f'{kind}_unit'), _ORIGINS.get(node.units_from.get(kind, ''))
    return f'{unit} ({origin})' if origin else str(unit)


def _option(key: str, value: Any) -> str:
    """Return the value of an option on one line; atoms by their symbols."""
    from ase.data import chemical_symbols

    text = json.dumps(value, sort_keys=True)
    if key == 'atom_order' and isinstance(value, list):
        known = all(isinstance(number, int) and 0 < number < len(chemical_symbols) for number in value)
        text = ' '.join(chemical_symbols[number] for number in value) if known else text
    return text if len(text) <= _MAX_OPTION else f'{text[: _MAX_OPTION - 3]}...'


def _trust(node: ModelData) -> str:
    return f'yes, its files may run code: {node.trust_reason}'.rstrip(': ') if node.trusted else ''


def _file_rows(node: ModelData) -> list[list[str]]:
    names = node.original_names
    return [[f'{file} (was {names[file]!r})' if file in names else file, sha] for file, sha in node.files.items()]


def _show_uses(node: ModelData) -> None:
    """Print how many processes used a model, and the latest of them."""
    from aiida import orm

    query = orm.QueryBuilder().append(type(node), filters={'id': node.pk}, tag='model')
    query.append(orm.ProcessNode, with_incoming='model', tag='process')
    query.order_by({'process': {'id': 'desc'}}).distinct()
    number = query.count()
    echo.echo(f'\nUsed by {number} {"process" if number == 1 else "processes"}.')
    if not number:
        return
    rows = [
        [
            process.pk,
            process.process_label or type(process).__name__,
            _state(process),
            f'{process.ctime:%Y-%m-%d %H:%M}',
        ]
        for process in query.limit(MAX_USES).all(flat=True)
    ]
    heading = f'The latest {len(rows)}:' if number > len(rows) else ''
    echo.echo(f'{heading}\n' + format_table(rows, ['PK', 'Process', 'State', 'Created'], right=(0,)))


def _state(process: Any) -> str:
    state = str(getattr(process.process_state, 'value', None) or 'created')
    return f'{state} [{process.exit_status}]' if process.is_finished else state
