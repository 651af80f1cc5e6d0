"""Arrays from elsewhere: whatever is wrong with a file, one sentence says so, and nothing is unpickled."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from aiida import orm

from aiida_mlpotential.data.npy import NpyFile
from aiida_mlpotential.data.results import ResultsData, ResultsError

pytestmark = pytest.mark.usefixtures('aiida_profile')


def npy(array, **kwargs):
    """Return the content of an array file."""
    stream = io.BytesIO()
    np.save(stream, array, **kwargs)
    return stream.getvalue()


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_object_arrays_are_never_unpickled(arrays, tmp_path, make_folder, info):
    content = npy(np.array([Hostile(tmp_path / 'pwned')] * 4, dtype=object), allow_pickle=True)
    for name in ('energies', 'status', 'offsets', 'forces'):
        with pytest.raises(ResultsError, match=rf'{name}.npy holds values of type \|O, expected'):
            ResultsData.from_folder(make_folder(arrays, **{name: content}), info)
    with pytest.raises(ResultsError, match=r'energies\.npy is no array'):
        ResultsData.from_folder(make_folder(arrays, energies=pickle.dumps(Hostile(tmp_path / 'pwned'))), info)
    assert not (tmp_path / 'pwned').exists()


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        ('energies', lambda a: npy(a)[:-3], r'energies.npy is truncated: 157 bytes, expected 160'),
        ('forces', lambda a: npy(a) + b'x', r'forces.npy is too long'),
        ('energies', lambda a: npy(a)[:40], r'energies.npy is no array file'),
        ('energies', lambda a: b'', r'energies.npy is no array file'),
        ('energies', lambda a: npy(a).replace(b"'shape': (4,)", b"'shape': (-4)"), r'energies.npy is no array file'),
        ('energies', lambda a: npy(a[:2]), r'energies.npy has shape \(2,\), expected \(4,\) for 4 structures'),
        ('energies', lambda a: npy(a.astype('f4')), r'energies.npy holds values of type <f4, expected <f8'),
        ('energies', lambda a: npy(a.astype('c16')), r'energies.npy holds values of type <c16'),
        ('forces', lambda a: npy(a.astype('f2')), r'forces.npy holds values of type <f2, expected <f8 or <f4'),
        ('forces', lambda a: npy(a[:-1]), r'forces.npy has shape \(10, 3\), expected \(11, 3\)'),
        ('forces', lambda a: npy(np.asfortranarray(a)), r'forces.npy is in Fortran order'),
        ('charges', lambda a: npy(a[:-1]), r'charges.npy has shape \(10,\), expected \(11,\)'),
        ('hessian', lambda a: npy(a[:-1]), r'hessian.npy has shape \(350,\), expected \(351,\)'),
        ('stress', lambda a: npy(a[:, :2]), r'stress.npy has shape \(4, 2, 3\), expected \(4, 3, 3\)'),
        ('member_energies', lambda a: npy(a[:, :2]), r'has shape \(4, 2\), expected \(members, 4\)'),
        ('member_energies', lambda a: npy(a[0]), r'has shape \(4,\), expected \(members, 4\)'),
        ('status', lambda a: npy(a[:2]), r'status.npy has shape'),
        ('status', lambda a: npy(a + np.int8(77)), r'status.npy has the value 77, which no status has'),
        ('offsets', lambda a: npy(a[::-1].copy()), r'offsets.npy must rise from 0'),
        ('offsets', lambda a: npy(a[:1]), r'offsets.npy must rise from 0'),
        ('offsets', lambda a: npy(a[:-1]), r'has shape'),
        ('energies', lambda a: None, r'the array energies.npy is missing'),
        ('status', lambda a: None, r'the array status.npy is missing'),
        ('offsets', lambda a: None, r'the array offsets.npy is missing'),
    ],
)
def test_damaged_arrays(arrays, name, change, message, make_folder, info):
    with pytest.raises(ResultsError, match=message) as caught:
        ResultsData.from_folder(make_folder(arrays, **{name: change(arrays[name])}), info)
    assert len(str(caught.value).splitlines()) == 1


def test_missing_folder(info):
    with pytest.raises(ResultsError, match="there is no folder 'arrays'"):
        ResultsData.from_folder(orm.FolderData().store(), info)


def test_unknown_files_are_left_alone(arrays, make_folder, info):
    results = ResultsData.from_folder(make_folder(arrays, other=b'not mine'), info)
    assert 'other' not in results.get_arraynames()


def test_a_file_is_not_copied_to_be_checked(arrays, make_folder, monkeypatch):
    repository = make_folder(arrays).base.repository
    monkeypatch.setattr(type(repository), 'as_path', lambda *args: pytest.fail('a copy on the disk'))
    assert NpyFile.inspect(repository, 'arrays/forces.npy', 'forces').shape == (11, 3)
