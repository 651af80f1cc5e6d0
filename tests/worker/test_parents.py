"""What earlier runs left: a chain of them, of which single ones may have been killed before they did anything."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from aiida_mlpotential.worker.checkpoint import CheckpointFile
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.parents import earlier_runs
from aiida_mlpotential.worker.storage import ResultsStore
from aiida_mlpotential.worker.trajectory import TrajectoryWriter, read_directory

#: What a job copies of the work directory of an earlier run.
COPIED = ('arrays', 'checkpoint', 'trajectory', 'parent')


def _go_on(parent, directory):
    """Make a work directory as the calculation does that goes on from another one."""
    for name in COPIED:
        if (parent / name).exists():
            shutil.copytree(parent / name, directory / 'parent' / name)
    return directory


@pytest.fixture
def last(tmp_path, copper):
    """Return a work directory whose parent was cancelled in the queue; only the parent of that one ran."""
    first = tmp_path / 'first'
    frames = copper(3)
    store = ResultsStore(first, frames.offsets, ['energies'])
    store.open('job')
    store.write(np.array([1]), {'energies': np.array([-1.5])}, np.array([FrameStatus.OK]))
    store.close()
    CheckpointFile(first, 'job', 10).save({'frame': np.array(2)})
    writer = TrajectoryWriter(first, 'job')
    writer.append(np.array([1]), np.array([7]), frames.select([1]), np.zeros(1), np.zeros(1))
    writer.close()
    cancelled = _go_on(first, tmp_path / 'cancelled')
    return _go_on(cancelled, tmp_path / 'last')


def test_the_last_run_comes_first(last):
    assert list(earlier_runs(last)) == [last / 'parent', last / 'parent' / 'parent']


def test_without_a_parent_there_is_none(tmp_path):
    assert list(earlier_runs(tmp_path)) == []


def test_results_of_before_a_cancelled_run_are_gone_on_with(last, copper):
    store = ResultsStore(last, copper(3).offsets, ['energies'])
    store.open('job')
    assert store.status.tolist() == [FrameStatus.PENDING, FrameStatus.OK, FrameStatus.PENDING]
    assert store.read('energies', 1) == -1.5
    store.close()


def test_a_checkpoint_of_before_a_cancelled_run_is_loaded(last):
    assert CheckpointFile(last, 'job', 10).load()['frame'] == 2


def test_a_trajectory_of_before_a_cancelled_run_is_gone_on_with(last):
    TrajectoryWriter(last, 'job').close()
    assert read_directory(last / 'trajectory').frame(1).steps.tolist() == [7]


def test_a_checkpoint_survives_a_run_that_is_killed_before_its_own_first_one(last, tmp_path):
    """It becomes that of this run at once: the next run may be told nothing of the one before."""
    assert CheckpointFile(last, 'job', 10).load() is not None
    shutil.rmtree(last / 'parent')
    third = _go_on(last, tmp_path / 'third')
    assert CheckpointFile(third, 'job', 10).load()['frame'] == 2


def test_files_of_another_job_are_passed_over(last, tmp_path):
    """In between somebody ran something else there."""
    CheckpointFile(last / 'parent', 'another', 10).save({'frame': np.array(0)})
    other = ResultsStore(last / 'parent', Frames.from_ase([]).offsets, ['energies'])
    other.open('another')
    other.close()
    assert CheckpointFile(last, 'job', 10).load()['frame'] == 2
