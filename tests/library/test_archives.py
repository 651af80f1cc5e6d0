"""Archives of models: round trip, and everything that a hostile one may try; nothing is written outside the folder."""

from __future__ import annotations

import io
import itertools
import json
import os
import stat
import struct
import zipfile

import pytest

from aiida_mlpotential.data import model_files
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.library import archives
from aiida_mlpotential.library.archives import is_export, unpack, write_archive
from aiida_mlpotential.worker.backends.base import ModelFileError

pytestmark = pytest.mark.usefixtures('aiida_profile_clean', 'file_facts')


@pytest.fixture
def node(tmp_path):
    folder = tmp_path / 'model'
    (folder / 'sub').mkdir(parents=True)
    (folder / 'params.yml').write_bytes(b'a: 1')
    (folder / 'sub' / 'weights').write_bytes(bytes(range(256)))
    return ModelData.from_file(folder, backend='pinn', name='x').store()


@pytest.fixture
def content(node):
    stream = io.BytesIO()
    write_archive(node, stream)
    return stream.getvalue()


@pytest.fixture
def entries(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def open_archive(tmp_path):
    """Return a function that unpacks an archive given as bytes, and checks that nothing came to lie elsewhere."""

    numbers = itertools.count()

    def run(content):
        inside = tmp_path / 'a' / f'{next(numbers)}' / 'inside'
        inside.mkdir(parents=True)
        path = tmp_path / 'model.zip'
        path.write_bytes(content)
        before = {item for item in tmp_path.rglob('*') if inside not in item.parents}
        try:
            return unpack(path, inside)
        finally:
            assert {item for item in tmp_path.rglob('*') if inside not in item.parents} == before

    return run


def pack(entries, **extra):
    """Return an archive of entries, given as (name or ZipInfo, bytes)."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', **extra) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return stream.getvalue()


def test_round_trip(content, entries, open_archive, node):
    unpacked = open_archive(content)
    (path,) = unpacked.paths
    assert (path / 'sub' / 'weights').read_bytes() == bytes(range(256))
    assert unpacked.manifest.files == node.files
    assert list(entries) == ['model.json', 'parameters/params.yml', 'parameters/sub/weights']


def test_same_bytes_each_time(content, node):
    """Neither the time nor the node is in it."""
    stream = io.BytesIO()
    write_archive(node.clone().store(), stream)
    assert stream.getvalue() == content
    with zipfile.ZipFile(stream) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert node.uuid.encode() not in content


def test_packed_by_another_program(entries, open_archive):
    """With compression, and entries for the directories."""
    others = [*entries.items(), ('parameters/', b'')]
    assert open_archive(pack(others, compression=zipfile.ZIP_DEFLATED)).manifest.name == 'x'


def test_unpacked_by_another_program(entries, tmp_path):
    source, inside = tmp_path / 'unzipped', tmp_path / 'inside'
    inside.mkdir()
    for name, data in entries.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    assert is_export(source)
    assert unpack(source, inside).manifest.name == 'x'
    (source / 'parameters' / 'link').symlink_to('/etc/passwd')
    with pytest.raises(ModelFileError, match="symbolic link 'link'"):
        unpack(source, tmp_path)


def test_what_is_an_export(tmp_path):
    assert is_export(tmp_path / 'absent.ZIP')
    assert not is_export(tmp_path / 'model.npz')
    assert not is_export(tmp_path)
    (tmp_path / 'model.json').write_text('{"format": "another"}')
    assert not is_export(tmp_path)
    (tmp_path / 'model.json').write_text('{')
    assert not is_export(tmp_path)
    (tmp_path / 'model.json').unlink()
    os.mkfifo(tmp_path / 'model.json')
    assert not is_export(tmp_path)  # and does not wait for somebody to write to it


@pytest.mark.parametrize(
    'name',
    [
        '../../escaped',
        '/tmp/escaped',
        'parameters/../../escaped',
        'parameters//escaped',
        'parameters/./escaped',
        'C:\\escaped',
        'parameters\\..\\escaped',
        'parameters/$(touch escaped)',
        'parameters/a\nb',
        'parameters/-rf',
        'other',
        'parameters',
        'sub/',
    ],
)
def test_names(entries, open_archive, name):
    """Path traversal, and names that do harm later."""
    with pytest.raises(ModelFileError, match=r'is not plain|is no part of an exported model|damaged|not those'):
        open_archive(pack([*entries.items(), (name, b'x' if not name.endswith('/') else b'')]))


def test_links_and_devices(entries, open_archive):
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR):
        info = zipfile.ZipInfo('parameters/link')
        info.external_attr = (kind | 0o777) << 16
        with pytest.raises(ModelFileError, match='is a link or a device, not a file'):
            open_archive(pack([*entries.items(), (info, b'/etc/passwd')]))


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_duplicates(entries, open_archive):
    with pytest.raises(ModelFileError, match='has an entry twice'):
        open_archive(pack([*entries.items(), ('parameters/params.yml', b'other')]))


def test_case_collision(entries, open_archive):
    with pytest.raises(ModelFileError, match=r"'parameters/params\.yml' and 'parameters/Params\.yml' differ in case"):
        open_archive(pack([*entries.items(), ('parameters/Params.yml', b'other')]))


def test_file_and_folder_of_one_name(entries, open_archive):
    with pytest.raises(ModelFileError, match='damaged'):
        open_archive(pack([*entries.items(), ('parameters/params.yml/x', b'other')]))


def test_zip_bomb(entries, open_archive):
    bomb = pack([*entries.items(), ('parameters/zeros', bytes(1 << 24))], compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 16
    with pytest.raises(ModelFileError, match=r'is 16777216 bytes in .*: it is a zip bomb'):
        open_archive(bomb)


def test_too_large_together(entries, open_archive, monkeypatch):
    monkeypatch.setattr(archives, 'MAX_BYTES', -archives.MAX_MANIFEST + 10)
    with pytest.raises(ModelFileError, match='the archive would be'):
        open_archive(pack(entries.items()))


def test_too_many_entries(entries, open_archive):
    many = pack([*entries.items(), *((f'parameters/{number}', b'') for number in range(1100))])
    with pytest.raises(ModelFileError, match='too many entries, allowed are 1000'):
        open_archive(many)


def test_table_of_contents_that_lies(content, open_archive, monkeypatch):
    """The number of entries says little: zipfile reads as many bytes as the table claims to have."""
    at = content.rfind(b'PK\x05\x06')
    lying = content[: at + 12] + struct.pack('<L', 1 << 30) + content[at + 16 :]
    monkeypatch.setattr(zipfile, 'ZipFile', lambda *_: pytest.fail('nobody should open it'))
    with pytest.raises(ModelFileError, match='too many entries'):
        open_archive(lying)


def test_64_bit_table_of_contents(content, open_archive):
    at = content.rfind(b'PK\x05\x06')
    with pytest.raises(ModelFileError, match='too many entries'):
        open_archive(content[:at] + b'PK\x06\x07' + bytes(16) + content[at:])


def test_size_that_lies(entries, open_archive):
    """An entry gives more bytes than its header says."""
    content = bytearray(pack(entries.items()))
    name = b'parameters/sub/weights'
    central = content.rfind(b'PK\x01\x02', 0, content.rfind(name))
    content[central + 24 : central + 28] = struct.pack('<L', 10)
    with pytest.raises(ModelFileError, match=r'damaged|larger than it says'):
        open_archive(bytes(content))


def test_encrypted(entries, open_archive):
    content = bytearray(pack(entries.items()))
    central = content.find(b'PK\x01\x02')
    content[central + 8] |= 1
    with pytest.raises(ModelFileError, match='is encrypted or of an unknown kind'):
        open_archive(bytes(content))


def test_other_compression(entries, open_archive):
    with pytest.raises(ModelFileError, match='compressed in an unknown way: pack it with deflate'):
        open_archive(pack(entries.items(), compression=zipfile.ZIP_LZMA))


@pytest.mark.parametrize('cut', [0, 10, 100, -1, -30, -200])
def test_truncated(content, open_archive, cut):
    with pytest.raises(ModelFileError, match=r'no zip archive|is empty|has no model\.json'):
        open_archive(content[:cut])


def test_every_byte_matters(content, open_archive, tmp_path):
    """A flipped byte in the parameters or in their list is found, wherever it is."""
    for position in range(0, content.rfind(b'PK\x05\x06'), 97):
        broken = bytearray(content)
        broken[position] ^= 0x41
        try:
            unpacked = open_archive(bytes(broken))
        except ModelFileError:
            continue
        # what is left are times, versions and texts that say nothing of the parameters
        assert set(unpacked.manifest.files.values()) == set(json.loads(entries_of(content))['files'].values())


def entries_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read('model.json')


def test_wrong_hash(entries, open_archive):
    entries['parameters/params.yml'] = b'a: 2'
    with pytest.raises(ModelFileError, match=r"the file 'params\.yml' has sha256 .*, expected .*: get the model again"):
        open_archive(pack(entries.items()))


def test_file_that_is_missing(entries, open_archive):
    del entries['parameters/params.yml']
    with pytest.raises(ModelFileError, match=r"not those that model\.json lists: 'params\.yml'"):
        open_archive(pack(entries.items()))


def test_file_that_is_too_much(entries, open_archive):
    with pytest.raises(ModelFileError, match=r"not those that model\.json lists: 'more'"):
        open_archive(pack([*entries.items(), ('parameters/more', b'1')]))


def test_no_manifest(entries, open_archive):
    del entries['model.json']
    with pytest.raises(ModelFileError, match=r'has no model\.json, so it is no exported model: name the parameter'):
        open_archive(pack(entries.items()))


def test_large_manifest(entries, open_archive):
    entries['model.json'] += b' ' * archives.MAX_MANIFEST
    with pytest.raises(ModelFileError, match=r'model\.json in the archive is larger'):
        open_archive(pack(entries.items()))


@pytest.mark.timeout(20)
def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / 'x.zip')
    with pytest.raises(ModelFileError, match='is neither a file nor a directory'):
        unpack(tmp_path / 'x.zip', tmp_path)
    (tmp_path / 'link.zip').symlink_to('/etc/passwd')
    with pytest.raises(ModelFileError, match='is a symbolic link'):
        unpack(tmp_path / 'link.zip', tmp_path)
    with pytest.raises(FileNotFoundError, match='there is no model file'):
        unpack(tmp_path / 'absent.zip', tmp_path)
    with (tmp_path / 'huge.zip').open('wb') as stream:
        stream.truncate(model_files.MAX_BYTES + 1)
    with pytest.raises(ModelFileError, match='is larger than'):
        unpack(tmp_path / 'huge.zip', tmp_path / 'model')


def test_damaged_repository(node, monkeypatch):
    """What is not the model any more is not exported as it."""
    monkeypatch.setattr(type(node), 'files', property(lambda self: {'params.yml': 'ab' * 32}))
    with pytest.raises(ValueError, match=r'has sha256 .*: the repository of the profile is damaged'):
        write_archive(node, io.BytesIO())
