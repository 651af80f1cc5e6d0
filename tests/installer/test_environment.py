"""Environments: the right Python, nothing left behind by a failure, and nobody else's directory touched."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aiida_mlpotential.installer import environment as module
from aiida_mlpotential.installer.environment import MANIFEST, Environment, Interpreter, find_environments, find_python
from aiida_mlpotential.installer.pip import Sources
from aiida_mlpotential.installer.recipes import Python, Recipe, Step
from aiida_mlpotential.installer.remote import InstallerError, Remote

FakePython = Callable[..., str]
STEP = Step('Tiny', ('tiny==1.0',))


def _interpreter(path: str) -> Interpreter:
    return Interpreter(path, Python(3, 11), 'linux')


@pytest.fixture
def made(remote: Remote, fake_python: FakePython) -> Environment:
    """Return an environment of an interpreter that pretends."""
    environment = Environment.plan(remote, 'tiny-1.0')
    environment.create(_interpreter(fake_python()), {'backend': 'tiny'})
    return environment


def test_python_of_this_machine(remote: Remote, recipe: Recipe) -> None:
    """The running one is found by its path."""
    found = find_python(remote, recipe, sys.executable)
    assert found.version == sys.version_info[:2]
    assert found.platform == sys.platform
    assert not found.missing


def test_first_that_fits(
    remote: Remote, recipe: Recipe, fake_python: FakePython, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not start, one that is too old and one without ensurepip are passed over."""
    answer = '\'{}["{}", [3, {}], "linux", {}]\''
    broken = fake_python(name='python3.12')
    Path(broken).write_text('#!/bin/bash\nexit 1\n')
    good = ''
    for name, version, missing in (
        ('python3.11', 11, '["ensurepip"]'),
        ('python3.13', 9, '[]'),
        ('python3.10', 10, '[]'),
    ):
        good = fake_python(name=name)
        Path(good).write_text(f'#!/bin/bash\necho noise\necho {answer.format(module.MARK, good, version, missing)}\n')
    remote.computer.set_prepend_text(f'export PATH="{Path(broken).parent}"')
    assert find_python(remote, recipe) == Interpreter(good, Python(3, 10), 'linux')
    Path(good).unlink()
    with pytest.raises(InstallerError, match=r'python3\.11 has no ensurepip: .*apt install python3\.11-venv'):
        find_python(remote, recipe)
    (Path(good).parent / 'python3.11').unlink()
    with pytest.raises(InstallerError, match=r'torchani needs Python 3\.10 to 3\.13, found on localhost: .* \(3\.9\)'):
        find_python(remote, recipe)
    with pytest.raises(InstallerError, match=r'needs Python 3\.10 to 3\.13; .*python3\.13 on localhost is 3\.9'):
        find_python(remote, recipe, str(Path(good).parent / 'python3.13'))
    with pytest.raises(InstallerError, match='/nowhere/python on localhost is no Python that runs'):
        find_python(remote, recipe, '/nowhere/python')


def test_life_of_an_environment(made: Environment, remote: Remote, home: Path) -> None:
    """It is in the home directory, can be told from others at all times, and leaves nothing, parents included."""
    path = home / '.aiida-mlpotential' / 'environments' / 'tiny-1.0'
    assert made.path == str(path)
    assert json.loads((path / MANIFEST).read_text())['state'] == 'unfinished'
    with pytest.raises(InstallerError, match=r'was begun at .* and not ended .*backends uninstall tiny -Y localhost'):
        Environment.plan(remote, 'tiny-1.0')
    made.install(STEP, Sources())
    made.finish(packages=made.freeze())
    assert sorted(item.name for item in path.iterdir()) == [MANIFEST, 'bin']
    (found,) = find_environments(remote, 'tiny')
    assert found.complete
    assert found.manifest['packages'] == ['tiny==1.0']
    assert find_environments(remote, 'other') == []
    assert made.size() >= 0
    with pytest.raises(InstallerError, match='is there already on localhost'):
        Environment.plan(remote, 'tiny-1.0')
    found.remove()
    assert list(home.iterdir()) == []
    assert not list(home.parent.rglob('pwned'))
    found.remove()  # a second time there is nothing to do


def test_parents_that_were_there_stay(remote: Remote, home: Path, fake_python: FakePython) -> None:
    """Only what was made for the environment goes with it, and only if nobody else uses it."""
    (home / 'there').mkdir()
    environment = Environment.plan(remote, 'tiny-1.0', str(home / 'there' / 'new' / 'newer'))
    environment.create(_interpreter(fake_python()), {'backend': 'tiny'})
    (home / 'there' / 'new' / 'mine.txt').touch()
    environment.remove()
    assert [path.name for path in home.rglob('*')] == ['there', 'new', 'mine.txt']


@pytest.mark.parametrize('content', [None, '{}', '{"made by": "me"}', 'no json', '[1]'])
def test_directory_of_somebody_else(remote: Remote, home: Path, content: str | None) -> None:
    """Without our own manifest in it, a directory is neither used nor removed."""
    path = home / 'tiny-1.0'
    path.mkdir()
    (path / 'precious').touch()
    if content is not None:
        (path / MANIFEST).write_text(content)
    with pytest.raises(InstallerError, match='was not made here, and is left alone: choose another --directory'):
        Environment.plan(remote, 'tiny-1.0', str(home))
    with pytest.raises(InstallerError, match='was not made here, and is left alone'):
        Environment(remote, str(path)).remove()
    assert find_environments(remote, 'tiny', str(home)) == []
    assert (path / 'precious').exists()


def test_directory_that_appears_meanwhile(remote: Remote, home: Path, fake_python: FakePython) -> None:
    """Whoever comes second loses, and harms nothing."""
    environment = Environment.plan(remote, 'tiny-1.0', str(home))
    (home / 'tiny-1.0').mkdir()
    (home / 'tiny-1.0' / 'precious').touch()
    with pytest.raises(InstallerError, match='cannot be made on localhost'):
        environment.create(_interpreter(fake_python()), {'backend': 'tiny'})
    with pytest.raises(InstallerError, match='was not made here'):
        environment.remove()
    assert (home / 'tiny-1.0' / 'precious').exists()


def test_two_installations_at_once(remote: Remote, home: Path, fake_python: FakePython) -> None:
    """The second, begun in the same second, does not take the first one's directory, and does not remove it."""
    first, second = (Environment.plan(remote, 'tiny-1.0', str(home)) for _ in range(2))
    facts = {'backend': 'tiny', 'begun': '2026-01-01T00:00:00+00:00'}
    first.create(_interpreter(fake_python()), facts)
    for environment in (second, Environment(remote, first.path)):
        with pytest.raises(InstallerError, match='cannot be made on localhost'):
            second.create(_interpreter(fake_python()), facts)
        with pytest.raises(InstallerError, match='was made by another installation, and is left alone'):
            environment.remove()
    assert Path(first.python).exists()
    first.remove()
    assert list(home.glob('tiny*')) == []


def test_copy_of_an_environment(made: Environment, remote: Remote, home: Path) -> None:
    """What somebody copied, with its manifest, is not what was made here."""
    copy = Path(made.path).with_name('mine')
    shutil.copytree(made.path, copy, symlinks=True)
    assert [found.path for found in find_environments(remote, 'tiny')] == [made.path]
    assert Environment.find(remote, str(copy)) is None
    # the same place may be named otherwise
    (home / 'link').symlink_to(home)
    same = Environment.find(remote, str(home / 'link' / Path(made.path).relative_to(home)))
    assert same is not None
    same.remove()
    assert not Path(made.path).exists()
    assert (copy / 'bin').is_dir()


def test_link_in_place_of_the_directory(made: Environment, home: Path) -> None:
    """What a link leads to is not removed."""
    target = home / 'moved'
    Path(made.path).rename(target)
    Path(made.path).symlink_to(target)
    with pytest.raises(InstallerError, match='cannot be removed'):
        made.remove()
    assert (target / 'bin').is_dir()


def test_relative_directory(remote: Remote) -> None:
    """Relative to what, nobody would know."""
    with pytest.raises(InstallerError, match="'environments' is not absolute"):
        Environment.plan(remote, 'tiny-1.0', 'environments')


def test_read_only_parent(remote: Remote, fake_python: FakePython) -> None:
    """A place that cannot be written is one sentence."""
    environment = Environment.plan(remote, 'tiny-1.0', '/proc/nowhere')
    with pytest.raises(InstallerError, match=r'/proc/nowhere/tiny-1\.0 cannot be made on localhost: choose another'):
        environment.create(_interpreter(fake_python()), {'backend': 'tiny'})


@pytest.mark.parametrize(
    ('pip', 'message'),
    [
        ('echo "ERROR: No matching distribution found for tiny==1.0"; exit 1', r'there is no tiny==1\.0'),
        ('kill -9 $$', 'pip was killed'),
        ('kill -9 0', 'pip was killed'),
        ('echo "ERROR: [Errno 28] No space left on device"; exit 1', 'the disk is full'),
        ('kill -ILL $$', 'lacks instructions'),
    ],
)
def test_failures_of_pip(remote: Remote, home: Path, fake_python: FakePython, pip: str, message: str) -> None:
    """Each is told by its cause, and can be undone without a trace."""
    environment = Environment.plan(remote, 'tiny-1.0')
    environment.create(_interpreter(fake_python(pip=f'touch "$TMPDIR/half"; {pip}')), {'backend': 'tiny'})
    with pytest.raises(InstallerError, match=f'Tiny cannot be installed on localhost: .*{message}'):
        environment.install(STEP, Sources())
    assert (Path(environment.path) / 'unpacked' / 'half').exists()
    environment.remove()
    assert list(home.iterdir()) == []


def test_full_disk(remote: Remote, fake_python: FakePython, tmp_path: Path) -> None:
    """Where not even the status of a step can be written, the cause is still found."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    mounted = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip('a small file system needs the right to mount one')
    try:
        environment = Environment.plan(remote, 'tiny-1.0', str(disk))
        pip = 'dd if=/dev/zero of="$TMPDIR/x" bs=1k count=1000 2>&1'
        environment.create(_interpreter(fake_python(pip=pip)), {'backend': 'tiny'})
        with pytest.raises(InstallerError, match='the disk is full'):
            environment.install(STEP, Sources())
        environment.remove()
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(['umount', str(disk)], check=True)


@pytest.mark.slow
def test_removal_of_a_running_installation(remote: Remote, home: Path, fake_python: FakePython) -> None:
    """Its processes are ended first, so that they write nothing afterwards."""
    environment = Environment.plan(remote, 'tiny-1.0')
    environment.create(_interpreter(fake_python(pip='echo begun; sleep 56789')), {'backend': 'tiny'})
    with pytest.raises(InstallerError, match='pip was killed'):
        environment.install(STEP, Sources(), lambda line: environment.remove())
    assert list(home.iterdir()) == []
    assert subprocess.run(['pgrep', '-f', 'sleep 56789'], capture_output=True, check=False).returncode == 1


def test_uploads(made: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source tree of this machine is sent to one that does not see it, and not kept there."""
    source = tmp_path / 'the source'
    source.mkdir()
    (source / 'setup.py').write_text('x')
    steps = (Step('x', (str(source), 'numpy<2', '/elsewhere/on/the/computer')),)
    assert module.with_uploads(made, steps) == steps
    monkeypatch.setattr(Remote, 'is_local', False)
    (step,) = module.with_uploads(made, steps)
    assert step.requirements == (f'{made.path}/files/the source', 'numpy<2', '/elsewhere/on/the/computer')
    assert (Path(made.path) / 'files' / 'the source' / 'setup.py').read_text() == 'x'
    made.finish()
    assert not (Path(made.path) / 'files').exists()


@pytest.mark.parametrize(('megabytes', 'text'), [(3, '3 MB'), (1024, '1.0 GB'), (1600, '1.6 GB')])
def test_size_text(megabytes: int, text: str) -> None:
    """Sizes are written as people say them."""
    assert module.size_text(megabytes) == text
