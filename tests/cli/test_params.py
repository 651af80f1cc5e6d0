"""Shared options: each parameter of a calculation is one, and only what was given is passed on."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from aiida_mlpotential.cli import params
from aiida_mlpotential.worker.parameters import PARAMETERS, validate_parameters
from aiida_mlpotential.worker.schema import PROPERTIES


@click.command()
@params.parameter_options
def command(**values: object) -> None:
    """Print the parameters that were given."""
    click.echo(repr(params.collect_parameters(values)))


def test_every_parameter_is_an_option() -> None:
    """A parameter that is added to the worker appears on the command line, with its help."""
    names = {option.name: option for option in command.params}
    assert list(names) == list(PARAMETERS)
    for name, parameter in PARAMETERS.items():
        assert parameter.help in str(names[name].help)


def test_help_has_the_defaults_and_no_json() -> None:
    """Each option says its default in words; ``null`` and ``""`` are not to be written on a command line."""
    text = ' '.join(CliRunner().invoke(command, ['--help']).output.split())
    assert 'null' not in text
    assert '""' not in text
    flags = sum(isinstance(parameter.default, bool) for parameter in PARAMETERS.values())
    assert text.count('[default: ') == len(PARAMETERS) - flags  # a flag has none
    for default in ('energy, forces', 'single', '0.4', 'automatic', 'GPU if there is one, else CPU'):
        assert f'[default: {default}]' in text
    assert '[single|double]' in text
    assert f'[{"|".join(PROPERTIES)}]' in text


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--num-threads', '0'], 'Invalid value for --num-threads: 0 is not allowed; it must be an integer from 1 to'),
        (['--device', 'gpu'], "Invalid value for --device: 'gpu' is not allowed; it must be cpu, cuda, cuda:N."),
        (['--minimum-distance', 'nan'], 'Invalid value for --minimum-distance: nan is not allowed'),
    ],
)
def test_values_that_are_not_allowed(arguments: list[str], message: str) -> None:
    """A value that the worker would refuse is refused with the name of the option."""
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert message in ' '.join(result.output.split())


def test_nothing_given() -> None:
    """Defaults are the worker's business."""
    assert CliRunner().invoke(command, []).output.strip() == '{}'


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--property', 'energy', '--property', 'stress'], {'properties': ['energy', 'stress']}),
        (['--precision', 'double'], {'precision': 'double'}),
        (['--minimum-distance', '0'], {'minimum_distance': 0.0}),
        (['--device', ''], {'device': ''}),
        (['--device', 'cuda:1', '--device-fallback'], {'device': 'cuda:1', 'device_fallback': True}),
        (
            ['--num-threads', '2', '--batch-atoms', '100', '--memory-limit', '512'],
            {'num_threads': 2, 'batch_atoms': 100, 'memory_limit': 512},
        ),
    ],
)
def test_values_have_the_types_of_the_worker(arguments: list[str], expected: dict[str, object]) -> None:
    """What the command line passes on is valid for the worker."""
    result = CliRunner().invoke(command, arguments)
    assert result.output.strip() == repr(expected)
    assert validate_parameters(expected) is None


def test_flag_that_was_not_given() -> None:
    """A flag is false only where the worker's default is, so it is not passed on."""
    assert PARAMETERS['device_fallback'].default is False
    assert 'device_fallback' not in params.collect_parameters({'device_fallback': None})


def test_sentence() -> None:
    """A message gets one full stop."""
    assert params.sentence(ValueError('no.')) == params.sentence(ValueError(' no ')) == 'no.'


def test_storage_that_cannot_be_loaded(aiida_profile, monkeypatch) -> None:
    """What AiiDA says is passed on as one sentence."""
    from aiida.common.exceptions import StorageMigrationError
    from aiida.manage import get_manager

    def fail() -> None:
        raise StorageMigrationError('the schema is too old')

    monkeypatch.setattr(get_manager(), 'get_profile_storage', fail)
    with pytest.raises(click.ClickException, match='cannot be loaded: the schema is too old'):
        params.load_storage()
