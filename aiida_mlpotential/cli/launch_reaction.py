"""``aiida-mlpotential launch reaction``: from files of educts and products to the Gibbs energy of their reaction."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from . import codes, params, running
from .files import read_structures, single_structure
from .inputs import find_model, scheduler_options
from .parameter_options import NUMBERS, collect_parameters
from .plot import check_plot, draw_node
from .reports import fail_unless_finished, warn_of_trust
from .reports_reaction import format_reaction

if TYPE_CHECKING:
    from aiida.orm import StructureData


class Species(NamedTuple):
    """A species as it is written on the command line: how many of which file."""

    number: float
    file: Path

    @property
    def name(self) -> str:
        """Return the name of the species: that of its file, as far as a link in the database may be called so."""
        name = re.sub(r'[\W_]+', '_', self.file.stem, flags=re.ASCII).strip('_')
        return name if name and name[0].isalpha() else f's_{name}'.rstrip('_')


class SpeciesType(click.ParamType):
    """A file, with the number of its molecules before it where that is not 1."""

    name = '[n:]file'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the species, or say what is wrong with the text."""
        if isinstance(value, Species):
            return value
        number, text = 1.0, value
        before, colon, after = value.partition(':')
        if colon and not Path(value).is_file():
            text = after
            try:
                number = float(before)
            except ValueError:
                self.fail(f'{before!r} before the colon is no number: write `2:o2.xyz` for two of them.', param, ctx)
        if not 0 < number < float('inf'):
            self.fail(f'{before} of {text!r} cannot react: the number must be above 0.', param, ctx)
        if not Path(text).is_file():
            self.fail(f'there is no file {text!r}.', param, ctx)
        return Species(number, Path(text))


class Named(click.ParamType):
    """The name of a species and a whole number."""

    name = 'name=number'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return name and number."""
        if not isinstance(value, str):
            return value
        name, _, number = value.partition('=')
        if not name or not number.isdigit():
            self.fail(f'{value!r} is not a name, =, and a whole number, such as `o2=3`.', param, ctx)
        return name, int(number)


_SPECIES = {
    'educts': ('--educt', 'What reacts: a file with one molecule, after a number and a colon if there are more.'),
    'products': ('--product', 'What comes of it, in the same way.'),
}


def _species_options(command: Any) -> Any:
    for name, (flag, text) in reversed(_SPECIES.items()):
        option = click.option(
            flag, name, type=SpeciesType(), multiple=True, required=True, help=f'{text} Repeat it for each.'
        )
        command = option(command)
    return command


@click.command('reaction')
@_species_options
@params.MODEL
@params.CODE
@running.PROTOCOL
@click.option(
    '--temperature',
    'temperatures',
    type=NUMBERS,
    multiple=True,
    help='Temperatures (K), with commas between them. [default: those of the protocol]',
)
@click.option('--gas-pressure', type=float, help='Pressure (Pa). [default: 101325]')
@click.option(
    '--spin-multiplicity',
    'spin_multiplicities',
    type=Named(),
    multiple=True,
    help='Multiplicity of a species by its name, such as `o2=3`. Repeat it for each. [default: 1]',
)
@click.option(
    '--symmetry-number',
    'symmetry_numbers',
    type=Named(),
    multiple=True,
    help='Symmetry number of a species by its name; one for all or for none. [default: from the point groups]',
)
@running.DAEMON
@running.queue_options
@click.option('--plot', type=click.Path(path_type=Path), help='Also draw the reaction. [default: none]')
@click.option('--overwrite', is_flag=True, help='Replace the file of --plot if there is one.')
@params.with_profile
def reaction(**arguments: Any) -> None:
    """Compute the Gibbs energy of a reaction with its spread.

    All species are optimized in one job; a second one computes frequencies and thermochemistry. Saddle points are left
    along their imaginary modes.

    Example: --educt ch4.xyz --educt 2:o2.xyz --product co2.xyz --product 2:h2o.xyz --spin-multiplicity o2=3
    """
    if arguments['daemon'] and arguments['plot'] is not None:
        raise click.UsageError('--plot needs the results, for which --daemon does not wait.')
    if arguments['daemon']:
        running.check_daemon()
    if arguments['plot'] is not None:
        check_plot(arguments['plot'], arguments['overwrite'])
    builder = _make_builder(arguments)
    if arguments['daemon']:
        running.submit_workflow(builder)
        return
    species = ' and '.join(_names(arguments[side]) for side in _SPECIES)
    node = running.run_workflow(builder, f'Reaction of {species} with {builder.model.name}')
    if 'reaction' in node.outputs:
        click.echo(format_reaction(node.outputs.reaction.get_dict()))
        click.echo(
            f'\nAll numbers are in Dict<{node.outputs.reaction.pk}>; draw it: `aiida-mlpotential plot {node.pk}`.'
        )
        if arguments['plot'] is not None:
            draw_node(node, arguments['plot'], overwrite=arguments['overwrite'])
    fail_unless_finished(node)


def _names(species: tuple[Species, ...]) -> str:
    return ', '.join(item.name for item in species)


def _make_builder(arguments: dict[str, Any]) -> Any:
    """Return the builder of the workflow."""
    from aiida_mlpotential.data.stoichiometry import validate_stoichiometry
    from aiida_mlpotential.workflows.reaction import ReactionWorkChain

    coefficients, structures = _collect(arguments)
    message = validate_stoichiometry(coefficients)
    if message:
        raise click.ClickException(message)
    given = {name: arguments[name] for name in ('temperatures', 'gas_pressure')}
    parameters = collect_parameters(given, 'thermochemistry')
    model = find_model(arguments['model'])
    code = codes.find_code(arguments['code'], model.backend_name)
    warn_of_trust(model)
    builder: Any = ReactionWorkChain.get_builder_from_protocol(
        code,
        model,
        structures,
        coefficients,
        protocol=arguments['protocol'],
        overrides={'thermochemistry': {'calc': {'parameters': parameters}}},
        options=scheduler_options(arguments),
    )
    builder.metadata.label = _names((*arguments['educts'], *arguments['products']))
    for name in ('spin_multiplicities', 'symmetry_numbers'):
        if arguments[name]:
            builder[name] = dict(arguments[name])
    return builder


def _collect(arguments: dict[str, Any]) -> tuple[dict[str, float], dict[str, StructureData]]:
    """Return coefficients and structures by the names of the species."""
    coefficients: dict[str, float] = {}
    files: dict[str, Path] = {}
    for side, sign in (('educts', -1.0), ('products', 1.0)):
        for item in arguments[side]:
            if files.setdefault(item.name, item.file).resolve() != item.file.resolve():
                raise click.UsageError(
                    f'{files[item.name]} and {item.file} would both be the species {item.name}: rename one of them.'
                )
            coefficients[item.name] = coefficients.get(item.name, 0.0) + sign * item.number
    structures = {}
    for name, file in files.items():
        found = read_structures(file, ':', None)
        if len(found) > 1:
            raise click.ClickException(f'{file} holds {len(found)} structures: a species is a file with one.')
        structures[name] = single_structure(found, file)
    return coefficients, structures
