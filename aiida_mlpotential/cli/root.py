"""The command ``aiida-mlpotential``: its subcommands are imported when they are called, and not before.

``import aiida`` alone makes a configuration directory in the home of the user. ``--help`` has no business there, and
``demo`` has to choose another directory first.
"""

from __future__ import annotations

import difflib
import importlib
from typing import NamedTuple

import click


class LazyCommand(NamedTuple):
    """Where a subcommand is defined, and the line that the help of the group says about it."""

    module: str
    attribute: str
    help: str


COMMANDS: dict[str, LazyCommand] = {
    'backends': LazyCommand('backends', 'backends', 'Install, check and remove the libraries of the backends.'),
    'demo': LazyCommand('demo', 'demo', 'Run a reaction with ANI-1ccx in an AiiDA profile of its own.'),
    'launch': LazyCommand('launch', 'launch', 'Launch calculations.'),
    'models': LazyCommand('models', 'models', 'List, install, import, export, inspect and stage models.'),
    'plot': LazyCommand('plot', 'plot', 'Draw a reaction, a screening, or the spread of results.'),
    'setup': LazyCommand('setup', 'setup', 'Make a computer and a code for this machine in your AiiDA profile.'),
    'stop': LazyCommand('stop', 'stop', 'Ask a running calculation to stop in order.'),
    'watch': LazyCommand('watch', 'watch', 'Show how far a calculation or workflow is.'),
}


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the subcommands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand; for an unknown name, fail with the most similar one."""
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            if ctx.resilient_parsing:
                return None
            close = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f'did you mean {close[0]!r}?' if close else f'choose from {", ".join(sorted(COMMANDS))}.'
            ctx.fail(f'{cmd_name!r} is no command of aiida-mlpotential; {hint}')
        command: click.Command = getattr(importlib.import_module(f'.{lazy.module}', __package__), lazy.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of subcommands without importing any."""
        with formatter.section('Commands'):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from aiida_mlpotential import __version__

        click.echo(f'aiida-mlpotential {__version__}')
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={'help_option_names': ['-h', '--help'], 'max_content_width': 110})
@click.option('--version', is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help='Show it.')
def main() -> None:
    """Energies, geometries, vibrations and thermochemistry from machine-learning potentials, with provenance by AiiDA.

    New here? `aiida-mlpotential demo` sets up everything that it needs on its own and runs a first calculation.
    """
