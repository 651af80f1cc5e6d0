"""``aiida-mlpotential models import``: own parameter files into the profile."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from aiida.cmdline.utils import echo

from aiida_mlpotential.worker.backends import BACKENDS
from aiida_mlpotential.worker.units import DISTANCE_UNITS, ENERGY_UNITS

from .models_show import describe_node, show_remarks
from .params import sentence, with_profile
from .tables import format_table

if TYPE_CHECKING:
    from aiida_mlpotential.data.model import ModelData

_AUTO = 'Auto'
#: The backends whose files say by themselves that they are theirs.
_WITH_FILES = [name for name, entry in BACKENDS.items() if entry.module != 'ase']
_UNIT_HELP = 'Auto: what the file says, else the default of the backend.'


@click.command('import')
@click.argument('paths', metavar='[PATH]...', nargs=-1, type=click.Path(path_type=Path))
@click.option(
    '-b', '--backend', type=click.Choice(list(BACKENDS)), help='Library of the model; an exported one knows it.'
)
@click.option('-n', '--name', help='Name of the model. [default: that of the file]')
@click.option('--elements', metavar='H,C,O', help='Chemical symbols in the order of the model, where no file says it.')
@click.option(
    '--energy-unit',
    type=click.Choice([_AUTO, *ENERGY_UNITS], case_sensitive=False),
    metavar=f'[{"|".join([_AUTO, *ENERGY_UNITS])}]',
    default=_AUTO,
    show_default=True,
    help=f'Unit of its energies. {_UNIT_HELP}',
)
@click.option(
    '--distance-unit',
    type=click.Choice([_AUTO, *DISTANCE_UNITS], case_sensitive=False),
    metavar=f'[{"|".join([_AUTO, *DISTANCE_UNITS])}]',
    default=_AUTO,
    show_default=True,
    help=f'Unit of the distances that it expects. {_UNIT_HELP}',
)
@click.option('--licence', default='', help='Licence of the parameters.')
@click.option('--source', default='', help='Where the parameters came from.')
@click.option('--method', default='', help='Level of theory of the training data.')
@click.option('--doi', default='', help='Publication to cite.')
@click.option('--option', 'options', metavar='KEY=JSON', multiple=True, help='A key for the backend. Repeatable.')
@click.option(
    '--trust',
    'trusted',
    is_flag=True,
    help='Load the files even if that runs code in them, on the computer of each job. Recorded in the model.',
)
@with_profile
def import_command(paths: tuple[Path, ...], **arguments: Any) -> None:
    """Store own models in the profile: a parameter file, a directory, or an exported model.

    Several PATHs are the members of one committee. Elements, units and cutoff are read from the file where it has
    them; nothing in it is run. An exported model (`models export`) knows its backend. Without a PATH the model is
    that in the package of the backend, such as chgnet, or an ASE calculator without files (--option calculator=...).
    """
    from aiida_mlpotential import library
    from aiida_mlpotential.data.model import ModelInfo

    info = ModelInfo(**{key: arguments[key] for key in ('energy_unit', 'distance_unit', 'licence', 'source', 'method')})
    options = dict(parse_option(text) for text in arguments['options'])
    if arguments['backend'] is None and not (paths and all(library.is_export(path) for path in paths)):
        raise click.UsageError(f'--backend is needed for a parameter file: one of {", ".join(BACKENDS)}.')
    try:
        node = library.import_model(
            paths,
            backend=arguments['backend'],
            name=arguments['name'],
            elements=arguments['elements'],
            options=options,
            info=_with_doi(info, arguments['doi']),
            trusted=arguments['trusted'],
        )
        stored = node.get_or_store()
    except (ValueError, OSError) as exception:
        other = other_backend(paths, arguments['backend'])
        hint = f'{paths[0]} is a model of {other}: import it with `--backend {other}`.' if other else ''
        raise click.ClickException(hint or sentence(exception)) from exception
    _report(stored, node)


def _with_doi(info: Any, doi: str) -> Any:
    """Return the facts with a DOI, which may have been given as the address of its page."""
    return dataclasses.replace(info, doi=doi.strip().partition('doi.org/')[2] or doi.strip())


def other_backend(paths: Sequence[Path], backend: str | None) -> str:
    """Return the one backend that reads a file which the given one refused; nothing, if that is not the reason.

    So that nobody trusts a file which only has the wrong backend.
    """
    from aiida_mlpotential.worker.backends import get_backend
    from aiida_mlpotential.worker.backends.base import ModelFileError

    able = []
    for name in _WITH_FILES if paths else ():
        with contextlib.suppress(ModelFileError, OSError):
            if not get_backend(name).inspect(paths[0]).needs_trust:
                able.append(name)
    return able[0] if len(able) == 1 and able[0] != backend else ''


def parse_option(text: str) -> tuple[str, Any]:
    """Return key and value of an option for the backend.

    :raises click.BadParameter: if the value is no JSON
    """
    key, separator, value = text.partition('=')
    try:
        if not key.strip() or not separator:
            raise ValueError('there is no key and =')
        return key.strip(), json.loads(value)
    except ValueError as exception:
        raise click.BadParameter(
            f'{text!r} is not KEY=JSON, such as number=2 or word=\'"text"\' ({exception}).', param_hint='--option'
        ) from None


def _report(stored: ModelData, given: ModelData) -> None:
    """Print what is in the profile now: the imported node, or an earlier one, which does not change."""
    if stored.uuid == given.uuid:
        echo.echo_success(f'stored {stored.name} as ModelData<{stored.pk}>.')
    else:
        echo.echo_success(f'the same model is in the profile already: {stored.name}, ModelData<{stored.pk}>.')
    echo.echo(format_table(describe_node(stored)))
    show_remarks([*given.remarks, *_not_taken(stored, given)])
    echo.echo(f'\nUse it: `aiida-mlpotential launch single-point FILE --model {stored.pk}`.')


def _not_taken(stored: ModelData, given: ModelData) -> list[str]:
    """Return which of the given facts a node that was stored earlier has otherwise."""
    facts = {'name': 'name', 'licence': 'licence', 'source_text': 'source', 'method': 'method', 'doi': 'DOI'}
    others = [word for key, word in facts.items() if getattr(given, key) not in ('', getattr(stored, key))]
    if not others:
        return []
    return [f'a stored node does not change: {" and ".join(others)} were not taken, those above stay']
