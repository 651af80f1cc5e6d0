"""Checkpoints: one that is whole and of the very same job, or none."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.checkpoint import CheckpointFile
from aiida_mlpotential.worker.errors import WorkerError
from aiida_mlpotential.worker.schema import CHECKPOINT_DIRECTORY, PARENT_DIRECTORY

STATE = {'positions': np.arange(6.0).reshape(2, 3), 'names': np.array(['a', 'bc'])}


def _file(directory, fingerprint='job', **kwargs):
    return CheckpointFile(directory, fingerprint, 10, **kwargs)


def _path(directory):
    return directory / CHECKPOINT_DIRECTORY / 'state.npz'


def test_what_was_saved_is_loaded(tmp_path):
    _file(tmp_path).save(STATE)
    loaded = _file(tmp_path).load()
    assert set(loaded) == set(STATE)
    for name, array in STATE.items():
        np.testing.assert_array_equal(loaded[name], array)


def test_the_last_one_counts(tmp_path):
    file = _file(tmp_path)
    file.save(STATE)
    file.save({'positions': np.zeros(1)})
    assert file.load()['positions'].shape == (1,)
    assert sorted(path.name for path in _path(tmp_path).parent.iterdir()) == ['state.npz']


def test_another_job_begins_anew(tmp_path):
    _file(tmp_path).save(STATE)
    assert _file(tmp_path, 'other').load() is None


def test_without_a_checkpoint_there_is_none_but_its_directory(tmp_path):
    """A job that goes on from here copies the directory, whether or not there was time for a checkpoint."""
    assert _file(tmp_path).load() is None
    assert _path(tmp_path).parent.is_dir()


@pytest.mark.parametrize('keep', [0, 10, 200])
def test_one_that_was_cut_short_is_none(tmp_path, keep):
    file = _file(tmp_path)
    file.save(STATE)
    _path(tmp_path).write_bytes(_path(tmp_path).read_bytes()[:keep])
    assert file.load() is None


def test_that_of_the_parent_counts_where_there_is_none_here(tmp_path):
    parent = tmp_path / PARENT_DIRECTORY
    _file(parent).save(STATE)
    file = _file(tmp_path)
    np.testing.assert_array_equal(file.load()['positions'], STATE['positions'])
    file.save({'positions': np.ones(1)})
    np.testing.assert_array_equal(file.load()['positions'], [1])


def test_it_is_due_after_its_interval(tmp_path):
    now = [0.0]
    file = _file(tmp_path, clock=lambda: now[0])
    assert not file.due()
    now[0] = 10
    assert file.due()
    file.save(STATE)
    assert not file.due()


def test_a_full_disk_has_a_name_and_keeps_the_old_one(tmp_path, monkeypatch):
    file = _file(tmp_path)
    file.save(STATE)

    def full(handle, arrays, compress):
        handle.write(b'x')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('aiida_mlpotential.worker.checkpoint.write_npz', full)
    with pytest.raises(WorkerError) as error:
        file.save({})
    assert error.value.label == 'ERROR_DISK_FULL'
    assert set(file.load()) == set(STATE)
    assert sorted(path.name for path in _path(tmp_path).parent.iterdir()) == ['state.npz']


def test_nothing_is_under_way_after_remove(tmp_path):
    file = _file(tmp_path)
    file.save(STATE)
    file.remove()
    file.remove()
    assert file.load() is None


def test_a_checkpoint_with_objects_is_not_read(tmp_path):
    """Nothing is ever unpickled, whoever put it there."""
    file = _file(tmp_path)
    np.savez(_path(tmp_path), fingerprint=np.array('job'), evil=np.array([{}], dtype=object))
    assert file.load() is None


def test_one_with_flipped_bits_is_none_or_whole(tmp_path):
    """Whatever the bits ask for, such as an encryption or compression that there is not."""
    file, random = _file(tmp_path), np.random.default_rng(1)
    file.save(STATE)
    whole = _path(tmp_path).read_bytes()
    found = []
    for _ in range(1500):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] = random.integers(256)
        _path(tmp_path).write_bytes(damaged)
        found.append(file.load())
    assert sum(state is None for state in found) > 700
    for state in found:
        assert state is None or set(state) == set(STATE)
