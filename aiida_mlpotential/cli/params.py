"""Options and arguments that several commands share, and the commands' own classes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click
from aiida.cmdline.groups.verdi import VerdiCommand, VerdiCommandGroup, VerdiContext
from aiida.cmdline.params import options, types
from aiida.common.exceptions import AiidaException

from aiida_mlpotential.worker.registry import DEFAULT_MODEL, PRETRAINED

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


def sentence(exception: Exception) -> str:
    """Return the message of an exception with a full stop."""
    return str(exception).strip().rstrip('.') + '.'
