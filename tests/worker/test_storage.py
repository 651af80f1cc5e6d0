"""Results on disk: complete from the start, resumable at any moment, and honest about a full disk."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

from aiida_mlpotential.worker import storage
from aiida_mlpotential.worker.errors import FrameStatus, WorkerError
from aiida_mlpotential.worker.storage import ResultsFile, ResultsStore, Sizes

OFFSETS = np.array([0, 2, 5, 6, 6, 10])
NAMES = ('energies', 'forces', 'stress', 'member_energies')


def _store(path, **kwargs) -> ResultsStore:
    return ResultsStore(path, OFFSETS, NAMES, Sizes(n_members=3, **kwargs))


def _values(indices, seed=1):
    random = np.random.default_rng(seed)
    n, atoms = len(indices), int(np.diff(OFFSETS)[indices].sum())
    return {
        'energies': random.normal(size=n),
        'forces': random.normal(size=(atoms, 3)),
        'stress': random.normal(size=(n, 3, 3)),
        'member_energies': random.normal(size=(3, n)),
    }


def _load(path, name):
    return np.load(path / 'arrays' / f'{name}.npy', allow_pickle=False)


def test_files_are_complete_before_anything_is_computed(tmp_path):
    _store(tmp_path).open('job')
    assert _load(tmp_path, 'forces').shape == (10, 3)
    assert _load(tmp_path, 'member_energies').shape == (3, 5)
    assert all(np.isnan(_load(tmp_path, name)).all() for name in NAMES)
    assert (_load(tmp_path, 'status') == FrameStatus.PENDING).all()
    assert _load(tmp_path, 'offsets').tolist() == OFFSETS.tolist()


def test_batches_in_any_order_end_where_they_belong(tmp_path):
    store = _store(tmp_path)
    store.open('job')
    expected = _values(np.arange(5))
    for batch in ([4, 0], [2, 3], [1]):
        indices = np.array(batch)
        atoms = np.concatenate([np.arange(OFFSETS[i], OFFSETS[i + 1]) for i in batch])
        part = {
            'energies': expected['energies'][indices],
            'forces': expected['forces'][atoms],
            'stress': expected['stress'][indices],
            'member_energies': expected['member_energies'][:, indices],
        }
        store.write(indices, part, np.zeros(len(indices)))
    store.sync()
    store.close()
    for name in NAMES:
        np.testing.assert_array_equal(_load(tmp_path, name), expected[name])
    assert (_load(tmp_path, 'status') == FrameStatus.OK).all()


def test_rows_for_atoms_and_matrices_end_where_they_belong(tmp_path):
    store = ResultsStore(tmp_path, OFFSETS, ('charges', 'hessian'))
    store.open('job')
    sizes = 9 * np.diff(OFFSETS) ** 2
    starts = np.concatenate([[0], np.cumsum(sizes)])
    expected = {'charges': np.arange(10.0), 'hessian': np.arange(float(sizes.sum()))}
    for batch in ([4, 0], [2, 3], [1]):
        atoms = np.concatenate([np.arange(OFFSETS[i], OFFSETS[i + 1]) for i in batch])
        elements = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in batch])
        part = {'charges': expected['charges'][atoms], 'hessian': expected['hessian'][elements]}
        store.write(np.array(batch), part, np.zeros(len(batch)))
    for name, values in expected.items():
        np.testing.assert_array_equal(_load(tmp_path, name), values)
    np.testing.assert_array_equal(store.read('hessian', 1), expected['hessian'][starts[1] : starts[2]])
    np.testing.assert_array_equal(store.read('charges', 4), [6, 7, 8, 9])


def test_in_single_precision_forces_are_small_and_energies_are_not(tmp_path):
    _store(tmp_path, single=True).open('job')
    assert _load(tmp_path, 'forces').dtype == np.float32
    assert _load(tmp_path, 'energies').dtype == _load(tmp_path, 'member_energies').dtype == np.float64


def test_an_earlier_run_is_continued(tmp_path):
    first = _store(tmp_path)
    first.open('job')
    first.write(np.array([1]), _values([1]), np.array([FrameStatus.OK]))
    first.close()
    second = _store(tmp_path)
    second.open('job')
    assert second.status.tolist() == [1, 0, 1, 1, 1]
    np.testing.assert_array_equal(second.read('forces', 1), _values([1])['forces'])
    np.testing.assert_array_equal(second.read('member_energies', 1), _values([1])['member_energies'][:, 0])


@pytest.mark.parametrize('damage', ['cut', 'missing', 'other shape', 'other job', 'no fingerprint', 'other offsets'])
def test_damaged_files_of_an_earlier_run_are_not_trusted(tmp_path, damage):
    first = _store(tmp_path)
    first.open('job')
    first.write(np.array([1]), _values([1]), np.array([FrameStatus.OK]))
    path = tmp_path / 'arrays' / 'forces.npy'
    if damage == 'cut':
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == 'missing':
        path.unlink()
    elif damage == 'other job':
        path.with_name('fingerprint.txt').write_text('another')
    elif damage == 'no fingerprint':
        path.with_name('fingerprint.txt').unlink()
    elif damage == 'other offsets':
        np.save(path.with_name('offsets.npy'), np.array([0, 1, 5, 6, 6, 10]))
    else:
        np.save(path, np.zeros((4, 3)))
    second = _store(tmp_path)
    second.open('job')
    assert (second.status == FrameStatus.PENDING).all()


def _full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ('number', 'text'), [(errno.ENOSPC, 'No space left'), (errno.EDQUOT, 'quota exceeded')], ids=['disk', 'quota']
)
def test_a_full_disk_is_named_at_the_start(tmp_path, monkeypatch, number, text):
    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage.os, 'fsync', full)
    with pytest.raises(WorkerError, match=text) as caught:
        _store(tmp_path).open('job')
    assert caught.value.label == 'ERROR_DISK_FULL'


def test_a_full_disk_is_named_in_the_middle(tmp_path, monkeypatch):
    store = _store(tmp_path)
    store.open('job')
    monkeypatch.setattr(storage.os, 'pwrite', _full)
    with pytest.raises(WorkerError, match='No space left'):
        store.write(np.array([1]), _values([1]), np.array([FrameStatus.OK]))


def test_the_results_file_can_be_written_on_a_full_disk(tmp_path, monkeypatch):
    file = ResultsFile(tmp_path)
    file.reserve({'state': 'running'})
    size = file.path.stat().st_size
    monkeypatch.setattr(storage.os, 'fsync', _full)
    file.write({'state': 'failed'})
    assert json.loads(file.path.read_text()) == {'state': 'failed'}
    assert file.path.stat().st_size == size


def test_the_files_of_a_parent_are_taken_over_and_no_others(tmp_path):
    first = _store(tmp_path / 'parent')
    first.open('job')
    first.write(np.array([1]), _values([1]), np.array([FrameStatus.OK]))
    first.close()
    other = _store(tmp_path)
    other.open('another job')
    assert (other.status == FrameStatus.PENDING).all()
    second = _store(tmp_path)
    second.open('job')
    assert second.status.tolist() == [1, 0, 1, 1, 1]


@pytest.mark.parametrize('name', ['offsets', 'status', 'energies'])
def test_empty_files_after_a_crash_of_the_node_begin_anew(tmp_path, name):
    """The fingerprint may have reached the disk, and not what stood before it."""
    first = _store(tmp_path)
    first.open('job')
    first.write(np.array([1]), _values([1]), np.array([FrameStatus.OK]))
    first.close()
    (tmp_path / 'arrays' / f'{name}.npy').write_bytes(b'')
    second = _store(tmp_path)
    second.open('job')
    assert (second.status == FrameStatus.PENDING).all()
