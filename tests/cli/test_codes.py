"""Computer and Code: made once, found again, and checked by running their interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from aiida import orm

from aiida_mlpotential.cli import codes
from aiida_mlpotential.installer.codes import EXTRA


def test_computer_is_made_once(aiida_profile_clean, tmp_path: Path) -> None:
    """The second call finds what the first made, and changes nothing."""
    computer, made = codes.get_or_make_computer('localhost', tmp_path / 'work', poll_interval=0.2)
    assert made
    assert computer.is_configured
    assert computer.get_workdir() == str(tmp_path / 'work')
    assert computer.get_minimum_job_poll_interval() == 0.2
    again, made = codes.get_or_make_computer('localhost', tmp_path / 'other')
    assert not made
    assert again.pk == computer.pk
    assert again.get_workdir() == str(tmp_path / 'work')


def test_default_work_directory_is_that_of_the_profile(aiida_profile_clean, aiida_config) -> None:
    """Jobs run below AiiDA's configuration directory, in a folder of the profile."""
    computer, _ = codes.get_or_make_computer('localhost')
    assert computer.get_workdir() == str(Path(aiida_config.dirpath) / 'scratch' / aiida_profile_clean.name)


def test_only_localhost_is_made(aiida_profile_clean) -> None:
    """A computer of another name that does not exist is a mistake, and none is made."""
    with pytest.raises(codes.CodeError, match=r"no computer 'cluster': set it up with `verdi computer setup`"):
        codes.get_or_make_computer('cluster')
    assert orm.QueryBuilder().append(orm.Computer).count() == 0


def test_an_unconfigured_computer(aiida_profile_clean, tmp_path: Path) -> None:
    """A local one is configured; for a remote one the remedy is named, since nobody can guess its settings."""
    for label, transport in (('localhost', 'core.local'), ('cluster', 'core.ssh')):
        orm.Computer(label, label, '', transport, 'core.direct', str(tmp_path)).store()
    computer, made = codes.get_or_make_computer('localhost')
    assert computer.is_configured
    assert not made
    with pytest.raises(codes.CodeError, match=r'run `verdi computer configure core\.ssh cluster` first'):
        codes.get_or_make_computer('cluster')


def test_code_is_made_once(localhost: orm.Computer) -> None:
    """The Code has the running interpreter, and is what the plugin's calculations look for."""
    code, made = codes.get_or_make_code(localhost, 'mlpotential')
    assert made
    assert str(code.filepath_executable) == sys.executable
    assert code.default_calc_job_plugin == codes.PLUGIN
    again, made = codes.get_or_make_code(localhost, 'mlpotential')
    assert not made
    assert again.pk == code.pk
    assert codes.get_or_make_code(localhost, 'mlpotential', sys.executable) == (again, False)


def test_another_interpreter_needs_another_label(code: orm.InstalledCode) -> None:
    """An existing Code is not changed behind the back of its user."""
    with pytest.raises(codes.CodeError, match=r'mlpotential@localhost has the interpreter .*, not /opt/python'):
        codes.get_or_make_code(code.computer, 'mlpotential', '/opt/python')
    other, made = codes.get_or_make_code(code.computer, 'other', '/opt/python')
    assert made
    assert str(other.filepath_executable) == '/opt/python'


@pytest.mark.parametrize('modules', [('numpy', 'ase')])
def test_interpreter_that_can(code: orm.InstalledCode, modules: tuple[str, ...], monkeypatch) -> None:
    """A usable interpreter tells its versions."""
    import numpy as np

    monkeypatch.setattr(codes, 'MODULES', modules)
    usable, message = codes.check_interpreter(code)
    assert usable
    assert message.startswith(f'numpy {np.__version__}, ase ')


def test_interpreter_that_cannot(code: orm.InstalledCode, monkeypatch) -> None:
    """What is missing is named, with the command that installs it."""
    monkeypatch.setattr(codes, 'MODULES', ('numpy', 'not_there'))
    usable, message = codes.check_interpreter(code)
    assert not usable
    assert "No module named 'not_there'" in message
    assert f'{sys.executable} -m pip install torchani' in message


def test_interpreter_that_is_not_there(localhost: orm.Computer) -> None:
    """A path that leads nowhere is the same kind of warning."""
    code, _ = codes.get_or_make_code(localhost, 'gone', '/nowhere/python')
    usable, message = codes.check_interpreter(code)
    assert not usable
    assert '/nowhere/python cannot import' in message


def test_prepend_text_counts(localhost: orm.Computer, monkeypatch) -> None:
    """The interpreter is run in the environment that its jobs have."""
    monkeypatch.setattr(codes, 'MODULES', ('module_of_a_test',))
    directory = Path(localhost.get_workdir())
    directory.mkdir()
    (directory / 'module_of_a_test.py').write_text('__version__ = "7"')
    code = orm.InstalledCode(
        label='prepended',
        computer=localhost,
        filepath_executable=sys.executable,
        prepend_text=f'export PYTHONPATH={directory}',
    ).store()
    assert codes.check_interpreter(code) == (True, 'module_of_a_test 7')


def test_find_code_prefers_the_usual_one(localhost: orm.Computer) -> None:
    """No Code is an error with the remedy, one is taken, of several the one that ``setup`` makes."""
    with pytest.raises(codes.CodeError, match=r'make one with `aiida-mlpotential setup`, or run .*install torchani`'):
        codes.find_code(None, 'torchani')
    with pytest.raises(codes.CodeError, match=r'no Code for the backend sgdml: run .*backends install sgdml`'):
        codes.find_code(None, 'sgdml')
    first, _ = codes.get_or_make_code(localhost, 'first')
    assert codes.find_code(None, 'torchani').pk == first.pk
    codes.get_or_make_code(localhost, 'second')
    with pytest.raises(codes.CodeError, match=r'\(first@localhost, second@localhost\): choose one'):
        codes.find_code(None, 'torchani')
    usual, _ = codes.get_or_make_code(localhost, codes.CODE_LABEL)
    assert codes.find_code(None, 'torchani').pk == usual.pk
    assert codes.find_code(first, 'torchani') is first


def test_find_code_takes_the_one_that_was_installed_for_the_backend(localhost: orm.Computer) -> None:
    """An environment serves its own backend, before any Code made by hand, and no other."""
    usual, _ = codes.get_or_make_code(localhost, codes.CODE_LABEL)
    made = {}
    for label, backend in (('one', 'sgdml'), ('two', 'schnetpack')):
        made[backend], _ = codes.get_or_make_code(localhost, label)
        made[backend].base.extras.set(EXTRA, {'backend': backend})
    assert codes.find_code(None, 'sgdml').pk == made['sgdml'].pk
    assert codes.find_code(None, 'torchani').pk == usual.pk
    again, _ = codes.get_or_make_code(localhost, 'three')
    again.base.extras.set(EXTRA, {'backend': 'sgdml'})
    with pytest.raises(codes.CodeError, match=r'the backend sgdml \(one@localhost, three@localhost\)'):
        codes.find_code(None, 'sgdml')
    again.is_hidden = True
    assert codes.find_code(None, 'sgdml').pk == made['sgdml'].pk


def test_find_code_refuses_the_environment_of_another_backend(localhost: orm.Computer) -> None:
    """What a given Code was installed for is known before submission; a calculator of ASE may be in any of them."""
    code, _ = codes.get_or_make_code(localhost, 'one')
    assert codes.find_code(code, 'torchani') is code  # made by hand: it may have anything
    code.base.extras.set(EXTRA, {'backend': 'sgdml'})
    assert codes.find_code(code, 'sgdml') is code
    assert codes.find_code(code, 'ase') is code
    with pytest.raises(codes.CodeError, match=r'one@localhost was installed for .* sgdml, .* needs torchani'):
        codes.find_code(code, 'torchani')
