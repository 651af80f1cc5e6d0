"""``aiida-mlpotential models import``: own parameter files into the profile."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from aiida.cmdline.utils import echo

from aiida_mlpotential.worker.backends import BACKENDS
from aiida_mlpotential.worker.units import DISTANCE_UNITS, ENERGY_UNITS

from .models_show import describe_node
from .params import sentence, with_profile
from .tables import format_table

if TYPE_CHECKING:
    from aiida_mlpotential.data.model import ModelData

_AUTO = 'Auto'
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
    default=_AUTO,
    show_default=True,
    help=f'Unit of its energies. {_UNIT_HELP}',
)
@click.option(
    '--distance-unit',
    type=click.Choice([_AUTO, *DISTANCE_UNITS], case_sensitive=False),
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
        raise click.ClickException(sentence(exception)) from exception
    _report(stored, new=stored.uuid == node.uuid, remarks=node.remarks)


def _with_doi(info: Any, doi: str) -> Any:
    """Return the facts with a DOI, which may have been given as the address of its page."""
    return dataclasses.replace(info, doi=doi.strip().partition('doi.org/')[2] or doi.strip())


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


def _report(node: ModelData, new: bool, remarks: list[str]) -> None:
    if new:
        echo.echo_success(f'stored {node.name} as ModelData<{node.pk}>.')
    else:
        echo.echo_success(f'the same model is in the profile already: {node.name}, ModelData<{node.pk}>.')
    echo.echo(format_table(describe_node(node)))
    for remark in remarks:
        echo.echo(f'\nNote: {remark}.')
    echo.echo(f'\nUse it: `aiida-mlpotential launch single-point FILE --model {node.pk}`.')
