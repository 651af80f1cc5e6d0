"""The parameters of a task as options of its command: made from the table by which the worker checks them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from aiida_mlpotential.worker.parameters import Parameter, parameters_of
from aiida_mlpotential.worker.quantities import PROPERTIES

Command = Callable[..., Any]

#: Parameters whose option is not the name with dashes: those that are given once for each item.
_FLAGS = {'properties': '--property', 'temperatures': '--temperature'}
#: Name under which the atoms of ``--fix-atoms`` reach :func:`collect_parameters`.
_FIXED = 'fix_atoms'


class ParameterText(NamedTuple):
    """How the command line describes the values of a parameter; JSON's null is no word of its own."""

    allowed: str
    default: str


class JsonValue(click.ParamType):
    """JSON, or plain text where it is none: for parameters that take values of several types."""

    name = 'value'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the text stands for."""
        try:
            return json.loads(value)
        except (TypeError, ValueError):
            return value


class JsonList(click.ParamType):
    """A list as JSON, or the name of a file with it."""

    name = 'json|file'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the list, or say what is wrong with the text or the file."""
        if not isinstance(value, str):
            return value
        text, where = value, 'the text'
        if not value.lstrip().startswith(('[', '{')):
            try:
                text, where = Path(value).read_text(encoding='utf-8'), f'the file {value!r}'
            except (OSError, UnicodeDecodeError) as exception:
                reason = getattr(exception, 'strerror', None) or 'it is no text'
                self.fail(f'{value!r} is neither JSON nor a file that can be read ({reason}).', param, ctx)
        try:
            found = json.loads(text)
        except ValueError as exception:
            self.fail(f'{where} is no JSON: {exception}.', param, ctx)
        return [found] if isinstance(found, dict) else found


class Items(click.ParamType):
    """Items with commas between them, or a list as JSON.

    :param what: what the items are
    :param kind: turns the text of an item into its value, or raises a ValueError
    """

    def __init__(self, what: str, kind: Callable[[str], Any]) -> None:
        self.name, self._what, self._kind = 'list', what, kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the list."""
        if not isinstance(value, str):
            return value
        items = value.strip().strip('[]').split(',')
        try:
            return [self._kind(item.strip()) for item in items]
        except ValueError:
            self.fail(f'{value!r} is no list of {self._what} with commas between them.', param, ctx)


class ForEach(Items):
    """A whole number for all structures, or a list with one for each."""

    def __init__(self) -> None:
        super().__init__('whole numbers', int)
        self.name = 'number|list'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or the list where the text has more than one or brackets."""
        items = super().convert(value, param, ctx)
        return items if not isinstance(value, str) or ',' in value or '[' in value else items[0]


class Number(click.ParamType):
    """A number; one without a point stays whole."""

    name = 'number'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        try:
            return _number(value) if isinstance(value, str) else value
        except ValueError:
            self.fail(f'{value!r} is not a valid number.', param, ctx)


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _truth(text: str) -> bool:
    words = {'true': True, 'yes': True, '1': True, 'false': False, 'no': False, '0': False}
    try:
        return words[text.lower()]
    except KeyError:
        raise ValueError(text) from None


NUMBERS, TRUTHS, INDICES = Items('numbers', _number), Items('true and false', _truth), Items('atoms', int)

#: How the command line spells the values that the default does not tell the type of.
_TYPES: dict[str, click.ParamType | type] = {
    'properties': click.Choice(list(PROPERTIES)),
    'num_threads': int,
    'batch_atoms': int,
    'memory_limit': int,
    'trajectory': int,
    'energy_tolerance': float,
    'step_tolerance': float,
    'stress_tolerance': float,
    'max_qbc': float,
    'constraints': JsonList(),
    'temperatures': NUMBERS,
    'cell_mask': TRUTHS,
    'symmetry_number': ForEach(),
    'spin_multiplicity': ForEach(),
}


def _type_of(parameter: Parameter) -> click.ParamType | type:
    """Return how the command line reads the value of a parameter."""
    if parameter.name in _TYPES:
        return _TYPES[parameter.name]
    words = parameter_text(parameter).allowed.split(', ')
    if len(words) > 1 and all(re.fullmatch(r'[A-Za-z_]\w*', word) for word in words):
        return click.Choice(words)
    if isinstance(parameter.default, str):
        return str
    if isinstance(parameter.default, float):
        return float
    if isinstance(parameter.default, int):
        return int if parameter.allowed.startswith('an integer') else Number()
    return JsonValue()


def parameter_text(parameter: Parameter) -> ParameterText:
    """Return what is allowed and the default: for an automatic one, what the worker says it stands for."""
    allowed, automatic = parameter.allowed, None
    if match := re.fullmatch(r'(.*?),? or null(?: \((.*)\))?', allowed):  # such as 'an integer, or null (automatic)'
        allowed, automatic = match[1], match[2] or 'none'
    elif match := re.fullmatch(r'(?:""|null) \((.*?)\), (.*)', allowed):  # such as '"" (the best there is), cpu, cuda'
        automatic, allowed = match.groups()
    if automatic is None or parameter.default not in (None, ''):
        automatic = _default_text(parameter.default)
    return ParameterText(allowed, automatic)


def _default_text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ', '.join(_default_text(item) for item in value) or 'none'
    return str(value).lower() if isinstance(value, bool) else str(value)


def flag_of(parameter: Parameter) -> str:
    """Return the option of a parameter."""
    return _FLAGS.get(parameter.name, '--' + parameter.name.replace('_', '-'))


def _help(parameter: Parameter, table: Mapping[str, Parameter]) -> str:
    """Return the meaning of a parameter, with options in place of what the worker calls them."""
    names = {**{name: flag_of(item) for name, item in table.items()}, 'parent_folder': '--continue'}
    return re.sub(r'`(\w+)`', lambda match: names.get(match[1], match[0]), parameter.help)


def _option(parameter: Parameter, meaning: str) -> Callable[[Command], Command]:
    """Return the decorator that gives a command the option of a parameter."""
    flag, text = flag_of(parameter), parameter_text(parameter)
    if isinstance(parameter.default, bool):
        flags = f'{flag}/--no-{flag[2:]}' if parameter.default else flag
        shown = f' [default: {flag}]' if parameter.default else ''
        return click.option(flags, parameter.name, is_flag=True, default=None, help=f'{meaning}{shown}')
    kind = _type_of(parameter)
    parts = [meaning]
    if not isinstance(kind, click.Choice):
        parts.append(f'Allowed: {text.allowed}.')
    if isinstance(kind, Items):
        parts.append('With commas between them.')
    settings: dict[str, Any] = {'default': None, 'type': kind}
    if parameter.name in _FLAGS:
        parts.append('Repeat the option for each.' if not isinstance(kind, Items) else 'It may be repeated.')
        settings.update(multiple=True, default=())
    parts.append(f'[default: {text.default}]')
    return click.option(flag, parameter.name, help=' '.join(parts), **settings)


_FIX_ATOMS = click.option(
    '--fix-atoms',
    _FIXED,
    type=INDICES,
    help='Atoms that stay where they are in every structure, counted from 0, such as `0,1,2`.',
)


def parameter_options(task: str) -> Callable[[Command], Command]:
    """Return a decorator that gives a command an option for each parameter of a task; the worker knows the defaults."""

    def decorate(command: Command) -> Command:
        table = parameters_of(task)
        for parameter in reversed(list(table.values())):
            if parameter.name == 'constraints':
                command = _FIX_ATOMS(command)
            command = parameter_option(parameter, table)(command)
        return command

    return decorate


def parameter_option(
    parameter: Parameter, table: Mapping[str, Parameter], prefix: str = ''
) -> Callable[[Command], Command]:
    """Return the decorator that gives a command the option of one parameter.

    :param table: all parameters of its task
    :param prefix: what the help begins with
    """
    return _option(parameter, prefix + _help(parameter, table))


def collect_parameters(values: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return the parameters that were given on the command line, without those left to their default.

    :raises click.BadParameter: naming the option with a value that is not allowed
    """
    table = parameters_of(task)
    given = {name: values[name] for name in table if values.get(name) not in (None, ())}
    given = {name: _flat(value) if isinstance(value, tuple) else value for name, value in given.items()}
    if values.get(_FIXED):
        given['constraints'] = [*given.get('constraints', []), {'kind': 'atoms', 'atoms': values[_FIXED]}]
    for name, value in given.items():
        parameter = table[name]
        verdict = parameter.check(value)
        if verdict is not True:
            allowed = parameter_text(parameter).allowed
            why = verdict.rstrip('.') if isinstance(verdict, str) else f'it must be {allowed}'
            raise click.BadParameter(f'{value!r} is not allowed; {why}.', param_hint=flag_of(parameter))
    return given


def _flat(values: tuple[Any, ...]) -> list[Any]:
    """Return the items of an option that was given several times, each time with one item or more."""
    return [item for value in values for item in (value if isinstance(value, list) else [value])]
