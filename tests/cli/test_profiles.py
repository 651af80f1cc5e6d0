"""The directory of the demo: made, found again, never confused with another, and apart from the user's AiiDA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiida_mlpotential.cli.profiles import MARKER, DemoDirectory, DemoError, default_directory


def _open(directory: Path, home: Path, program: str = '') -> subprocess.CompletedProcess[str]:
    """Open a directory in a process of its own, since AiiDA keeps its configuration in global variables."""
    code = (
        'import pathlib\n'
        'from aiida_mlpotential.cli.profiles import DemoDirectory\n'
        f'demo = DemoDirectory(pathlib.Path({str(directory)!r}))\n'
        'made = demo.open()\n'
        'from aiida import get_profile, orm\n'
        f'{program}\n'
        'print(made, get_profile().name, get_profile().storage_backend, get_profile().process_control_backend)\n'
    )
    environment = {**os.environ, 'HOME': str(home), 'AIIDA_PATH': str(home / 'mine')}
    return subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=False)


def _mark(directory: Path, content: str) -> DemoDirectory:
    directory.mkdir(exist_ok=True)
    (directory / MARKER).write_text(content)
    return DemoDirectory(directory)


@pytest.mark.slow
def test_open_twice(tmp_path: Path) -> None:
    """The profile is made, then found, and nothing is written into the home or the AIIDA_PATH of the user."""
    home = tmp_path / 'home'
    home.mkdir()
    directory = tmp_path / 'with space' / 'demo'
    first = _open(directory, home, 'orm.Int(7).store()')
    assert first.returncode == 0, first.stderr
    assert first.stdout.split() == ['True', 'demo', 'core.sqlite_dos', 'core.zeromq']
    assert first.stderr == ''
    second = _open(directory, home, 'assert orm.QueryBuilder().append(orm.Int).one()[0].value == 7')
    assert second.returncode == 0, second.stderr
    assert second.stdout.split()[0] == 'False'
    assert list(home.iterdir()) == []
    assert DemoDirectory(directory).state() == 'complete'


@pytest.mark.slow
def test_broken_storage(tmp_path: Path) -> None:
    """A directory that lost its database is one sentence with the remedy; and the remedy works."""
    directory = tmp_path / 'demo'
    assert _open(directory, tmp_path / 'home').returncode == 0
    (directory / '.aiida' / 'config.json').write_text('{')
    process = _open(directory, tmp_path / 'home')
    assert process.returncode == 1
    message = process.stderr.strip().splitlines()[-1]
    assert 'cannot be used' in message
    assert '`aiida-mlpotential demo --fresh`' in message
    DemoDirectory(directory).remove()
    assert not directory.exists()
    assert _open(directory, tmp_path / 'home').stdout.startswith('True')


def test_states(tmp_path: Path) -> None:
    """What is there decides what may be done with it."""
    demo = DemoDirectory(tmp_path / 'demo')
    assert demo.state() == 'absent'
    demo.path.mkdir()
    assert demo.state() == 'absent'
    (demo.path / 'thesis.tex').touch()
    assert demo.state() == 'foreign'
    for content in ('', 'null', '{}', '{"complete": false}'):
        assert _mark(demo.path, content).state() == 'unfinished'
    assert _mark(demo.path, json.dumps({'complete': True})).state() == 'complete'


@pytest.mark.parametrize('fresh', [False, True])
def test_never_touches_another_directory(tmp_path: Path, fresh: bool) -> None:
    """A directory without the marker is neither used nor removed."""
    (tmp_path / 'thesis.tex').touch()
    demo = DemoDirectory(tmp_path)
    with pytest.raises(DemoError, match='was not made by the demo, which neither uses nor removes it'):
        demo.check(fresh)
    for action in (demo.open, demo.remove):
        with pytest.raises(DemoError, match='was not made by the demo'):
            action()
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_half_made(tmp_path: Path) -> None:
    """What an interrupted run left is not used; a fresh start is allowed."""
    demo = _mark(tmp_path / 'demo', '{"complete": false}')
    with pytest.raises(DemoError, match='was left half-made: run `aiida-mlpotential demo --fresh`'):
        demo.check(fresh=False)
    demo.check(fresh=True)
    demo.remove()
    assert not demo.path.exists()
    demo.remove()  # nothing is there to remove, which is fine


def test_daemon_in_the_way(tmp_path: Path) -> None:
    """A directory is not pulled from under a running daemon; a stale process ID does not count."""
    demo = _mark(tmp_path / 'demo', '{"complete": true}')
    daemon = demo.configuration / 'daemon'
    daemon.mkdir(parents=True)
    (daemon / 'circus-demo.pid').write_text(str(os.getpid()))
    demo.check(fresh=False)
    with pytest.raises(DemoError, match='verdi -p demo daemon stop'):
        demo.remove()
    (daemon / 'circus-demo.pid').write_text('999999999')
    demo.remove()
    assert not demo.path.exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """A path that is a file, or lies below one, cannot be used."""
    (tmp_path / 'file').touch()
    with pytest.raises(DemoError, match='was not made by the demo'):
        DemoDirectory(tmp_path / 'file').check(fresh=False)
    with pytest.raises(DemoError, match=r'cannot be used \(NotADirectoryError') as caught:
        DemoDirectory(tmp_path / 'file' / 'demo').open()
    assert '--fresh' not in caught.value.message  # there is nothing to make anew


def test_directory_without_permission(tmp_path: Path, monkeypatch) -> None:
    """One that cannot be read is said as such."""

    def fail(self: DemoDirectory) -> None:
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(DemoDirectory, 'state', fail)
    with pytest.raises(DemoError, match=r'cannot be read \(Permission denied\): choose another --directory'):
        DemoDirectory(tmp_path / 'demo').open()


def test_path_that_aiida_would_split(tmp_path: Path) -> None:
    """AIIDA_PATH is a list: a colon in a name would make two of it."""
    with pytest.raises(DemoError, match="must not contain ':'"):
        DemoDirectory(tmp_path / 'a:b')


def test_default_directory(monkeypatch, tmp_path: Path) -> None:
    """The data directory of the user, by the XDG specification, which ignores relative paths."""
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.delenv('XDG_DATA_HOME', raising=False)
    usual = tmp_path / '.local' / 'share' / 'aiida-mlpotential' / 'demo'
    assert default_directory() == usual
    monkeypatch.setenv('XDG_DATA_HOME', 'relative')
    assert default_directory() == usual
    monkeypatch.setenv('XDG_DATA_HOME', '/data')
    assert default_directory() == Path('/data/aiida-mlpotential/demo')
