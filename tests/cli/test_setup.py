"""``setup``: idempotent, and honest about what it made and what it found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiida import orm

from aiida_mlpotential.cli import codes


@pytest.fixture(autouse=True)
def fast_check(monkeypatch) -> None:
    """Import something that takes no second."""
    monkeypatch.setattr(codes, 'MODULES', ('json',))


def test_setup_twice(aiida_profile_clean, invoke) -> None:
    """The first run makes computer and Code, the second says that they are there."""
    first = invoke('setup')
    assert first.exit_code == 0, first.output
    assert first.output.count('Success: made the') == 2
    assert f'{sys.executable} is ready: json 2.0.9' in first.output
    second = invoke('setup')
    assert second.exit_code == 0, second.output
    assert 'Success: made' not in second.output
    assert 'there is the Code mlpotential@localhost' in second.output
    assert orm.QueryBuilder().append(orm.Computer).count() == 1
    assert orm.QueryBuilder().append(orm.InstalledCode).count() == 1


def test_setup_uses_an_existing_computer(localhost: orm.Computer, invoke) -> None:
    """A computer of the user's own is used as it is."""
    result = invoke('setup', '--computer', localhost.label, '--code', 'mine', '--python', sys.executable)
    assert result.exit_code == 0, result.output
    assert orm.load_code('mine@localhost').computer.pk == localhost.pk


def test_warning_with_remedy(localhost: orm.Computer, invoke, monkeypatch) -> None:
    """An interpreter without the backend is set up, with a warning that says how to install it."""
    monkeypatch.setattr(codes, 'MODULES', ('not_there',))
    result = invoke('setup')
    assert result.exit_code == 0, result.output
    assert 'Warning: ' in result.output
    assert 'pip install torchani' in result.output
    assert 'is ready' not in result.output


@pytest.mark.parametrize(
    ('arguments', 'status', 'message'),
    [
        (['--computer', 'cluster'], 1, "there is no computer 'cluster'"),
        (['--python', 'python3'], 2, "'python3' is not an absolute path"),
        (['--code', 'mlpotential@localhost'], 2, 'give the label alone'),
    ],
)
def test_mistakes(aiida_profile_clean, invoke, arguments: list[str], status: int, message: str) -> None:
    """One sentence, no traceback, and nothing is made."""
    result = invoke('setup', *arguments)
    assert result.exit_code == status
    assert message in result.output
    assert 'Traceback' not in result.output
    assert orm.QueryBuilder().append(orm.InstalledCode).count() == 0


def test_other_interpreter_of_the_same_code(code: orm.InstalledCode, invoke) -> None:
    """The Code is not changed; the remedy is named."""
    result = invoke('setup', '--python', '/opt/python')
    assert result.exit_code == 1
    assert 'name another one with --code' in result.output


def test_a_remote_computer_needs_an_interpreter(aiida_profile_clean, invoke, tmp_path) -> None:
    """The interpreter that runs the command says nothing about another machine."""
    computer = orm.Computer('cluster', 'cluster', '', 'core.ssh', 'core.direct', str(tmp_path)).store()
    computer.configure()
    result = invoke('setup', '--computer', 'cluster')
    assert result.exit_code == 1
    assert 'name the Python interpreter on cluster with --python' in result.output


def test_no_profile(tmp_path: Path) -> None:
    """On a machine on which AiiDA was never used there is one sentence that says what to do."""
    environment = {**os.environ, 'HOME': str(tmp_path)}
    environment.pop('AIIDA_PATH', None)
    program = 'import sys; from aiida_mlpotential.cli import main; sys.argv[1:] = ["setup"]; main()'
    process = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', program], env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 1
    assert process.stderr.startswith('Error: there is no AiiDA profile: make one with `verdi presto`')
    assert len(process.stderr.splitlines()) == 1
