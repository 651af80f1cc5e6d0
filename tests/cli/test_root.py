"""The command: fast help without side effects, and helpful errors."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from aiida_mlpotential import __version__
from aiida_mlpotential.cli.root import COMMANDS


@pytest.mark.parametrize('name', COMMANDS)
def test_commands_exist(name: str) -> None:
    """Each entry of the table leads to a command of that name, with a help text."""
    lazy = COMMANDS[name]
    command = getattr(importlib.import_module(f'aiida_mlpotential.cli.{lazy.module}'), lazy.attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help


@pytest.mark.parametrize('arguments', [['--help'], ['--version'], ['demo', '--help'], ['nonsense']])
def test_help_touches_nothing(arguments: list[str], tmp_path: Path) -> None:
    """Help neither imports AiiDA or torch nor writes into the home of the user."""
    program = (
        'import sys\n'
        'from aiida_mlpotential.cli import main\n'
        f'sys.argv = ["aiida-mlpotential", *{arguments!r}]\n'
        'try:\n'
        '    main()\n'
        'finally:\n'
        '    print("LOADED", sorted({"aiida", "torch", "numpy", "ase"} & set(sys.modules)))\n'
    )
    environment = {**os.environ, 'HOME': str(tmp_path)}
    environment.pop('AIIDA_PATH', None)
    process = subprocess.run(
        [sys.executable, '-c', program], env=environment, capture_output=True, text=True, check=False
    )
    assert 'LOADED []' in process.stdout
    assert process.returncode == (2 if arguments == ['nonsense'] else 0)
    assert list(tmp_path.iterdir()) == []


def test_help_lists_all_commands(invoke) -> None:
    """The help of the group says a line about each command."""
    result = invoke('--help')
    assert result.exit_code == 0
    for name, lazy in COMMANDS.items():
        assert name in result.output
        assert lazy.help[:30] in result.output


def test_version(invoke) -> None:
    """The version is that of the package."""
    assert invoke('--version').output.split() == ['aiida-mlpotential', __version__]


def test_unknown_command_names_the_most_similar(invoke) -> None:
    """A misspelt command is an error that names the right one."""
    result = invoke('setpu')
    assert result.exit_code == 2
    assert "did you mean 'setup'?" in result.output
    assert 'choose from backends, demo, launch, models, plot, setup, stop, watch' in invoke('xyz').output
