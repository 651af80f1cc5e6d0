"""``aiida-mlpotential models export``: a model as one file to pass on."""

from __future__ import annotations

from pathlib import Path

import click
from aiida.cmdline.utils import echo

from .models_show import resolve_stored
from .params import sentence, with_profile


@click.command('export')
@click.argument('model', metavar='NAME|PK|UUID')
@click.argument('path', required=False, type=click.Path(path_type=Path))
@click.option('-f', '--force', is_flag=True, help='Replace the file if there is one.')
@with_profile
def export_command(model: str, path: Path | None, force: bool) -> None:
    """Write a model with its facts to a zip archive, which `models import` takes.

    PATH is the archive, or a directory for it. [default: NAME.zip in the working directory] It has the parameter
    files as they were imported. That somebody trusts them is not part of it: whoever imports it decides anew.
    """
    from aiida_mlpotential import library

    node = resolve_stored(model)
    try:
        target = library.export_model(node, path, overwrite=force)
    except (ValueError, OSError) as exception:
        raise click.ClickException(sentence(exception)) from exception
    echo.echo_success(f'wrote {node.name} to {target}.')
    if node.trusted:
        echo.echo(f'Loading it may run code: {node.trust_reason}. To import it again takes `--trust`.')
