"""Fixtures of the installer's tests: a computer whose paths are awkward, and interpreters that do as they are told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiida import orm

from aiida_mlpotential.installer.recipes import Recipe, Step
from aiida_mlpotential.installer.remote import Remote

FakePython = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home directory with blanks, quotes and shell characters in its name."""
    path = tmp_path / "my home $(touch pwned); 'it''s' & \"more\""
    path.mkdir()
    monkeypatch.setenv('HOME', str(path))
    return path


@pytest.fixture
def computer(aiida_profile_clean: object, home: Path) -> orm.Computer:
    """Return this machine; its shell reads nobody's profile."""
    computer = orm.Computer(
        label='localhost',
        hostname='localhost',
        transport_type='core.local',
        scheduler_type='core.direct',
        workdir=str(home / 'work'),
    ).store()
    computer.configure(safe_interval=0, use_login_shell=False)
    return computer


@pytest.fixture
def remote(computer: orm.Computer) -> Iterator[Remote]:
    """Return a connection to it that does not wait long."""
    with Remote(computer, wait=0.05) as remote:
        yield remote


@pytest.fixture
def recipe() -> Recipe:
    """Return a recipe of two calls of pip."""
    return Recipe('torchani', 'tiny', '1.0', (Step('first', ('one==1',)), Step('second', ('two==2',))))


@pytest.fixture
def fake_python(tmp_path: Path) -> FakePython:
    """Return a maker of an interpreter whose ``-m pip install`` runs some shell, and whose ``-m venv`` is quick."""

    def make(pip: str = 'true', run: str = 'exit 1', name: str = 'python3.11') -> str:
        path = tmp_path / 'fake bin' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            '#!/bin/bash\n'
            'case "$*" in\n'
            '"-m venv "*) mkdir -p "$3/bin" && ln -s "$0" "$3/bin/python" ;;\n'
            f'"-m pip install "*) {pip} ;;\n'
            '*"-m pip "*) echo tiny==1.0 ;;\n'
            f'*ensurepip*) exec {sys.executable} "$@" ;;\n'
            f'*) {run} ;;\n'
            'esac\n'
        )
        path.chmod(0o755)
        return str(path)

    return make
