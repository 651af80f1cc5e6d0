"""``aiida-mlpotential backends list``: what there is to install, and what is installed where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from aiida.cmdline.utils import echo

from aiida_mlpotential.installer.recipes import RECIPES
from aiida_mlpotential.worker.backends import BACKENDS
from aiida_mlpotential.worker.quantities import PROPERTIES

from .params import with_profile
from .tables import format_table

if TYPE_CHECKING:
    from aiida.orm import InstalledCode


@click.command('list')
@with_profile
def list_command() -> None:
    """List the backends, what they can compute, and where they are installed."""
    from aiida_mlpotential.installer.codes import find_codes

    rows = []
    for name, recipe in RECIPES.items():
        able = BACKENDS[name].properties if name in BACKENDS else frozenset()
        rows.append([name, recipe.version, ' '.join(item for item in PROPERTIES if item in able) or '-'])
    echo.echo(format_table(rows, ['Backend', 'Version', 'Properties']))
    codes = find_codes()
    if not codes:
        echo.echo('\nNone is installed: `aiida-mlpotential backends install BACKEND` makes an environment and a Code.')
        return
    for code in codes:
        echo.echo(f'\n{_describe(code)}')
    echo.echo('\nInstall another with `aiida-mlpotential backends install BACKEND`.')


def _describe(code: InstalledCode) -> str:
    """Return what is known about an environment and its Code, on lines that fit a terminal of 80 columns."""
    from aiida_mlpotential.installer.codes import environment_of

    facts = environment_of(code)
    state = 'ready' if facts.get('usable') else 'fails'
    checked = str(facts.get('checked')).replace('T', ' ').replace('+00:00', ' UTC')
    return f'{code.full_label}: {facts["backend"]} {facts["version"]}, {state}, checked {checked}\n    {facts["path"]}'
