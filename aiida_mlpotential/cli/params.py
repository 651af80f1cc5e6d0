"""Options and arguments that several commands share, and the commands' own classes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import click
from aiida.cmdline.groups.verdi import VerdiCommand, VerdiCommandGroup, VerdiContext
from aiida.cmdline.params import options, types
from aiida.common.exceptions import AiidaException

from aiida_mlpotential.worker.parameters import PARAMETERS, Parameter
from aiida_mlpotential.worker.registry import DEFAULT_MODEL, PRETRAINED
from aiida_mlpotential.worker.schema import PROPERTIES

Command = Callable[..., Any]


class ProfileCommand(VerdiCommand):
    """A command in the style of ``verdi`` that is no member of a group in that style."""

    context_class = VerdiContext


class ProfileGroup(VerdiCommandGroup):
    """A group in the style of ``verdi``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        settings = {'help_option_names': ['-h', '--help'], 'max_content_width': 110}
        super().__init__(*args, context_settings=kwargs.pop('context_settings', settings), **kwargs)


PROFILE = options.PROFILE(type=types.ProfileParamType(load_profile=True), expose_value=False)

CODE = options.CODE(
    type=types.CodeParamType(),
    help="Code to run on, by ID, UUID or label. [default: that of the model's backend, else the one of `setup`]",
)

MODEL = click.option(
    '-M',
    '--model',
    metavar='NAME|ID',
    default=DEFAULT_MODEL,
    show_default=True,
    help=f'Model: {", ".join(PRETRAINED)}, or the PK or UUID of a model in the profile.',
)


def with_profile(command: Command) -> Command:
    """Give a command the option ``--profile``, and load its storage before it runs."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        load_storage()
        return command(*args, **kwargs)

    decorated: Command = PROFILE(wrapper)
    return decorated


def load_storage() -> None:
    """Load the storage of the chosen or the default profile; failing that, say in one sentence what to do."""
    from aiida.manage import get_manager
    from aiida.manage.configuration import get_config

    manager = get_manager()
    if manager.get_profile() is None and get_config(create=True).default_profile_name is None:
        raise click.ClickException(
            'there is no AiiDA profile: make one with `verdi presto`; `aiida-mlpotential demo` needs none.'
        )
    try:
        manager.load_profile()
        manager.get_profile_storage()
    except AiidaException as exception:
        raise click.ClickException(f'the AiiDA profile cannot be loaded: {exception}') from exception


#: How the command line spells the value of each parameter; those not named here are texts.
_PARAMETER_TYPES: dict[str, Any] = {
    'properties': click.Choice(list(PROPERTIES)),
    'precision': click.Choice(PARAMETERS['precision'].allowed.split(', ')),
    'minimum_distance': float,
    'num_threads': int,
    'batch_atoms': int,
    'memory_limit': int,
}


class ParameterText(NamedTuple):
    """How the command line describes the values of a parameter; JSON's null is no word of its own."""

    allowed: str
    default: str


def parameter_text(parameter: Parameter) -> ParameterText:
    """Return what is allowed and the default: for an automatic one, what the worker says it stands for."""
    allowed, automatic = parameter.allowed, None
    if match := re.fullmatch(r'(.*), or null \((.*)\)', allowed):  # such as 'an integer, or null (automatic)'
        allowed, automatic = match.groups()
    elif match := re.fullmatch(r'"" \((.*?)\), (.*)', allowed):  # such as '"" (the best there is), cpu, cuda'
        automatic, allowed = match.groups()
    if automatic is None:
        default = parameter.default
        automatic = ', '.join(default) if isinstance(default, list) else str(default)
    return ParameterText(allowed, automatic)


def flag_of(parameter: Parameter) -> str:
    """Return the option of a parameter."""
    return '--property' if parameter.name == 'properties' else '--' + parameter.name.replace('_', '-')


def parameter_options(command: Command) -> Command:
    """Give a command one option for each key of the parameters of a calculation; the worker knows the defaults."""
    for parameter in reversed(PARAMETERS.values()):
        kind, text = _PARAMETER_TYPES.get(parameter.name, str), parameter_text(parameter)
        settings: dict[str, Any] = {'default': None}
        if isinstance(parameter.default, bool):
            settings.update(is_flag=True, help=parameter.help)
        else:
            allowed = '' if isinstance(kind, click.Choice) else f' Allowed: {text.allowed}.'
            repeat = ' Repeat the option for each.' if parameter.name == 'properties' else ''
            settings.update(type=kind, help=f'{parameter.help}{allowed}{repeat} [default: {text.default}]')
        if parameter.name == 'properties':
            settings.update(multiple=True, default=())
        command = click.option(flag_of(parameter), parameter.name, **settings)(command)
    return command


def collect_parameters(values: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that were given on the command line, without those left to their default.

    :raises click.BadParameter: naming the option with a value that is not allowed
    """
    given = {name: values[name] for name in PARAMETERS if values.get(name) not in (None, ())}
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    for name, value in given.items():
        parameter = PARAMETERS[name]
        if not parameter.check(value):
            allowed = parameter_text(parameter).allowed
            raise click.BadParameter(f'{value!r} is not allowed; it must be {allowed}.', param_hint=flag_of(parameter))
    return given


def sentence(exception: Exception) -> str:
    """Return the message of an exception with a full stop."""
    return str(exception).strip().rstrip('.') + '.'
