"""``aiida-mlpotential plot``: a picture of a reaction, of a screening, or of the spread of any results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import params

if TYPE_CHECKING:
    from aiida.orm import Node

    from aiida_mlpotential.plots.nodes import Options

_KINDS = ('reaction', 'spread', 'energies')


@click.command('plot', cls=params.ProfileCommand)
@click.argument('identifier', metavar='PK')
@click.option(
    '-k',
    '--kind',
    type=click.Choice(_KINDS),
    help='`reaction`: levels with error bars; `spread`: its histogram; `energies`: against the spread. '
    '[default: the first that there is]',
)
@click.option(
    '-o',
    '--output',
    type=click.Path(path_type=Path),
    help='The file; its suffix says the format, such as png, svg or pdf. [default: KIND-PK.png]',
)
@click.option('--overwrite', is_flag=True, help='Replace the file if there is one.')
@click.option('--temperature', type=float, help='Temperature (K) of the levels of a reaction. [default: the first]')
@click.option('--threshold', type=float, help='Spread (eV, std/√atoms) above which structures are counted.')
@params.with_profile
def plot(
    identifier: str,
    kind: str | None,
    output: Path | None,
    overwrite: bool,
    temperature: float | None,
    threshold: float | None,
) -> None:
    """Draw a stored node: PK of a reaction, a screening, a calculation or its results."""
    from aiida import orm
    from aiida.common.exceptions import MultipleObjectsError, NotExistent

    from aiida_mlpotential.plots.nodes import Options

    try:
        node = orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError):
        raise click.BadParameter(f'there is no node {identifier!r}.', param_hint='PK') from None
    draw_node(node, output, kind, Options(temperature, threshold), overwrite)


def check_plot(path: Path, overwrite: bool = False) -> None:
    """Raise, before anything is computed, if a picture could or should not be written to a file."""
    from aiida_mlpotential.plots.figures import PlotError, check_suffix

    if path.exists() and not overwrite:
        raise click.BadParameter(f'{path} exists: add --overwrite, or name another file.')
    try:
        check_suffix(path)
    except PlotError as exception:
        raise click.BadParameter(params.sentence(exception)) from exception


def draw_node(
    node: Node,
    output: Path | None,
    kind: str | None = None,
    options: Options | None = None,
    overwrite: bool = False,
) -> None:
    """Write a picture of a node to a file, and say where it is and which others there would be."""
    from aiida_mlpotential.plots.figures import PlotError, save
    from aiida_mlpotential.plots.nodes import draw, kinds_of

    names = [item.name for item in kinds_of(node)]
    name = kind or (names[0] if names else None)
    path = output or Path(f'{name}-{node.pk}.png')
    check_plot(path, overwrite)
    try:
        save(draw(node, name, options), path)
    except PlotError as exception:
        raise click.ClickException(params.sentence(exception)) from exception
    others = [item for item in names if item != name]
    more = f' There is also `--kind {"` and `--kind ".join(others)}`.' if others else ''
    click.echo(f'Wrote {path}.{more}')
