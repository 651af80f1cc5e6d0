"""Options of a task: each of its parameters is one, and only what was given is passed on, as the worker wants it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from aiida_mlpotential.cli.parameter_options import collect_parameters, flag_of, parameter_options, parameter_text
from aiida_mlpotential.cli.tasks import TASKS
from aiida_mlpotential.worker.parameters import Parameter, parameters_of, validate_parameters
from aiida_mlpotential.worker.quantities import PROPERTIES


def _command(task: str) -> click.Command:
    """Return a command that prints the parameters that it was given, as JSON."""

    @click.command()
    @parameter_options(task)
    def command(**values: object) -> None:
        click.echo(json.dumps(collect_parameters(values, task)))

    return command


def _invoke(task: str, *arguments: str) -> Result:
    return CliRunner().invoke(_command(task), list(arguments), terminal_width=1000)


@pytest.mark.parametrize('task', TASKS)
def test_every_parameter_is_an_option(task: str) -> None:
    """A parameter that is added to the worker appears on the command line, with its help."""
    options = {option.name: option for option in _command(task).params}
    assert [name for name in options if name != 'fix_atoms'] == list(parameters_of(task))
    for name, parameter in parameters_of(task).items():
        assert parameter.help.partition('`')[0] in str(options[name].help)


@pytest.mark.parametrize('task', TASKS)
def test_help_has_the_defaults_and_no_json(task: str) -> None:
    """Each option says its default in words; what the worker writes is not to be written on a command line."""
    text = ' '.join(_invoke(task, '--help').output.split())
    assert 'null' not in text
    assert '""' not in text
    assert '`parent_folder`' not in text
    flags = sum(parameter.default is False for parameter in parameters_of(task).values())
    assert text.count('[default: ') == len(parameters_of(task)) - flags  # a flag that is off has none
    assert f'[{"|".join(PROPERTIES)}]' in text


def test_defaults_in_words() -> None:
    """Automatic values are described, lists are words with commas."""
    text = ' '.join(_invoke('single_point', '--help').output.split())
    for default in ('energy, forces', 'single', '0.4', 'automatic', 'GPU if there is one, else CPU'):
        assert f'[default: {default}]' in text
    assert '[single|double]' in text
    text = ' '.join(_invoke('geometry_optimization', '--help').output.split())
    assert 'unless --stress-tolerance is given' in text
    for default in ('500', 'not asked', 'none', '--check-fragments'):
        assert f'[default: {default}]' in text
    text = ' '.join(_invoke('thermochemistry', '--help').output.split())
    for default in ('298.15', 'from the point group', 'double where the backend has it', 'minimum'):
        assert f'[default: {default}]' in text


@pytest.mark.parametrize('task', TASKS)
def test_defaults_can_be_written(task: str) -> None:
    """The default of every parameter that has one is a value that its option takes and passes on unchanged."""
    for parameter in parameters_of(task).values():
        if parameter.default in (None, '', []) or isinstance(parameter.default, bool):
            continue
        repeated = parameter.default if isinstance(parameter.default, list) else [parameter.default]
        arguments = [text for value in repeated for text in (flag_of(parameter), str(value))]
        result = _invoke(task, *arguments)
        assert result.exit_code == 0, result.output
        assert json.loads(result.output) == {parameter.name: parameter.default}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--num-threads', '0'], 'Invalid value for --num-threads: 0 is not allowed; it must be an integer from 1 to'),
        (['--device', 'gpu'], "Invalid value for --device: 'gpu' is not allowed; it must be cpu, cuda, cuda:N."),
        (['--minimum-distance', 'nan'], 'Invalid value for --minimum-distance: nan is not allowed'),
        (['--max-steps', '0'], 'Invalid value for --max-steps: 0 is not allowed'),
        (['--max-steps', '-5'], 'Invalid value for --max-steps: -5 is not allowed'),
        (['--cell-mask', '1,1,maybe'], "'1,1,maybe' is no list of true and false with commas between them"),
        (['--cell-mask', '1,1'], 'it must be six of true and false'),
        (['--fix-atoms', 'C1'], "'C1' is no list of atoms with commas between them"),
        (['--constraints', 'no.json'], "'no.json' is neither JSON nor a file that can be read (No such file"),
        (['--constraints', '[{'], 'the text is no JSON'),
        (['--constraints', '[{"kind": "plane"}]'], 'Invalid value for --constraints'),
        (['--checkpoint-interval', 'often'], "'often' is not a valid number"),
    ],
)
def test_values_that_are_not_allowed(arguments: list[str], message: str) -> None:
    """A value that the worker would refuse is refused with the name of the option."""
    result = _invoke('geometry_optimization', *arguments)
    assert result.exit_code == 2
    assert message in ' '.join(result.output.split())


@pytest.mark.parametrize('value', ['0', '-10', 'warm', '300,-1'])
def test_temperatures_that_are_none(value: str) -> None:
    """Nothing is that cold; a text is no temperature."""
    result = _invoke('thermochemistry', '--temperature', value)
    assert result.exit_code == 2
    assert '--temperature' in result.output


@pytest.mark.parametrize('task', TASKS)
def test_nothing_given(task: str) -> None:
    """Defaults are the worker's business."""
    assert json.loads(_invoke(task).output) == {}


@pytest.mark.parametrize(
    ('task', 'arguments', 'expected'),
    [
        ('single_point', ['--property', 'energy', '--property', 'stress'], {'properties': ['energy', 'stress']}),
        ('single_point', ['--precision', 'double'], {'precision': 'double'}),
        ('single_point', ['--minimum-distance', '0'], {'minimum_distance': 0.0}),
        ('single_point', ['--device', ''], {'device': ''}),
        ('single_point', ['--device', 'cuda:1', '--device-fallback'], {'device': 'cuda:1', 'device_fallback': True}),
        (
            'single_point',
            ['--num-threads', '2', '--batch-atoms', '100', '--memory-limit', '512'],
            {'num_threads': 2, 'batch_atoms': 100, 'memory_limit': 512},
        ),
        (
            'geometry_optimization',
            ['--optimize-cell', '--cell-mask', '1,1,1,0,0,0', '--pressure', '2.5'],
            {'optimize_cell': True, 'cell_mask': [True] * 3 + [False] * 3, 'pressure': 2.5},
        ),
        ('geometry_optimization', ['--no-check-fragments'], {'check_fragments': False}),
        (
            'geometry_optimization',
            ['--constraints', '{"kind": "bond", "atoms": [0, 1]}', '--fix-atoms', '2, 3'],
            {'constraints': [{'kind': 'bond', 'atoms': [0, 1]}, {'kind': 'atoms', 'atoms': [2, 3]}]},
        ),
        ('geometry_optimization', ['--fix-atoms', '0'], {'constraints': [{'kind': 'atoms', 'atoms': [0]}]}),
        (
            'geometry_optimization',
            ['--energy-tolerance', '1e-5', '--trajectory', '5'],
            {'energy_tolerance': 1e-5, 'trajectory': 5},
        ),
        ('geometry_optimization', ['--checkpoint-interval', '10'], {'checkpoint_interval': 10}),
        ('vibrations', ['--expected', 'transition_state'], {'expected': 'transition_state'}),
        ('vibrations', ['--precision', 'single'], {'precision': 'single'}),
        ('vibrations', ['--no-member-frequencies'], {'member_frequencies': False}),
        ('thermochemistry', ['--temperature', '298.15,400'], {'temperatures': [298.15, 400]}),
        ('thermochemistry', ['--temperature', '300', '--temperature', '350,400'], {'temperatures': [300, 350, 400]}),
        ('thermochemistry', ['--symmetry-number', '12'], {'symmetry_number': 12}),
        ('thermochemistry', ['--symmetry-number', '[1, 2]'], {'symmetry_number': [1, 2]}),
        ('thermochemistry', ['--symmetry-number', '1,2'], {'symmetry_number': [1, 2]}),
        ('thermochemistry', ['--spin-multiplicity', '2'], {'spin_multiplicity': 2}),
        ('thermochemistry', ['--spin-multiplicity', '1,2,3'], {'spin_multiplicity': [1, 2, 3]}),
        ('thermochemistry', ['--spin-multiplicity', '[3]'], {'spin_multiplicity': [3]}),
    ],
)
def test_values_have_the_types_of_the_worker(task: str, arguments: list[str], expected: dict[str, Any]) -> None:
    """What the command line passes on is valid for the worker."""
    result = _invoke(task, *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == expected
    assert validate_parameters(expected, task) is None


def test_constraints_from_a_file(tmp_path: Path) -> None:
    """A list that is too long for a command line comes from a file; what is no JSON is named."""
    constraints = [{'kind': 'components', 'atoms': [0, 1], 'components': 'z'}]
    path = tmp_path / 'constraints.json'
    path.write_text(json.dumps(constraints))
    result = _invoke('geometry_optimization', '--constraints', str(path))
    assert json.loads(result.output) == {'constraints': constraints}
    path.write_text('fix the first atom')
    result = _invoke('geometry_optimization', '--constraints', str(path))
    assert result.exit_code == 2
    assert 'constraints.json' in result.output
    assert 'is no JSON' in result.output
    path.write_bytes(b'\xff\xfe\x00')
    assert 'it is no text' in _invoke('geometry_optimization', '--constraints', str(path)).output


def test_flag_that_was_not_given() -> None:
    """A flag is false only where the worker's default is, so it is not passed on."""
    assert parameters_of('single_point')['device_fallback'].default is False
    assert 'device_fallback' not in collect_parameters({'device_fallback': None}, 'single_point')


def test_null_without_a_word() -> None:
    """A parameter that says nothing of its null has no default."""
    parameter = Parameter('x', None, 'a number, or null', '', lambda value: True)
    assert parameter_text(parameter) == ('a number', 'none')
