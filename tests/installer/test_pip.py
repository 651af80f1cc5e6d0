"""Calls of pip: what they are told, and what is made of their failures."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from aiida_mlpotential.installer.pip import Sources, pip_command, read_failure
from aiida_mlpotential.installer.recipes import TORCH_INDEX, Step
from aiida_mlpotential.installer.remote import Outcome

PYTHON = "/it's a/bin/python"


def test_plain() -> None:
    """Nothing is asked, nothing is compiled, and every word is one word for the shell."""
    (line,) = pip_command(PYTHON, Step('x', ('torch==2', 'a>=1,<2; python_version > "3"')), Sources())
    words = shlex.split(line)
    assert words[:4] == [PYTHON, '-m', 'pip', 'install']
    assert words[-2:] == ['torch==2', 'a>=1,<2; python_version > "3"']
    assert {'--no-input', '--no-cache-dir', '--only-binary'} <= set(words)
    assert not {'--no-deps', '--ignore-requires-python', '--no-index'} & set(words)


def test_sources_of_their_own() -> None:
    """What is built from source is not restricted to wheels, and may ignore what it declares."""
    step = Step('x', ('/src/pinn',), dependencies=False, binary=False, any_python=True)
    words = shlex.split(pip_command(PYTHON, step, Sources('cpu'))[0])
    assert {'--no-deps', '--ignore-requires-python'} <= set(words)
    assert '--only-binary' not in words
    assert '||' not in words


def test_device() -> None:
    """The index of torch is asked second, and only for the step with torch."""
    (line,) = pip_command('python', Step('x', ('torch==2.13.0', 'numpy')), Sources('cu130'))
    first, second = (shlex.split(part) for part in line.split(' || '))
    assert 'torch==2.13.0+cu130' in first
    assert second == [*first, '--extra-index-url', f'{TORCH_INDEX}/cu130']
    (line,) = pip_command('python', Step('x', ('sgdml',)), Sources('cu130'))
    assert TORCH_INDEX not in line


@pytest.mark.parametrize('sources', [Sources('cpu', wheels='/my wheels'), Sources('cpu', index='https://example.org')])
def test_only_these_sources(sources: Sources, tmp_path: Path) -> None:
    """Whatever the settings of the machine say, pip looks nowhere else; how to connect is kept."""
    configuration = tmp_path / 'pip.conf'
    configuration.write_text(
        '[global]\nextra-index-url = https://other.example.org\nfind-links = /elsewhere\nproxy = proxy:3128\n'
    )
    *lines, command = pip_command(sys.executable, Step('x', ('torch==2',)), sources)
    assert TORCH_INDEX not in command
    show = f'{shlex.quote(sys.executable)} -m pip config list; env | grep ^PIP_ | sort; true'
    environment = {
        **os.environ,
        'PIP_CONFIG_FILE': str(configuration),
        'PIP_FIND_LINKS': '/elsewhere',
        'PIP_EXTRA_INDEX_URL': 'https://other.example.org',
    }
    process = subprocess.run(
        ['bash', '-c', '\n'.join([*lines, show])], env=environment, capture_output=True, text=True, check=True
    )
    assert 'elsewhere' not in process.stdout
    assert 'other.example.org' not in process.stdout
    assert 'PIP_CONFIG_FILE=/dev/null' in process.stdout
    words = shlex.split(command)
    if sources.wheels:
        assert words[words.index('--find-links') + 1] == '/my wheels'
        assert '--no-index' in words
    else:
        assert words[words.index('--index-url') + 1] == 'https://example.org'
        assert 'PIP_PROXY=proxy:3128' in process.stdout


@pytest.mark.parametrize(
    ('status', 'log', 'free', 'expected'),
    [
        (1, 'ERROR: [Errno 28] No space left on device', 500, 'the disk is full (No space left on device)'),
        (1, 'x', 3, 'the disk is full (3 MB left): make room'),
        (1, 'OSError: [Errno 122] Disk quota exceeded', None, 'the disk is full (Disk quota exceeded)'),
        (None, 'Collecting torch', 500, 'pip was killed'),
        (137, '', 500, 'pip was killed'),
        (132, 'Illegal instruction', 500, 'lacks instructions that the library was built for'),
        (1, 'ERROR: No matching distribution found for torch==9', 500, 'there is no torch==9 for this Python'),
        (1, 'Failed to establish a new connection: x\nERROR: No matching distribution found for a', 9999, '--wheels'),
        (1, "ERROR: Cannot find command 'git' - do you have it", 500, 'git is needed'),
        (1, 'Error: ensurepip is not available', 500, 'python3-venv'),
        (1, 'ERROR: Failed to build x.\nbye', None, 'Failed to build x; its log is above.'),
        (3, 'nothing to see', None, 'exit status 3; its log is above.'),
    ],
)
def test_failures(status: int | None, log: str, free: int | None, expected: str) -> None:
    """Each is one sentence with its remedy."""
    text = read_failure(Outcome(status, log), free)
    assert expected in text
    assert text.endswith('.')
    assert '\n' not in text
