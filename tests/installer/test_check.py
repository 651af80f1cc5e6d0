"""The check of a Code: real evaluations, and what is said of interpreters that die, lack or mislead."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida import orm

from aiida_mlpotential.installer.check import check_code, check_interpreter
from aiida_mlpotential.installer.remote import InstallerError, Remote

FakePython = Callable[..., str]

CPU = {'versions': {'python': '3.11.1', 'torch': '2.13.0+cpu'}, 'cuda': None, 'gpus': 0}
GOOD: dict[str, Any] = {
    **CPU,
    'backend': 'torchani',
    'usable': True,
    'evaluated': True,
    'device': 'cpu',
    'notes': [],
    'frames': 3,
}
CUDA = {**GOOD, 'versions': {'torch': '2.13.0+cu130'}, 'cuda': '13.0'}


@pytest.fixture
def teller(fake_python: FakePython) -> Callable[[dict[str, Any]], str]:
    """Return a maker of an interpreter that claims to have found certain facts."""

    def make(facts: dict[str, Any]) -> str:
        return fake_python(run=f'echo {shlex.quote(json.dumps(facts))} > "${{@: -1}}/selftest.json"')

    return make


def test_real_evaluation(remote: Remote, home: Path) -> None:
    """The worker that a job would have is sent and run; nothing of it stays."""
    code = orm.InstalledCode(label='x', computer=remote.computer, filepath_executable=sys.executable).store()
    result = check_code(code, 'ase', remote=remote)
    assert result.usable
    assert result.message.startswith('2 structures on cpu, forces agree with differences of energies (python 3.')
    assert result.facts['energies'][0] == pytest.approx(0.0519, abs=1e-3)
    assert list(home.iterdir()) == []


def test_environment_of_the_code(remote: Remote, fake_python: FakePython) -> None:
    """The prepended texts of computer and Code count, in that order, as in a job; one that fails does not end it."""
    remote.computer.set_prepend_text('export WHERE=computer')
    code = orm.InstalledCode(
        label='x',
        computer=remote.computer,
        filepath_executable=fake_python(run='echo "$WHERE" >&2; exit 3'),
        prepend_text='false\nexport WHERE="$WHERE code"',
    ).store()
    with remote:
        result = check_code(code, 'ase')
    assert not result.usable
    assert 'failed with exit status 3 (computer code)' in result.message


@pytest.mark.parametrize(
    ('run', 'message'),
    [
        ('kill -ILL $$', 'lacks instructions that the library was built for ("Illegal instruction"'),
        ('exit 132', 'use a newer machine or partition'),
        ('kill -SEGV $$', 'it crashed (segmentation fault)'),
        ('kill -BUS $$', 'it crashed (bus error)'),
        ('kill -KILL $$', 'it was killed, perhaps for want of memory'),
        ('exit 126', 'it cannot be executed'),
        ('exit 127', 'there is no such interpreter'),
        ('echo "ModuleNotFoundError: No module named \'numpy\'" >&2; exit 1', 'it needs numpy and ase (ModuleNotFound'),
        ('echo "SyntaxError: x" >&2; exit 1', 'it is too old: make a Code of Python 3.10'),
        ('exit 5', 'failed with exit status 5 (it said nothing): is it a Python?'),
        ('true', 'failed with exit status 0'),
        ('kill -9 0', 'it was killed before it could say anything'),
    ],
)
def test_interpreters_that_die(remote: Remote, fake_python: FakePython, run: str, message: str) -> None:
    """Each way has its own sentence with what to do."""
    python = fake_python(run=run)
    result = check_interpreter(remote, python, 'torchani')
    assert not result.usable
    assert result.message.startswith(f'{python}: ')
    assert message in result.message
    assert result.message.endswith('.')
    assert '\n' not in result.message


def test_interpreter_that_is_not_there(remote: Remote) -> None:
    """The shell's own status is understood."""
    assert 'there is no such interpreter' in check_interpreter(remote, '/nowhere/bin/python', 'torchani').message


def test_missing_library(remote: Remote, teller: Callable[[dict[str, Any]], str]) -> None:
    """What the worker says of it is passed on, and can be told from other failures."""
    facts = {**CPU, 'backend': 'sgdml', 'usable': False, 'label': 'ERROR_BACKEND_MISSING', 'message': 'install it'}
    result = check_interpreter(remote, teller(facts), 'sgdml')
    assert (result.usable, result.missing) == (False, True)
    assert result.message.endswith(': install it.')
    wrong = {**facts, 'label': None, 'message': 'its numbers are wrong'}
    assert not check_interpreter(remote, teller(wrong), 'sgdml').missing


def test_torch_without_cuda(remote: Remote, teller: Callable[[dict[str, Any]], str]) -> None:
    """It is an error where CUDA was asked for; with it, a login node without a GPU is worth a remark."""
    result = check_interpreter(remote, teller(GOOD), 'torchani', device='cu130')
    assert not result.usable
    assert 'torch 2.13.0+cpu has no CUDA, though cu130 was asked for' in result.message
    assert check_interpreter(remote, teller(GOOD), 'torchani', device='cpu').warnings == ()
    result = check_interpreter(remote, teller(CUDA), 'torchani', device='cu130')
    assert result.usable
    assert result.warnings == (
        'torch has CUDA and sees no GPU there, perhaps on a login node: it was tried on the CPU.',
    )
    assert check_interpreter(remote, teller({**CUDA, 'gpus': 1}), 'torchani', device='cu130').warnings == ()


def test_gpu_that_lies_idle(remote: Remote, teller: Callable[[dict[str, Any]], str], tmp_path: Path) -> None:
    """A machine with a GPU and a torch without CUDA is worth a remark."""
    tool = tmp_path / 'bin' / 'nvidia-smi'
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho "GPU 0: NVIDIA H200 (UUID: x)"\n')
    tool.chmod(0o755)
    remote.computer.set_prepend_text(f'export PATH="{tool.parent}:$PATH"')
    (warning,) = check_interpreter(remote, teller(GOOD), 'torchani').warnings
    assert 'there is a GPU, but torch 2.13.0+cpu has no CUDA' in warning
    assert '--device cu130' in warning
    assert check_interpreter(remote, teller({**CUDA, 'gpus': 1}), 'torchani').warnings == ()
    tool.write_text('#!/bin/sh\necho "NVIDIA-SMI has failed"\nexit 9\n')
    assert check_interpreter(remote, teller(GOOD), 'torchani').warnings == ()


def test_package_without_a_model(remote: Remote, teller: Callable[[dict[str, Any]], str]) -> None:
    """That nothing was evaluated is said."""
    result = check_interpreter(remote, teller({**GOOD, 'evaluated': False}), 'mace')
    assert result.usable
    assert result.message.startswith('it can be imported; its package has no model to try')


def test_codes_that_cannot_be_tried(remote: Remote, tmp_path: Path) -> None:
    """A Code without computer and interpreter is refused."""
    (tmp_path / 'files').mkdir()
    (tmp_path / 'files' / 'run.sh').touch()
    code = orm.PortableCode(label='p', filepath_executable='run.sh', filepath_files=tmp_path / 'files').store()
    with pytest.raises(InstallerError, match='p is no Code of an interpreter on a computer'):
        check_code(code, 'ase')
