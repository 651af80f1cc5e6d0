"""Parameter files on their way into a node: what is hostile or odd about them is refused before it is read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from aiida_mlpotential.data import model_files
from aiida_mlpotential.data.model_files import (
    check_names,
    copy_file,
    copy_parameters,
    is_inside,
    is_plain,
    model_sha256,
    plain_name,
    show,
)
from aiida_mlpotential.worker.backends.base import ModelFileError
from aiida_mlpotential.worker.frames import sha256_of


def everything(_):
    """Choose all files of a directory."""
    return None


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / 'copy'
    folder.mkdir()
    return folder


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / 'model'
    (folder / 'sub').mkdir(parents=True)
    (folder / 'params.yml').write_text('a: 1')
    (folder / 'sub' / 'weights').write_text('12')
    return folder


ODD = ['; rm -rf ~', '$(reboot)', '`id`', 'a b', 'a\nb', '-rf', '.hidden', 'ü.npz', '*', '[a]', "a'b", 'a"b', 'a\\b']


@pytest.mark.parametrize('name', [*ODD, '', 'x' * 129, 'a//b', '../a', '/a', 'a/', 'a\0b', 'a\x1b[2J'])
def test_what_is_not_plain(name):
    assert not is_plain(name)


@pytest.mark.parametrize('name', ['best_model', 'model.ckpt-3000.data-00000-of-00001', 'member-000/a+b.npz', '0'])
def test_what_is_plain(name):
    assert is_plain(name)
    assert plain_name(name.rpartition('/')[2]) == name.rpartition('/')[2]


@pytest.mark.parametrize('name', [*ODD, 'x' * 300, '\udcff.pt', '.', '..', 'a' * 90 + '.' + 'b' * 90])
def test_every_name_gets_a_plain_one(name):
    plain = plain_name(name)
    assert is_plain(plain)
    assert '/' not in plain


def test_suffix_is_kept():
    assert plain_name('mein Modell (1).npz') == 'mein_Modell__1_.npz'
    assert plain_name('.npz') == 'model.npz'
    assert plain_name('x' * 300 + '.npz') == 'x' * 100 + '.npz'


def test_inside():
    assert is_inside('a b/c;d')  # as an earlier version may have stored it
    assert not any(map(is_inside, ['', '/a', '../a', 'a/../b', 'a//b', 'a/.', 'a\0']))


def test_show_has_no_control_characters():
    assert show('a\x1b[2J\n') == "'a\\x1b[2J\\n'"
    assert len(show('x' * 5000)) < 300


def test_names_that_some_file_systems_take_for_the_same():
    with pytest.raises(ModelFileError, match="'A' and 'a' differ in case only"):
        check_names(['A', 'b', 'a'])
    with pytest.raises(ModelFileError, match=r"file name 'a\\nb' in the model is not plain: rename it"):
        check_names(['a\nb'])
    with pytest.raises(ModelFileError, match='has 1001 files, allowed are 1000'):
        check_names([str(number) for number in range(1001)])


def test_file(tmp_path, target):
    path = tmp_path / 'my model.npz'
    path.write_bytes(b'12345')
    copy = copy_parameters(path, target, everything)
    assert copy.path == target / 'my_model.npz'
    assert copy.path.read_bytes() == b'12345'
    assert (copy.files, copy.original, copy.size) == ({'my_model.npz': copy.path}, 'my model.npz', 5)


def test_name_that_is_no_text(tmp_path, target):
    """A name that is no UTF-8 is kept as far as a database can hold it."""
    path = tmp_path / os.fsdecode(b'\xff.npz')
    path.write_bytes(b'1')
    copy = copy_parameters(path, target, everything)
    assert copy.original == '\\udcff.npz'


def test_directory(model, target):
    copy = copy_parameters(model, target, everything)
    assert sorted(copy.files) == ['params.yml', 'sub/weights']
    assert copy.files['sub/weights'].read_text() == '12'
    assert copy.path == target / 'model'
    assert (copy.original, copy.size) == ('', 6)


def test_only_what_the_backend_needs(model, target):
    """Other files of a training may be large and have any name, and stay where they are."""
    (model / 'events.out; rm -rf ~').write_text('x' * 1000)
    copy = copy_parameters(model, target, lambda path: ['params.yml'], limit=10)
    assert list(copy.files) == ['params.yml']
    assert [path.name for path in copy.path.iterdir()] == ['params.yml']
    with pytest.raises(ModelFileError, match='is not plain: rename it'):
        copy_parameters(model, target, everything)
    with pytest.raises(ModelFileError, match=r"has no file '\.\./\.\./etc/passwd'"):
        copy_parameters(model, target, lambda path: ['../../etc/passwd'])


def test_links_are_refused(tmp_path, model, target):
    (tmp_path / 'link.npz').symlink_to(model / 'params.yml')
    with pytest.raises(ModelFileError, match=r"is a symbolic link: give the file itself, '.*params\.yml'"):
        copy_parameters(tmp_path / 'link.npz', target, everything)
    (tmp_path / 'folder').symlink_to(model)
    with pytest.raises(ModelFileError, match='is a symbolic link'):
        copy_parameters(tmp_path / 'folder', target, everything)
    (model / 'sub' / 'secrets').symlink_to('/etc/passwd')
    with pytest.raises(ModelFileError, match="has the symbolic link 'secrets': put the file itself there"):
        copy_parameters(model, target, everything)


@pytest.mark.timeout(20)
def test_fifos_and_devices_are_refused(tmp_path, model, target):
    """Nobody waits for a FIFO that nothing is written to, nor reads /dev/zero to its end."""
    os.mkfifo(tmp_path / 'fifo')
    for path in (tmp_path / 'fifo', '/dev/zero'):
        with pytest.raises(ModelFileError, match='is neither a file nor a directory'):
            copy_parameters(tmp_path / path, target, everything)
        with pytest.raises(ModelFileError, match='is no regular file'):
            copy_file(tmp_path / path, target / Path(path).name, 10)
    os.mkfifo(model / 'params')
    with pytest.raises(ModelFileError, match="'params' in the model directory is neither a file nor a directory"):
        copy_parameters(model, target, lambda _: pytest.fail('the backend must not look into it'))


def test_sockets_are_refused(model, target, monkeypatch):
    monkeypatch.chdir(model)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind('socket')
        with pytest.raises(ModelFileError, match="'socket' in the model directory is neither"):
            copy_parameters(model, target, everything)


def test_a_link_that_takes_the_place_of_a_file(tmp_path, target):
    """What was a file when it was looked at may be a link when it is opened."""
    (tmp_path / 'link').symlink_to('/etc/passwd')
    with pytest.raises(ModelFileError, match='cannot be read'):
        copy_file(tmp_path / 'link', target / 'x', 10**6)
    assert not (target / 'x').exists()


def test_too_large(tmp_path, target):
    path = tmp_path / 'huge.npz'
    with path.open('wb') as stream:
        stream.truncate(model_files.MAX_BYTES + 1)
    with pytest.raises(ModelFileError, match=r'is larger than 2 GB with .*huge\.npz'):
        copy_parameters(path, target, everything)
    assert sum(item.stat().st_size for item in target.iterdir()) == 0


def test_too_large_together(model, target):
    with pytest.raises(ModelFileError, match='is larger than'):
        copy_parameters(model, target, everything, limit=5)


def test_too_many(model, target, monkeypatch):
    monkeypatch.setattr(model_files, 'MAX_ENTRIES', 2)
    with pytest.raises(ModelFileError, match='has more than 2 entries: copy the files of the model'):
        copy_parameters(model, target, everything)


def test_a_file_that_changes(tmp_path, target, monkeypatch):
    """Half of the old file and half of the new one are no model."""
    path = tmp_path / 'weights'
    path.write_bytes(b'x' * 100)
    real = os.fstat
    calls = []

    def fstat(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            os.utime(path, ns=(1, 1))
        return real(descriptor)

    monkeypatch.setattr(model_files.os, 'fstat', fstat)
    with pytest.raises(ModelFileError, match='changed while it was read: import it when nothing writes to it'):
        copy_parameters(path, target, everything)


def test_a_file_that_grows(tmp_path, target, monkeypatch):
    path = tmp_path / 'weights'
    path.write_bytes(b'x' * 100)
    real = os.fstat

    def fstat(descriptor):
        result = real(descriptor)
        with path.open('ab') as stream:
            stream.write(b'y' * 10)
        return result

    monkeypatch.setattr(model_files.os, 'fstat', fstat)
    with pytest.raises(ModelFileError, match='changed while it was read'):
        copy_parameters(path, target, everything)
    assert (target / 'weights').stat().st_size <= 100  # a file without an end does not fill the disk


def test_what_is_not_there(tmp_path, target):
    with pytest.raises(FileNotFoundError, match='there is no model file'):
        copy_parameters(tmp_path / 'absent', target, everything)
    with pytest.raises(ModelFileError, match='cannot be read'):
        copy_parameters(tmp_path / 'a\0b', target, everything)
    with pytest.raises(ModelFileError, match='File name too long'):
        copy_parameters(tmp_path / ('x' * 5000), target, everything)
    (tmp_path / 'file').touch()
    with pytest.raises(ModelFileError, match='is empty: get it again from its source'):
        copy_parameters(tmp_path / 'file', target, everything)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ModelFileError, match='holds no files'):
        copy_parameters(tmp_path / 'empty', target, everything)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_no_permission(tmp_path, model, target):
    (model / 'params.yml').chmod(0)
    with pytest.raises(ModelFileError, match='cannot be read: Permission denied'):
        copy_parameters(model, target, everything)


def test_hash_of_a_model():
    assert model_sha256({'a': 'ab'}, {'x': 1}) == 'ab'
    assert model_sha256({}, {'x': 1}) == sha256_of(b'{"x":1}')
    assert model_sha256({'b': '1', 'a': '2'}, {}) == sha256_of(b'{"a":"2","b":"1"}')
