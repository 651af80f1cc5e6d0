"""Model files are checked before anything is believed: damaged and hostile ones are refused, and none is run."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.base import ModelFileError
from aiida_mlpotential.worker.backends.sgdml import files
from aiida_mlpotential.worker.backends.sgdml.files import (
    descriptor_orders,
    distance_unit,
    energy_unit,
    pairs,
    read_model,
)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        """Return what a pickle would call."""
        return os.mkdir, (str(self.path),)


def _array(name: str, folder: Path) -> np.ndarray:
    with np.load(folder / 'ethanol_kcal_ang.npz', allow_pickle=False) as file:
        return file[name]


def test_read(folder, variant) -> None:
    """A model is read as numpy reads it, without the pickles that lie in every such file."""
    model = read_model(folder / f'{variant}.npz')
    with np.load(folder / f'{variant}.npz', allow_pickle=False) as file:
        with pytest.raises(ValueError, match='Object arrays'):
            file['f_err']
        for name in ('z', 'R_desc', 'R_d_desc_alpha', 'perms', 'tril_perms_lin', 'c', 'std', 'sig'):
            assert np.array_equal(model.arrays[name], file[name]), name
        assert np.array_equal(model.descriptors, file['R_desc'].T)
    assert model.numbers.tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
    assert not model.relative
    units = ('kcal/mol', 'angstrom') if variant == 'ethanol_kcal_ang' else ('Hartree', 'bohr')
    assert (energy_unit(model), distance_unit(model)) == units
    assert model.texts['dataset_theory'] == 'ANI-1ccx'


def test_other_forms(alter) -> None:
    """Bytes for texts, a model without ``std``, one without energies, and one with energy constraints are fine."""
    model = read_model(alter(type=np.array(b'm'), std=None, use_E=np.array(False), alphas_E=np.ones(120), e_unit=None))
    assert model.arrays['std'] == 1.0
    assert model.relative
    assert model.arrays['alphas_E'].tolist() == [1.0] * 120
    assert energy_unit(model) is None


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'type': np.array('t')}, 'a training task, not a trained model'),
        ({'type': np.array('d')}, 'a data set, not a trained model'),
        ({'type': None}, 'no file of sGDML, not a trained model'),
        ({'lattice': np.eye(3)}, 'has a lattice'),
        ({'z': None}, "lacks 'z'"),
        ({'tril_perms_lin': None}, "lacks 'tril_perms_lin'"),
        ({'z': np.array([6, 6, 8, 1, 1, 1, 1, 1], dtype='u1')}, "'R_desc' has shape"),
        ({'z': np.array([6, 6, 8, 1, 1, 1, 1, 1, 0])}, 'atomic numbers'),
        ({'z': np.full((9,), 6.0)}, "'z' is float64"),
        ({'R_desc': np.ones((36, 0))}, "'R_desc' has shape"),
        ({'R_desc': np.ones((120, 36))}, "'R_desc' has shape"),
        ({'R_desc': np.zeros((36, 120))}, 'not positive'),
        ({'R_d_desc_alpha': np.full((120, 36), np.nan)}, "'R_d_desc_alpha' has numbers that are not finite"),
        ({'R_d_desc_alpha': np.ones((119, 36))}, "'R_d_desc_alpha' has shape"),
        ({'R_d_desc_alpha': np.ones((120, 36), dtype=complex)}, "'R_d_desc_alpha' is complex128"),
        ({'c': np.array(np.inf)}, "'c' has numbers that are not finite"),
        ({'c': np.zeros(3)}, "'c' is float64 of shape"),
        ({'sig': np.array(0)}, 'must be positive'),
        ({'std': np.array(-1.0)}, 'must be positive'),
        ({'alphas_E': np.ones(7)}, "'alphas_E' has shape"),
        ({'perms': np.zeros((6, 9), dtype=int)}, 'not permutations'),
        ({'perms': np.zeros((0, 9), dtype=int)}, 'not permutations'),
        ({'perms': np.arange(9)[None, ::-1]}, 'different elements'),
        ({'tril_perms_lin': np.full(216, 10**9)}, "does not belong to 'perms'"),
        ({'code_version': np.array('x' * 5000)}, 'has 20000 bytes'),
        ({'e_unit': np.array('meV')}, "energy unit of the file is 'meV'"),
        ({'r_unit': np.array('nm')}, "distance unit of the file is 'nm'"),
    ],
)
def test_refused(alter, changes, message) -> None:
    """What the library would exit on, or use without a look, is refused in one sentence."""
    with pytest.raises(ModelFileError, match=message):
        _units_too(read_model(alter(**changes)))


def _units_too(model: files.SgdmlModel) -> None:
    energy_unit(model)
    distance_unit(model)


def test_small_files_do_not_become_large_tables(alter, monkeypatch) -> None:
    """A million orders of 1000 atoms pack to little, and would be tables of terabytes."""
    monkeypatch.setattr(files, 'descriptor_orders', lambda _: pytest.fail('made before the sizes were compared'))
    with pytest.raises(ModelFileError, match="does not belong to 'perms'"):
        read_model(alter(perms=np.tile(np.arange(9, dtype='u1'), (1000, 1))))


@pytest.mark.parametrize('name', ['z', 'R_desc', 'perms', 'c', 'type', 'e_unit'])
def test_pickles_are_not_loaded(alter, tmp_path, name) -> None:
    """An object array in the place of any array that is read is refused by its header, and never runs."""
    array = np.empty((), dtype=object)
    array[()] = Hostile(tmp_path / 'trap')
    with pytest.raises(ModelFileError, match=f"'{name}' is a pickled object"):
        read_model(alter(**{name: array}))
    assert not (tmp_path / 'trap').exists()


def test_pickles_have_two_guards(alter, tmp_path, monkeypatch) -> None:
    """Were the header not looked at, numpy would still not unpickle anything."""
    monkeypatch.setattr(files._Members, '_check_header', lambda *_: None)
    array = np.empty((), dtype=object)
    array[()] = Hostile(tmp_path / 'trap')
    with pytest.raises(ModelFileError, match='Object arrays cannot be loaded'):
        read_model(alter(c=array))
    assert not (tmp_path / 'trap').exists()


def test_pickles_that_are_not_needed_are_left_alone(alter, tmp_path) -> None:
    """The pickles that sGDML itself puts into its files are not looked at."""
    array = np.empty((), dtype=object)
    array[()] = Hostile(tmp_path / 'trap')
    read_model(alter(f_err=array))
    assert not (tmp_path / 'trap').exists()
    with np.load(tmp_path / 'altered.npz', allow_pickle=True) as file:
        file['f_err']
    assert (tmp_path / 'trap').exists()  # it would have worked


def test_header_that_promises_too_much(alter) -> None:
    """A header that asks for a petabyte is refused before numpy reserves it, and so is one that is too long."""
    buffer = io.BytesIO()
    header = {'descr': '<f8', 'fortran_order': False, 'shape': (36, 10**13)}
    np.lib.format.write_array_header_1_0(buffer, header)
    with pytest.raises(ModelFileError, match="'R_desc' is shorter or longer than its header says"):
        read_model(alter(R_desc=buffer.getvalue()))
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (), }" + b' ' * 60000
    with pytest.raises(ModelFileError, match='Header info length'):
        read_model(alter(c=b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text + bytes(8)))
    with pytest.raises(ModelFileError, match=r'version \(3, 0\)'):
        read_model(alter(c=b'\x93NUMPY\x03\x00' + struct.pack('<I', 10) + b' ' * 10))


def test_zip_bomb(alter, tmp_path) -> None:
    """What unpacks to far more than it is, is not unpacked; nor is what has thousands of members."""
    target = alter()
    with zipfile.ZipFile(target, 'a', zipfile.ZIP_DEFLATED) as archive, archive.open('bomb.npy', 'w') as member:
        for _ in range(80):
            member.write(bytes(1 << 20))
    with pytest.raises(ModelFileError, match='it unpacks from'):
        read_model(target)
    many = tmp_path / 'many.npz'
    with zipfile.ZipFile(many, 'w') as archive:
        for index in range(files.MAX_MEMBERS + 1):
            archive.writestr(f'a{index}.npy', b'')
    with pytest.raises(ModelFileError, match='members'):
        read_model(many)


def test_too_large(alter, monkeypatch) -> None:
    """There is a limit on size whatever the ratio."""
    monkeypatch.setattr(files, 'MAX_BYTES', 100000)
    with pytest.raises(ModelFileError, match='it unpacks from'):
        read_model(alter())


@pytest.mark.parametrize('name', ['../z.npy', '/etc/z.npy', 'a/b.npy', 'z', '$(touch trap).npy', 'z.npy\n.npy'])
def test_member_names(alter, name) -> None:
    """Only names that an array can have are accepted."""
    target = alter()
    with zipfile.ZipFile(target, 'a') as archive:
        archive.writestr(name, b'')
    with pytest.raises(ModelFileError, match='is not the name of an array'):
        read_model(target)


def test_members_that_contradict(alter) -> None:
    """Neither two members of one name nor a way of packing that numpy does not use is accepted."""
    target = alter()
    with zipfile.ZipFile(target, 'a') as archive, warnings.catch_warnings(action='ignore'):
        archive.writestr('z.npy', b'')
    with pytest.raises(ModelFileError, match='is there twice'):
        read_model(target)
    target = alter()
    with zipfile.ZipFile(target, 'a', zipfile.ZIP_LZMA) as archive:
        archive.writestr('more.npy', b'')
    with pytest.raises(ModelFileError, match='packed as numpy never does'):
        read_model(target)


def test_broken_files(folder, tmp_path) -> None:
    """A text, a file cut short at any place and a folder are refused; a missing file is missing."""
    broken = tmp_path / 'broken.npz'
    whole = (folder / 'ethanol_kcal_ang.npz').read_bytes()
    for content in (b'', b'hello', whole[:1000], whole[:-100], whole[:50000] + bytes(20) + whole[50020:]):
        broken.write_bytes(content)
        with pytest.raises(ModelFileError, match=r'not an \.npz file of sGDML|damaged'):
            read_model(broken)
    with pytest.raises(ModelFileError):
        read_model(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_model(tmp_path / 'absent.npz')


@pytest.mark.parametrize(
    ('text', 'unit'),
    [
        ('kcal/mol', 'kcal/mol'),
        ('kcal mol^-1', 'kcal/mol'),
        ('kJ/mol', 'kJ/mol'),
        ('eV', 'eV'),
        ('EV', 'eV'),
        ('Hartree', 'Hartree'),
        ('a.u.', 'Hartree'),
        (' Eh ', 'Hartree'),
        ('furlong', None),
        ('', None),
    ],
)
def test_energy_units(alter, text, unit) -> None:
    """The usual spellings are understood, others say nothing."""
    assert energy_unit(read_model(alter(e_unit=np.array(text)))) == unit


@pytest.mark.parametrize(
    ('text', 'unit'),
    [
        ('Ang', 'angstrom'),
        ('Angstrom', 'angstrom'),
        ('Å', 'angstrom'),
        ('\u212b', 'angstrom'),
        ('A', 'angstrom'),
        ('bohr', 'bohr'),
        ('Bohr', 'bohr'),
        ('a.u.', 'bohr'),
        ('a0', 'bohr'),
        ('parsec', None),
    ],
)
def test_distance_units(alter, text, unit) -> None:
    """The usual spellings are understood, others say nothing."""
    assert distance_unit(read_model(alter(r_unit=np.array(text)))) == unit


def test_descriptor_orders() -> None:
    """Permuting a descriptor is the same as permuting the atoms first."""
    random = np.random.default_rng(1)
    positions = random.normal(size=(6, 3))
    first, second = pairs(6)
    order = random.permutation(6)
    distances = np.linalg.norm(positions[first] - positions[second], axis=1)
    permuted = np.linalg.norm(positions[order][first] - positions[order][second], axis=1)
    assert np.array_equal(distances[descriptor_orders(order[None])[0]], permuted)
