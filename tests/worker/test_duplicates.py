"""A job that was submitted twice: the second worker waits, and does only what the first left to do."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from aiida_mlpotential.worker.lock import WorkLock
from aiida_mlpotential.worker.schema import JOB_FILE, LOCK_FILE, RESULTS_FILE


@pytest.fixture
def second(job, monkeypatch):
    """Return a worker that waits in the directory of a finished job for another one, and the lock of that one."""
    job.run()
    monkeypatch.delenv('SLURM_JOB_ID', raising=False)
    first = WorkLock(job.directory)
    assert first.acquire()
    process = subprocess.Popen(
        [sys.executable, '-m', 'aiida_mlpotential.worker', JOB_FILE],
        cwd=job.directory,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert 'waiting' in process.stdout.readline()
    yield first, process
    first.release()
    process.stdout.close()
    process.wait()


def test_what_the_first_finished_is_not_touched(job, second):
    first, process = second
    before = (job.directory / RESULTS_FILE).stat()
    first.release()
    assert 'the other worker finished this job' in process.communicate(timeout=60)[0]
    assert process.returncode == 0
    after = (job.directory / RESULTS_FILE).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not (job.directory / LOCK_FILE).exists()


def test_what_the_first_left_undone_is_done(job, second):
    first, process = second
    energies = job.array('energies')
    shutil.rmtree(job.directory / 'arrays')
    first.release()
    assert '7 of 7 structures evaluated' in process.communicate(timeout=60)[0]
    assert process.returncode == 0
    np.testing.assert_array_equal(job.array('energies'), energies)


def test_a_signal_ends_the_waiting(job, second):
    _, process = second
    process.terminate()
    assert 'asked to stop before the other worker had ended' in process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert (job.directory / LOCK_FILE).exists()
