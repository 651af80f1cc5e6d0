"""``backends list``: what can be installed, and what is."""

from __future__ import annotations

import pytest
from aiida import orm

from aiida_mlpotential.installer.codes import EXTRA
from aiida_mlpotential.installer.recipes import RECIPES
from aiida_mlpotential.worker.backends import BACKENDS


def test_nothing_is_installed(aiida_profile_clean, invoke) -> None:
    """Each backend has its version and properties on a line of at most 80 columns, and the remedy stands below."""
    result = invoke('backends', 'list')
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    for name, recipe in RECIPES.items():
        words = next(line for line in lines if line.startswith(name)).split()
        assert words[:2] == [name, recipe.version]
        assert set(words[2:]) == BACKENDS[name].properties
    assert lines[-1].startswith('None is installed: `aiida-mlpotential backends install BACKEND`')
    assert max(map(len, lines[:-1])) <= 80


@pytest.mark.parametrize(('usable', 'state'), [(True, 'ready'), (False, 'fails')])
def test_what_is_installed(code: orm.InstalledCode, invoke, usable: bool, state: str) -> None:
    """An environment is shown with its Code, version, state and path; a Code made by hand is not."""
    made = orm.InstalledCode(label='mine', computer=code.computer, filepath_executable='/opt/sgdml/bin/python').store()
    facts = {'backend': 'sgdml', 'version': '1.0.3', 'path': '/opt/sgdml', 'usable': usable}
    made.base.extras.set(EXTRA, {**facts, 'checked': '2026-11-22T20:08+00:00'})
    output = invoke('backends', 'list').output
    assert f'mine@localhost: sgdml 1.0.3, {state}, checked 2026-11-22 20:08 UTC\n    /opt/sgdml\n' in output
    assert code.full_label not in output
