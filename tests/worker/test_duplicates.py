"""A job that was submitted twice: the second worker waits, and does only what the first left to do."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from ase.calculators.emt import EMT

from aiida_mlpotential.worker import lock
from aiida_mlpotential.worker.errors import FrameStatus, WorkerError
from aiida_mlpotential.worker.lock import Owner, WorkLock
from aiida_mlpotential.worker.runner import run_job
from aiida_mlpotential.worker.schema import JOB_FILE, LOCK_FILE, RESULTS_FILE
from aiida_mlpotential.worker.storage import ResultsStore


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


@pytest.mark.slow
def test_what_the_first_left_undone_is_done(job, second):
    first, process = second
    energies = job.array('energies')
    shutil.rmtree(job.directory / 'arrays')
    first.release()
    assert '7 of 7 structures evaluated' in process.communicate(timeout=60)[0]
    assert process.returncode == 0
    np.testing.assert_array_equal(job.array('energies'), energies)


def _change(job, **changes):
    path = job.directory / RESULTS_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _set_status(job, status):
    path = job.directory / 'arrays' / 'status.npy'
    values = np.load(path)
    values[2] = status
    np.save(path, values)


@pytest.mark.parametrize(
    'leave',
    [
        lambda job: _change(job, state='stopped'),
        lambda job: _change(job, fingerprint='of another job'),
        lambda job: _set_status(job, FrameStatus.PENDING),
        lambda job: _set_status(job, FrameStatus.BACKEND_FAILED),
        lambda job: (job.directory / 'arrays' / 'status.npy').write_bytes(b''),
    ],
    ids=['it was stopped', 'another job', 'one is left', 'one may do better', 'a file is empty'],
)
@pytest.mark.slow
def test_only_what_is_finished_is_left_alone(job, second, leave):
    first, process = second
    energies = job.array('energies')
    leave(job)
    first.release()
    assert '7 of 7 structures evaluated' in process.communicate(timeout=60)[0]
    assert json.loads((job.directory / RESULTS_FILE).read_text())['state'] == 'finished'
    assert job.array('status').tolist() == [0] * 7
    np.testing.assert_array_equal(job.array('energies'), energies)


def _lose_the_directory(monkeypatch, job, fail):
    """Let another worker take the lock away, and finish the job, while this one computes, which then perhaps fails."""
    calculate = EMT.calculate

    def slow(self, *args, **kwargs):
        path = job.directory / LOCK_FILE
        if Owner.decode(path.read_bytes()).token != 'other':
            other = dataclasses.replace(Owner.of_this_process(), token='other')
            path.with_suffix('.other').write_bytes(other.encode(0))
            path.with_suffix('.other').replace(path)
            (job.directory / RESULTS_FILE).write_text('of the other')
            time.sleep(0.5)
        calculate(self, *args, **kwargs)

    def full(self, *args):
        raise WorkerError('ERROR_DISK_FULL', 'no room')

    monkeypatch.setattr(lock, 'BEAT', 0.05)
    monkeypatch.setattr(EMT, 'calculate', slow)
    if fail:
        monkeypatch.setattr(ResultsStore, 'write', full)


@pytest.mark.parametrize('fail', [False, True], ids=['in order', 'with an error'])
def test_one_that_lost_the_directory_ends_and_writes_nothing(job, monkeypatch, capsys, fail):
    """It had been suspended, say, and another one took its place: the results file is that of the other."""
    _lose_the_directory(monkeypatch, job, fail)
    spec = job.write(batch_atoms=1)
    assert run_job(lambda: spec, job.directory) is False
    assert (job.directory / RESULTS_FILE).read_text() == 'of the other'
    assert Owner.decode((job.directory / LOCK_FILE).read_bytes()).token == 'other'
    assert (job.array('status') == FrameStatus.PENDING).sum() >= 5
    assert ('another worker took this directory over' in capsys.readouterr().out) is not fail


def test_a_signal_ends_the_waiting(job, second):
    _, process = second
    process.terminate()
    assert 'asked to stop before the other worker had ended' in process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert (job.directory / LOCK_FILE).exists()
