"""Tests of the set of frames and its file."""

import io
import struct
import zipfile

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_mlpotential.worker.frames import Frames, FramesError, sha256_of, write_npz


@pytest.fixture
def structures():
    return [molecule('H2O'), Atoms(), bulk('Cu'), molecule('CH4')]


@pytest.fixture
def frames(structures):
    return Frames.from_ase(structures, labels=['water', '', 'copper', 'methane'])


def content(frames):
    stream = io.BytesIO()
    frames.write(stream)
    return stream.getvalue()


def test_from_ase(frames, structures):
    assert len(frames) == 4
    assert frames.n_atoms == 9
    assert frames.counts.tolist() == [3, 0, 1, 5]
    assert frames.offsets.tolist() == [0, 3, 3, 4, 9]
    assert frames.frame_of_atom.tolist() == [0] * 3 + [2] + [3] * 5
    assert list(frames) == structures
    assert frames.numbers.dtype == np.uint8


def test_from_generator_and_nothing(structures):
    assert len(Frames.from_ase(atoms for atoms in structures)) == 4
    empty = Frames.from_ase([])
    assert (len(empty), empty.n_atoms) == (0, 0)
    assert len(Frames.read(io.BytesIO(content(empty)))) == 0


def test_labels(frames, structures):
    assert [frames.label(index) for index in range(4)] == ['water', '#1', 'copper', 'methane']
    assert Frames.from_ase(structures).label(2) == '#2'


def test_select(frames, structures):
    some = frames.select([3, 1, 0, 3])
    assert list(some) == [structures[index] for index in (3, 1, 0, 3)]
    assert some.labels == ('methane', '', 'water', 'methane')
    assert frames.atom_indices(np.array([3, 0])).tolist() == [4, 5, 6, 7, 8, 0, 1, 2]
    assert len(frames.select([])) == 0


def test_file_is_read_back(frames, tmp_path):
    frames.write(tmp_path / 'x.npz')
    for source in (tmp_path / 'x.npz', str(tmp_path / 'x.npz'), io.BytesIO(content(frames))):
        again = Frames.read(source)
        for name in ('numbers', 'positions', 'offsets', 'cells', 'pbc'):
            assert np.array_equal(getattr(again, name), getattr(frames, name))
        assert again.labels == frames.labels


def test_file_is_reproducible(frames, structures):
    assert content(frames) == content(Frames.read(io.BytesIO(content(frames))))
    structures[0].positions[0, 0] += 1e-9
    assert content(Frames.from_ase(structures, frames.labels)) != content(frames)
    assert content(Frames.from_ase(list(frames))) != content(frames)  # without labels


def test_nan_survives(structures):
    structures[0].positions[0, 0] = np.nan
    frames = Frames.read(io.BytesIO(content(Frames.from_ase(structures))))
    assert np.isnan(frames.positions[0, 0])


@pytest.mark.parametrize('number', [256, 257, -1])
def test_atomic_numbers_are_not_wrapped(number):
    """256 + 1 in one byte is hydrogen."""
    with pytest.raises(FramesError, match=f'{number} is not the atomic number of an element'):
        Frames.from_ase([Atoms(numbers=[number], positions=[[0, 0, 0]])])


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('positions', np.zeros((8, 3)), r'positions has shape \(8, 3\), expected \(9, 3\) for 4 frames'),
        ('positions', np.zeros((9, 2)), 'positions has shape'),
        ('cells', np.zeros((4, 9)), 'cells has shape'),
        ('pbc', np.zeros((3, 3), dtype=bool), 'pbc has shape'),
        ('offsets', np.array([0, 3, 2, 4, 9]), 'offsets must rise from 0 to the number of atoms, 9'),
        ('offsets', np.array([1, 3, 3, 4, 9]), 'offsets must rise'),
        ('offsets', np.array([0, 3, 3, 4, 8]), 'offsets must rise'),
        ('labels', ('one',), '1 labels for 4 frames'),
    ],
)
def test_inconsistent_arrays(frames, name, value, message):
    arrays = {key: getattr(frames, key) for key in ('numbers', 'positions', 'offsets', 'cells', 'pbc', 'labels')}
    with pytest.raises(FramesError, match=message):
        Frames(**{**arrays, name: value})


def test_damaged_files(frames, tmp_path):
    good = content(frames)
    for damaged in (b'', b'text', good[:40], good[: len(good) // 2], good[:-20]):
        with pytest.raises(FramesError, match='not a set of frames'):
            Frames.read(io.BytesIO(damaged))
    with pytest.raises(FileNotFoundError):
        Frames.read(tmp_path / 'absent.npz')


def test_wrong_members():
    stream = io.BytesIO()
    write_npz(stream, {'numbers': np.zeros(1, 'u1')})
    with pytest.raises(FramesError, match='not a set of frames: KeyError'):
        Frames.read(io.BytesIO(stream.getvalue()))


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_object_arrays_are_never_unpickled(frames, tmp_path):
    arrays = {name: getattr(frames, name) for name in ('numbers', 'positions', 'offsets', 'cells', 'pbc')}
    arrays['positions'] = np.array([Hostile(tmp_path / 'pwned')], dtype=object)
    np.savez(tmp_path / 'hostile.npz', **arrays)
    with pytest.raises(FramesError, match='Object arrays cannot be loaded'):
        Frames.read(tmp_path / 'hostile.npz')
    with pytest.raises(ValueError, match='allow_pickle=False'):
        write_npz(io.BytesIO(), {'x': arrays['positions']})
    assert not (tmp_path / 'pwned').exists()


def test_write_npz_is_independent_of_order_and_time():
    a, b = io.BytesIO(), io.BytesIO()
    arrays = {'x': np.arange(3), 'y': np.zeros((2, 2))}
    write_npz(a, arrays, compress=False)
    write_npz(b, dict(reversed(arrays.items())), compress=False)
    assert a.getvalue() == b.getvalue()
    with zipfile.ZipFile(a) as archive:
        assert archive.namelist() == ['x.npy', 'y.npy']
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    c = io.BytesIO()
    write_npz(c, arrays)
    with zipfile.ZipFile(c) as archive:
        assert archive.infolist()[0].compress_type == zipfile.ZIP_DEFLATED


def test_bytes_without_compression_are_the_same_in_all_versions_of_python():
    """The hashes of the published models rest on it; before Python 3.11.4 zipfile wrote another header."""
    stream = io.BytesIO()
    write_npz(stream, {'x': np.arange(3.0), 'y': np.zeros((2, 2))}, compress=False)
    header = struct.unpack('<4sHHHHHLLL', stream.getvalue()[:26])
    assert header[1] == 45  # the version of the format that has Zip64
    assert header[7:] == (0xFFFFFFFF, 0xFFFFFFFF)  # the sizes are in the Zip64 field
    assert sha256_of(stream.getvalue()) == 'a7b079708348a3f2efed8962f578bbbb3517cf8d469023f24ea26b6a55b096a1'


def test_what_does_not_shrink_is_not_compressed():
    """Random digits, as positions of conformers have, take a tenth of the time to write and to read."""
    stream = io.BytesIO()
    positions = np.random.default_rng(1).normal(size=(20_000, 3))
    write_npz(stream, {'positions': positions, 'cells': np.zeros((20_000, 3))})
    with zipfile.ZipFile(stream) as archive:
        methods = {info.filename: info.compress_type for info in archive.infolist()}
    assert methods['positions.npy'] == zipfile.ZIP_STORED
    assert methods['cells.npy'] == zipfile.ZIP_DEFLATED
    stream.seek(0)
    assert np.array_equal(np.load(stream, allow_pickle=False)['positions'], positions)


def test_sha256_of(tmp_path):
    data = b'x' * 3_000_000
    (tmp_path / 'f').write_bytes(data)
    sums = {sha256_of(data), sha256_of(tmp_path / 'f'), sha256_of(str(tmp_path / 'f')), sha256_of(io.BytesIO(data))}
    assert len(sums) == 1
    assert sha256_of(b'') == 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
