"""Tests of reading torch files: what is in real ones, and that hostile archives are refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_mlpotential.worker.torchfile import (
    Instance,
    Limits,
    TensorRef,
    TorchFileError,
    open_torch_file,
    read_torch_file,
    walk,
)

TENSOR = (
    b'ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000'
    b'X\x03\x00\x00\x00cpuK\x03tQK\x00K\x03\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR'
)
PICKLE = b'\x80\x02}X\x01\x00\x00\x00w' + TENSOR + b's.'
DATA = np.array([1, 2, 3], '<f4').tobytes()
MEMBERS = {'m/data.pkl': PICKLE, 'm/byteorder': b'little', 'm/data/0': DATA}


def write(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_archive(tmp_path: Path) -> None:
    found = read_torch_file(write(tmp_path / 'm.pt', MEMBERS))
    assert found.kind == 'pickle'
    assert found.globals == {'torch._utils._rebuild_tensor_v2', 'torch.FloatStorage', 'collections.OrderedDict'}
    assert found.root['w'].numpy().tolist() == [1, 2, 3]
    assert found.code == {}


def test_torchscript_archive(tmp_path: Path) -> None:
    constant = b'\x80\x02' + TENSOR + b'\x85.'
    script = b'\x80\x02c__torch__.nets\nNet\n)\x81}X\x01\x00\x00\x00wK\x07sb.'
    members = {
        's/data.pkl': script,
        's/constants.pkl': constant,
        's/constants/0': DATA,
        's/code/__torch__/nets.py': b'class Net(Module):\n',
        's/code/__torch__/nets.py.debug_pkl': b'not read',
    }
    found = read_torch_file(write(tmp_path / 's.pt', members))
    assert found.kind == 'torchscript'
    assert {'__torch__.nets.Net', 'torch.FloatStorage'} <= found.globals
    assert isinstance(found.root, Instance)
    assert found.root.state == {'w': 7}
    assert found.code == {'__torch__/nets.py': 'class Net(Module):\n'}


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='nothing'):
        read_torch_file(tmp_path / 'nothing')


@pytest.mark.parametrize(
    ('members', 'message'),
    [
        ({'m/data.pkl': PICKLE, 'other/data/0': DATA}, 'more than one folder'),
        ({'energies.npy': b'x'}, r'without data\.pkl'),
        ({**MEMBERS, 'm/byteorder': b'big'}, 'big-endian'),
        ({**MEMBERS, '../m/data/0': DATA}, 'outside'),
        ({**MEMBERS, 'm/../../evil': DATA}, 'outside'),
        ({**MEMBERS, '/etc/passwd': DATA}, 'outside'),
        ({**MEMBERS, 'm\\..\\evil': DATA}, 'outside'),
        ({**MEMBERS, 'C:/evil': DATA}, 'outside'),
        ({**MEMBERS, 'm/data.pkl': PICKLE[:-5]}, 'cut short'),
        ({**MEMBERS, 'm/data.pkl': b''}, 'cut short'),
        ({}, '0 members|cut short|neither'),
    ],
)
def test_refused_archives(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(TorchFileError, match=message):
        read_torch_file(write(tmp_path / 'm.pt', members))
    assert [path.name for path in tmp_path.iterdir()] == ['m.pt']


def test_duplicate_members(tmp_path: Path) -> None:
    path = tmp_path / 'm.pt'
    with zipfile.ZipFile(path, 'w') as archive, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for data in (PICKLE, PICKLE.replace(b'FloatStorage', b'LongStorage')):
            archive.writestr('m/data.pkl', data)
    with pytest.raises(TorchFileError, match='two members of one name'):
        read_torch_file(path)


def test_zip_bomb(tmp_path: Path) -> None:
    path = write(tmp_path / 'm.pt', {**MEMBERS, 'm/data/1': bytes(50 << 20)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(TorchFileError, match='zip bomb'):
        read_torch_file(path)


def test_overlapping_members(tmp_path: Path) -> None:
    """Many entries of the list of members that are the same bytes."""
    path = write(tmp_path / 'm.pt', {'m/data.pkl': PICKLE, 'm/data/a': os.urandom(1 << 20), 'm/data/b': b''})
    data = bytearray(path.read_bytes())
    entries = [data.rfind(b'm/data/a') - 46, data.rfind(b'm/data/b') - 46]
    data[entries[1] : entries[1] + 46] = data[entries[0] : entries[0] + 46]
    path.write_bytes(data)
    with pytest.raises(TorchFileError, match=r'overlap|damaged'):
        read_torch_file(path)


@pytest.mark.parametrize(
    ('limits', 'message'),
    [
        (Limits(members=2), '3 members'),
        (Limits(directory=100), 'list of members'),
        (Limits(total=100), 'too large'),
        (Limits(pickle=50), r'data\.pkl.* at most 50'),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, message: str) -> None:
    path = write(tmp_path / 'm.pt', MEMBERS)
    read_torch_file(path)
    with pytest.raises(TorchFileError, match=message):
        read_torch_file(path, limits)


def test_limit_of_the_list_of_members_in_the_large_format(tmp_path: Path) -> None:
    """What torch itself writes: the length in the record of the large format, and all bits set in the small one."""
    path = write(tmp_path / 'm.pt', MEMBERS)
    data = path.read_bytes()
    end = data[-22:]
    count, length, start = struct.unpack('<HII', end[10:20])
    record = b'PK\x06\x06' + struct.pack('<QHHIIQQQQ', 44, 45, 45, 0, 0, count, count, length, start)
    locator = b'PK\x06\x07' + struct.pack('<IQI', 0, len(data) - 22, 1)
    end = end[:8] + b'\xff' * 12 + b'\0\0'
    path.write_bytes(data[:-22] + record + locator + end)
    assert 'w' in read_torch_file(path).root
    with pytest.raises(TorchFileError, match=f'too long, {length} bytes'):
        read_torch_file(path, Limits(directory=length - 1))


def test_limit_of_sources(tmp_path: Path) -> None:
    members = {'s/data.pkl': b'\x80\x02N.', 's/constants.pkl': b'\x80\x02).', 's/code/a.py': b'x' * 500}
    with pytest.raises(TorchFileError, match='sources'):
        read_torch_file(write(tmp_path / 's.pt', members), Limits(code=400))


def test_storages_that_are_not_there_or_of_another_size(tmp_path: Path) -> None:
    path = write(tmp_path / 'm.pt', {**MEMBERS, 'm/data/0': DATA[:-1]})
    with pytest.raises(TorchFileError, match='11 bytes, expected 12'):
        read_torch_file(path)
    path = write(tmp_path / 'n.pt', {'m/data.pkl': PICKLE})
    with pytest.raises(TorchFileError, match='not in the file'):
        read_torch_file(path)
    # A key that looks outside of its folder finds nothing there: only names of members are looked up.
    sly = PICKLE.replace(b'X\x01\x00\x00\x000', b'X\x0b\x00\x00\x00../data.pkl')
    with pytest.raises(TorchFileError, match='not in the file'):
        read_torch_file(write(tmp_path / 'o.pt', {'m/data.pkl': sly}))


def test_a_storage_that_is_said_to_be_larger_than_it_is(tmp_path: Path) -> None:
    """torch would make a tensor of what lies behind it in memory, to be read and written by a TorchScript."""
    for lie in (PICKLE.replace(b'K\x03tQ', b'M\x00\x10tQ'), PICKLE.replace(b'FloatStorage', b'DoubleStorage')):
        with pytest.raises(TorchFileError, match='has 12 bytes, expected'):
            read_torch_file(write(tmp_path / 'm.pt', {**MEMBERS, 'm/data.pkl': lie}))
    other = PICKLE.replace(b'ctorch\nFloatStorage', b'ctorch\nper_tensor_affine')
    with pytest.raises(TorchFileError, match=r"'torch\.per_tensor_affine' is no type of a storage"):
        read_torch_file(write(tmp_path / 'm.pt', {**MEMBERS, 'm/data.pkl': other}))


def test_reading_shared_storages_has_an_end(tmp_path: Path) -> None:
    two = (
        b'\x80\x02}(X\x01\x00\x00\x00w' + TENSOR + b'X\x01\x00\x00\x00v' + TENSOR.replace(b'\x000X', b'\x001X') + b'u.'
    )
    path = write(tmp_path / 'm.pt', {**MEMBERS, 'm/data.pkl': two, 'm/data/1': DATA})
    root = read_torch_file(path, Limits(read=36)).root
    for key in ('w', 'w', 'w', 'v', 'w'):  # the last one that was read is kept
        assert root[key].numpy().tolist() == [1, 2, 3]
    with pytest.raises(TorchFileError, match='no end'):
        root['v'].numpy()


def polyglot(path: Path, good: dict[str, bytes], evil: bytes) -> Path:
    """Write an archive in which zipfile finds ``good``, and torch another ``data.pkl`` of the same length."""
    pickled = good['m/data.pkl']
    assert len(evil) <= len(pickled)
    hidden = write(path, {**good, 'm/data.pkl': evil.ljust(len(pickled))}).read_bytes()
    shown = write(path, good).read_bytes()
    end = hidden.rindex(b'PK\x05\x06')
    data = bytearray(hidden[:end] + shown)
    # zipfile takes the list of members right before the end, torch the one at the offset that is written there
    data[-6:-2] = hidden[end + 16 : end + 20]
    path.write_bytes(data)
    return path


def test_torch_is_given_what_was_judged(tmp_path: Path) -> None:
    members = {**MEMBERS, 'm/version': b'3'}
    path = polyglot(tmp_path / 'm.pt', members, b'\x80\x02}X\x01\x00\x00\x00eK\x01s.')
    file, content = open_torch_file(path)
    path.write_bytes(b'changed after it was judged')
    assert set(file.root) == {'w'}
    with zipfile.ZipFile(content) as archive:
        assert archive.read('m/data.pkl') == PICKLE
    content.seek(0)
    torch = pytest.importorskip('torch')
    polyglot(path, members, b'\x80\x02}X\x01\x00\x00\x00eK\x01s.')
    assert torch.load(path, weights_only=True) == {'e': 1}, 'the test is worth nothing if torch sees the same'
    assert torch.load(content, weights_only=True)['w'].tolist() == [1, 2, 3]


def test_only_what_was_judged_is_handed_on(tmp_path: Path) -> None:
    """Bytecode and the like, which torch could run instead of the sources, are left out."""
    members = {
        's/data.pkl': b'\x80\x02N.',
        's/constants.pkl': b'\x80\x02).',
        's/version': b'3',
        's/code/__torch__.py': b'',
        's/code/__torch__.py.debug_pkl': b'x',
        's/bytecode.pkl': b'x',
        's/extra/hook.txt': b'x',
    }
    file, content = open_torch_file(write(tmp_path / 's.pt', members))
    assert file.kind == 'torchscript'
    assert zipfile.ZipFile(content).namelist() == list(members)[:4]


def test_an_archive_begins_as_one(tmp_path: Path) -> None:
    """Of anything else torch reads the beginning as a pickle, whatever archive stands at the end."""
    data = write(tmp_path / 'm.pt', MEMBERS).read_bytes()
    (tmp_path / 'm.pt').write_bytes(b'PK\n.' + data)
    with pytest.raises(TorchFileError, match='torch did not write it'):
        read_torch_file(tmp_path / 'm.pt')


def test_damaged_bytes_never_crash(tmp_path: Path) -> None:
    good = write(tmp_path / 'm.pt', MEMBERS).read_bytes()
    path = tmp_path / 'bad.pt'
    refused = 0
    random = np.random.default_rng(3)
    for number in range(600):
        data = bytearray(good)
        if number < 300:
            data = data[: int(random.integers(len(good)))]
        else:
            data[int(random.integers(len(good)))] ^= int(random.integers(1, 256))
        path.write_bytes(data)
        try:
            for value in walk(read_torch_file(path).root):
                if isinstance(value, TensorRef):
                    value.numpy()
        except TorchFileError:
            refused += 1
    assert refused > 400


@pytest.mark.parametrize('content', [b'', b'P', b'PK', b'garbage' * 1000, pickle.dumps({'a': 1}), b'\x93NUMPY\x01\x00'])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'file'
    path.write_bytes(content)
    with pytest.raises(TorchFileError):
        read_torch_file(path)


def _legacy(tmp_path: Path, *pickles: Any) -> Path:
    path = tmp_path / 'old.pt'
    magic = 0x1950A86A20F9469CFC6C
    path.write_bytes(b''.join(pickle.dumps(value, 2) for value in (magic, *pickles)) + DATA)
    return path


def test_file_from_before_torch_1_6(tmp_path: Path) -> None:
    found = read_torch_file(_legacy(tmp_path, 1001, {'little_endian': True}, {'weights': [1]}, ['0']))
    assert (found.kind, found.root) == ('legacy', {'weights': [1]})
    with pytest.raises(TorchFileError, match='otherwise'):
        read_torch_file(_legacy(tmp_path, 1002, {'little_endian': True}, {}))
    with pytest.raises(TorchFileError, match=r'cut short|unknown opcode|damaged|occurs'):
        read_torch_file(_legacy(tmp_path, 1001, {'little_endian': True}))
    path = tmp_path / 'old.pt'
    head = _legacy(tmp_path, 1001, {'little_endian': True}).read_bytes()[: -len(DATA)]
    module = b'\x80\x02(X\x06\x00\x00\x00moduleconce.upon\nTime\nX\x01\x00\x00\x00aX\x01\x00\x00\x00btQ)\x81.'
    path.write_bytes(head + module)
    found = read_torch_file(path)
    assert found.root.type == 'once.upon.Time'
    assert found.globals == {'once.upon.Time'}


def test_files_that_torch_writes(tmp_path: Path) -> None:
    torch = pytest.importorskip('torch')
    state = {'a': torch.arange(12.0, dtype=torch.float64).reshape(3, 4).t(), 'b': torch.tensor([True, False])}
    torch.save(state, tmp_path / 'new.pt')
    found = read_torch_file(tmp_path / 'new.pt')
    np.testing.assert_array_equal(found.root['a'].numpy(), state['a'].numpy())
    np.testing.assert_array_equal(found.root['b'].numpy(), state['b'].numpy())
    torch.save(torch.nn.Linear(2, 3), tmp_path / 'old.pt', _use_new_zipfile_serialization=False)
    old = read_torch_file(tmp_path / 'old.pt')
    assert old.kind == 'legacy'
    assert old.root.type == 'torch.nn.modules.linear.Linear'
    weight = old.root.state['_parameters']['weight']
    assert weight.shape == (3, 2)
    with pytest.raises(TorchFileError, match=r'before torch 1\.6'):
        weight.numpy()
    torch.jit.script(torch.nn.Linear(2, 3)).save(str(tmp_path / 'script.pt'))
    script = read_torch_file(tmp_path / 'script.pt')
    assert script.kind == 'torchscript'
    assert script.root.state['weight'].numpy().shape == (3, 2)
    assert any('Linear' in text for text in script.code.values())


def test_a_hostile_file_runs_nothing(tmp_path: Path) -> None:
    target = tmp_path / 'written'
    evil = (
        b'\x80\x02cposix\nsystem\nX' + struct.pack('<I', len(str(target)) + 6) + f'touch {target}'.encode() + b'\x85R.'
    )
    found = read_torch_file(write(tmp_path / 'm.pt', {'m/data.pkl': evil}))
    assert found.globals == {'posix.system'}
    assert not target.exists()
    pickle.load(io.BytesIO(evil))
    assert target.exists(), 'the pickle of this test is not hostile'


def test_real_files(shared_data: Path) -> None:
    found = read_torch_file(shared_data / 'models' / 'torchani' / 'custom_torchscript.pt')
    assert found.kind == 'torchscript'
    assert found.root.type == '__torch__.torchani.arch.ANI'
    assert found.root.state['energy_shifter'].state['self_energies'].numpy().shape == (3,)
    found = read_torch_file(shared_data / 'models' / 'schnetpack' / 'best_model')
    assert found.root.type == 'schnetpack.model.base.NeuralNetworkPotential'
    assert len(found.globals) == 24
