"""``backends``: install, list, check and uninstall, and nothing left behind when it goes wrong."""

from __future__ import annotations

import json
import os
import signal
import site
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from aiida import orm
from aiida.common.links import LinkType
from waiting import wait_for

from aiida_mlpotential.installer import recipes
from aiida_mlpotential.installer.check import CheckResult
from aiida_mlpotential.installer.recipes import Recipe, Step

Installed = tuple[Path, Path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home directory."""
    path = tmp_path / 'my home'
    path.mkdir()
    monkeypatch.setenv('HOME', str(path))
    return path


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """Return a directory with the wheel of a library: it lends the new environment all that this one has."""
    directory = tmp_path / 'my wheels'
    directory.mkdir()
    paths = [sysconfig.get_paths()['purelib'], *site.getsitepackages()]
    files = {
        'tiny.py': '__version__ = "1.0"\n',
        'tiny.pth': '\n'.join(dict.fromkeys(paths)) + '\n',
        'tiny-1.0.dist-info/METADATA': 'Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n',
        'tiny-1.0.dist-info/WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    }
    files['tiny-1.0.dist-info/RECORD'] = ''.join(f'{name},,\n' for name in files)
    with zipfile.ZipFile(directory / 'tiny-1.0-py3-none-any.whl', 'w') as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return directory


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Have one recipe more, whose backend is evaluated by a calculator of ASE."""
    recipe = Recipe('ase', 'tiny', '1.0', (Step('Tiny', ('tiny==1.0',)),))
    monkeypatch.setitem(recipes.RECIPES, 'ase', recipe)
    return recipe


@pytest.fixture
def quick(localhost: orm.Computer, home: Path) -> orm.Computer:
    """Return this machine, whose shell reads nobody's profile."""
    localhost.configure(safe_interval=0, use_login_shell=False)
    return localhost


@pytest.mark.slow
def test_whole_cycle(quick: orm.Computer, home: Path, wheels: Path, invoke: Callable) -> None:
    """From nothing to a Code that computes, without a network, and back to nothing."""
    result = invoke('backends', 'install', 'ase', '--wheels', wheels, '--python', sys.executable)
    assert result.exit_code == 0, result.output
    assert 'ase is ready: launch with `--code mlpotential-ase@localhost`' in result.output
    path = home / '.aiida-mlpotential' / 'environments' / 'ase-1.0'
    manifest = json.loads((path / 'aiida-mlpotential.json').read_text())
    assert manifest['state'] == 'complete'
    assert 'tiny==1.0' in manifest['packages']
    assert manifest['check']['usable']
    assert not {'unpacked', 'step', 'files'} & {item.name for item in path.iterdir()}
    code = orm.load_code('mlpotential-ase@localhost')
    assert str(code.filepath_executable) == str(path / 'bin' / 'python')

    listed = invoke('backends', 'list').output
    assert f'{path}' in listed
    assert 'ase 1.0, ready, ' in listed
    checked = invoke('backends', 'check')
    assert checked.exit_code == 0, checked.output
    assert 'forces agree with differences of energies' in checked.output
    again = invoke('backends', 'install', 'ase', '--wheels', wheels)
    assert again.exit_code == 1
    assert 'there is a Code mlpotential-ase@localhost already' in again.output
    again = invoke('backends', 'install', 'ase', '--wheels', wheels, '--code', 'other')
    assert 'is there already on localhost: remove it with `aiida-mlpotential backends uninstall ase' in again.output

    (
        path / 'lib' / sysconfig.get_path('purelib', vars={'base': ''}).split('/')[-2] / 'site-packages' / 'tiny.pth'
    ).unlink()
    broken = invoke('backends', 'check', 'ase')
    assert broken.exit_code == 1
    assert 'it needs numpy and ase' in broken.output
    assert 'fails, ' in invoke('backends', 'list').output

    removed = invoke('backends', 'uninstall', 'ase')
    assert removed.exit_code == 0, removed.output
    assert 'deleted the Code mlpotential-ase@localhost' in removed.output
    assert not (home / '.aiida-mlpotential').exists()
    assert orm.QueryBuilder().append(orm.InstalledCode).count() == 0
    nothing = invoke('backends', 'uninstall', 'ase')
    assert nothing.exit_code == 1
    assert 'ase is not installed on localhost' in nothing.output


def _nothing_is_left(home: Path) -> bool:
    assert not (home / '.aiida-mlpotential').exists()  # programs that pip calls make other directories
    return orm.QueryBuilder().append(orm.InstalledCode).count() == 0


@pytest.mark.slow
def test_requirement_that_does_not_exist(quick: orm.Computer, home: Path, wheels: Path, invoke: Callable) -> None:
    """Half-way it fails, says why, and removes what it made."""
    result = invoke(
        'backends', 'install', 'ase', '--wheels', wheels, '--requirement', 'absent==7', '--python', sys.executable
    )
    assert result.exit_code == 1
    assert 'Error: Tiny cannot be installed on localhost: there is no absent==7 for this Python' in result.output
    assert 'ERROR: Could not find a version that satisfies the requirement absent==7' in result.output
    assert 'Removing what was made: nothing is left in ' in result.output
    assert _nothing_is_left(home)


@pytest.mark.slow
def test_library_that_does_not_work(
    quick: orm.Computer, home: Path, wheels: Path, invoke: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot evaluate is not kept, and gets no Code."""
    from aiida_mlpotential.installer import check

    wrong = CheckResult('ase', False, 'python: its numbers are wrong.')
    monkeypatch.setattr(check, 'check_interpreter', lambda *args, **kwargs: wrong)
    result = invoke('backends', 'install', 'ase', '--wheels', wheels, '--python', sys.executable)
    assert result.exit_code == 1
    assert 'Error: ase was installed and does not work: python: its numbers are wrong.' in result.output
    assert _nothing_is_left(home)


@pytest.fixture
def stalling(tmp_path: Path) -> Path:
    """Return an interpreter whose pip never ends."""
    path = tmp_path / 'python3.11'
    path.write_text(
        '#!/bin/bash\n'
        'case "$*" in\n'
        '"-m venv "*) mkdir -p "$3/bin" && ln -s "$0" "$3/bin/python" ;;\n'
        f'*ensurepip*) exec {sys.executable} "$@" ;;\n'
        '*) echo Collecting tiny; sleep 4242.5 ;;\n'
        'esac\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption(quick: orm.Computer, home: Path, stalling: Path, number: int) -> None:
    """Ctrl-C, a closed terminal and ``kill`` leave neither files nor processes."""
    from aiida_mlpotential.cli import backends
    from aiida_mlpotential.installer.remote import Remote, interruptible

    process = os.fork()
    if process == 0:  # the database of the profile is not used in here
        status = 9
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            wanted = backends.Wanted(recipes.RECIPES['ase'], 'label', python=str(stalling))
            with interruptible(), Remote(quick, wait=0.05) as remote:
                backends.run_install(remote, wanted, backends.Steps(live=False))
        except KeyboardInterrupt:
            status = 0
        finally:
            os._exit(status)
    log = home / '.aiida-mlpotential' / 'environments' / 'ase-1.0' / 'step' / 'log'
    wait_for(lambda: log.exists() and 'Collecting' in log.read_text(), 30, 'the step begins')
    os.kill(process, number)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert _nothing_is_left(home)
    assert subprocess.run(['pgrep', '-f', 'sleep 4242.5'], capture_output=True, check=False).returncode == 1


def test_abandoned_installation(quick: orm.Computer, home: Path, invoke: Callable) -> None:
    """What a machine that went down left half-made is found and removed, and nothing else."""
    path = home / 'envs' / 'ase-1.0'
    path.mkdir(parents=True)
    manifest = {
        'made by': 'aiida-mlpotential backends install',
        'state': 'unfinished',
        'backend': 'ase',
        'begun': 'now',
    }
    (path / 'aiida-mlpotential.json').write_text(json.dumps(manifest))
    (home / 'envs' / 'mine').mkdir()
    arguments = ('--directory', home / 'envs')
    result = invoke('backends', 'install', 'ase', '--python', sys.executable, *arguments)
    assert 'was begun at now and not ended on localhost: remove it with' in result.output
    assert path.exists()
    assert invoke('backends', 'uninstall', 'ase').exit_code == 1
    result = invoke('backends', 'uninstall', 'ase', *arguments)
    assert result.exit_code == 0, result.output
    assert [item.name for item in (home / 'envs').iterdir()] == ['mine']


def _make_code(computer: orm.Computer, path: Path, label: str = 'mlpotential-ase') -> orm.InstalledCode:
    from aiida_mlpotential.installer.codes import create_code
    from aiida_mlpotential.installer.environment import Environment
    from aiida_mlpotential.installer.remote import Remote

    return create_code(Environment(Remote(computer), str(path)), recipes.RECIPES['ase'], label, {})


def test_uninstall_of_a_used_code(quick: orm.Computer, home: Path, invoke: Callable) -> None:
    """The environment goes, the Code stays in the provenance, and its label is free."""
    path = home / 'ase-1.0'
    path.mkdir()
    (path / 'aiida-mlpotential.json').write_text(
        json.dumps({'made by': 'aiida-mlpotential backends install', 'backend': 'ase', 'state': 'complete'})
    )
    code = _make_code(quick, path)
    job = orm.CalcJobNode(computer=quick)
    job.base.links.add_incoming(code, LinkType.INPUT_CALC, 'code')
    job.store()
    result = invoke('backends', 'uninstall', 'ase')
    assert result.exit_code == 0, result.output
    assert 'hid the Code mlpotential-ase@localhost, which calculations used' in result.output
    assert not path.exists()
    assert 'None is installed' in invoke('backends', 'list').output


def test_uninstall_leaves_what_is_not_ours(quick: orm.Computer, home: Path, invoke: Callable) -> None:
    """A Code of ours that leads to a directory without our manifest is an error, and both stay."""
    path = home / 'ase-1.0'
    path.mkdir()
    (path / 'precious').touch()
    code = _make_code(quick, path)
    result = invoke('backends', 'uninstall', 'ase')
    assert result.exit_code == 1
    assert 'was not made here, or its manifest is gone: remove it yourself' in result.output
    assert (path / 'precious').exists()
    assert orm.load_node(code.pk).label == 'mlpotential-ase'


def test_check_for_another_backend(quick: orm.Computer, home: Path, invoke: Callable) -> None:
    """An environment that has no other library is not broken; and to ask all Codes of one for another is a mistake."""
    code = _make_code(quick, home / 'gone')
    assert invoke('backends', 'check', code.full_label, '--backend', 'sgdml').exit_code == 1
    assert ', ready, ' in invoke('backends', 'list').output
    result = invoke('backends', 'check', 'ase', '--backend', 'sgdml')
    assert result.exit_code == 2
    assert 'the Codes of ase are for ase: leave out --backend, or name a Code.' in result.output
    assert invoke('backends', 'check', code.full_label).exit_code == 1
    assert ', fails, ' in invoke('backends', 'list').output


def test_uninstall_of_what_is_gone(quick: orm.Computer, home: Path, invoke: Callable) -> None:
    """A directory that somebody removed is no reason to keep the Code."""
    _make_code(quick, home / 'gone')
    result = invoke('backends', 'uninstall', 'ase')
    assert result.exit_code == 0, result.output
    assert 'was gone already' in result.output
    assert orm.QueryBuilder().append(orm.InstalledCode).count() == 0


@pytest.mark.slow
def test_check_of_a_code_made_by_hand(
    quick: orm.Computer, home: Path, code: orm.InstalledCode, invoke: Callable
) -> None:
    """Its prepended text and interpreter are what counts; without a name every backend is tried, and one is enough."""
    result = invoke('backends', 'check', code.full_label, '--backend', 'ase')
    assert result.exit_code == 0, result.output
    assert 'ase by mlpotential@localhost: 2 structures on cpu' in result.output
    broken = orm.InstalledCode(label='broken', computer=quick, filepath_executable='/nowhere/python').store()
    result = invoke('backends', 'check', broken.pk)
    assert result.exit_code == 1
    assert result.output.count('there is no such interpreter') == 1  # and not once for each backend


def test_check_of_every_backend(
    quick: orm.Computer, home: Path, code: orm.InstalledCode, invoke: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Code by hand has those that it has; with none of them it is of no use."""
    from aiida_mlpotential.installer import check

    def answer(code, name, device):
        return CheckResult(name, name == having, f'{name}.', missing=name != having, facts={'x': 1})

    monkeypatch.setattr(check, 'check_code', answer)
    having = 'sgdml'
    result = invoke('backends', 'check', code.full_label)
    assert result.exit_code == 0, result.output
    having = ''
    result = invoke('backends', 'check', code.full_label)
    assert result.exit_code == 1
    assert 'mlpotential@localhost has none of the backends' in result.output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['install', 'nequip'], "there is no recipe for 'nequip'"),
        (['install', 'ase', '--device', 'cuda'], "'cuda' is no build of torch"),
        (['install', 'pinn', '--device', 'cu130'], 'the recipe for pinn is for the CPU only'),
        (['install', 'ase', '--requirement', '-e .'], "'-e .' is no requirement"),
        (['install', 'ase', '--requirement', './none'], 'there is no ./none, neither here nor on localhost'),
        (['install', 'ase', '--directory', 'here'], "'here' is not absolute"),
        (['install', 'ase', '--python', '/nowhere/python'], '/nowhere/python on localhost is no Python that runs'),
        (['install', 'ase', '-Y', 'cluster'], "there is no computer 'cluster'"),
        (['install', 'ase', '--code', 'a@b'], 'names a computer'),
        (['uninstall', 'nequip'], "there is no recipe for 'nequip'"),
        (['check', 'ase'], 'ase is not installed: install it with `aiida-mlpotential backends install ase`'),
        (['check'], 'no backend is installed'),
        (['check', 'nothing'], "'nothing' is neither a backend"),
        (['check', 'ase', '--backend', 'nequip'], "there is no recipe for 'nequip'"),
    ],
)
def test_mistakes(quick: orm.Computer, home: Path, invoke: Callable, arguments: list[str], message: str) -> None:
    """One sentence, no traceback, and nothing is made."""
    result = invoke('backends', *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert 'Traceback' not in result.output
    assert _nothing_is_left(home)


def test_wheels_that_are_nowhere(quick: orm.Computer, home: Path, stalling: Path, invoke: Callable) -> None:
    """Neither here nor on the computer: said before pip is asked, and nothing stays."""
    result = invoke('backends', 'install', 'ase', '--wheels', '/nowhere/wheels', '--python', stalling)
    assert result.exit_code == 1
    assert 'there is no directory /nowhere/wheels, neither here nor on localhost' in result.output
    assert _nothing_is_left(home)
