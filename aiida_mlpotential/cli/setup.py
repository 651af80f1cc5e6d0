"""``aiida-mlpotential setup``: a computer and a Code for this machine, made once."""

from __future__ import annotations

import click
from aiida.cmdline.utils import echo

from . import codes
from .params import ProfileCommand, with_profile


@click.command('setup', cls=ProfileCommand)
@click.option(
    '-Y',
    '--computer',
    'computer_label',
    metavar='LABEL',
    default=codes.COMPUTER_LABEL,
    show_default=True,
    help='Computer to run on. `localhost` is made where it does not exist; any other must be there.',
)
@click.option(
    '-X',
    '--code',
    'code_label',
    metavar='LABEL',
    default=codes.CODE_LABEL,
    show_default=True,
    help='Label of the Code, without the name of the computer.',
)
@click.option(
    '--python',
    metavar='PATH',
    help='Absolute path of a Python on that computer that has torchani. [default: the one that runs this command]',
)
@with_profile
def setup(computer_label: str, code_label: str, python: str | None) -> None:
    """Make a computer and a Code for machine-learning potentials in your AiiDA profile.

    What exists already is left as it is. The interpreter is run once, to see whether it can import the backend.
    """
    if python is not None and not python.startswith('/'):
        raise click.BadParameter(f'{python!r} is not an absolute path.', param_hint='--python')
    if '@' in code_label:
        raise click.BadParameter(
            f'{code_label!r} names a computer: give the label alone, and the computer with --computer.',
            param_hint='--code',
        )
    computer, made = codes.get_or_make_computer(computer_label)
    _say(made, f'computer {computer.label} ({computer.hostname}, {computer.transport_type}, {computer.scheduler_type})')
    if python is None and computer.transport_type != 'core.local' and not _has_code(computer.label, code_label):
        raise click.ClickException(f'name the Python interpreter on {computer.label} with --python.')
    code, made = codes.get_or_make_code(computer, code_label, python)
    _say(made, f'Code {code.full_label} (PK {code.pk}, {code.filepath_executable})')
    usable, message = codes.check_interpreter(code)
    if usable:
        echo.echo_success(f'{code.filepath_executable} is ready: {message}.')
    else:
        echo.echo_warning(message)


def _has_code(computer_label: str, code_label: str) -> bool:
    from aiida import orm

    query = orm.QueryBuilder().append(orm.Computer, filters={'label': computer_label}, tag='computer')
    return query.append(orm.InstalledCode, filters={'label': code_label}, with_computer='computer').count() > 0


def _say(made: bool, what: str) -> None:
    if made:
        echo.echo_success(f'made the {what}.')
    else:
        echo.echo_report(f'there is the {what} already.')
