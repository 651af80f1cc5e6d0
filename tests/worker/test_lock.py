"""One worker at a time in a work directory; a dead one never blocks the next."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from aiida_mlpotential.worker import lock
from aiida_mlpotential.worker.lock import Owner, WorkLock
from aiida_mlpotential.worker.schema import LOCK_FILE

#: Seconds that are less than a wait for STALE = 1000, and enough for a machine that has much else to do.
AT_ONCE = 30.0


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Let a worker without a sign of life be dead after a second."""
    monkeypatch.delenv('SLURM_JOB_ID', raising=False)
    for name, value in {'BEAT': 0.1, 'POLL': 0.05, 'STALE': 1.0}.items():
        monkeypatch.setattr(lock, name, value)


def _seconds(work_lock):
    begin = time.monotonic()
    assert work_lock.acquire()
    return time.monotonic() - begin


def _leave(directory, **changes):
    """Leave the file of a worker that is gone."""
    owner = dataclasses.replace(Owner.of_this_process(), token='other', **changes)
    (directory / LOCK_FILE).write_bytes(owner.encode(3))


def test_an_empty_directory_is_free_and_is_left_clean(tmp_path):
    with WorkLock(tmp_path) as first:
        assert _seconds(first) < AT_ONCE
        assert not first.has_waited
        assert (tmp_path / LOCK_FILE).exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_second_waits_until_the_first_has_ended(tmp_path, capsys):
    first, second = WorkLock(tmp_path), WorkLock(tmp_path, report=print)
    first.acquire()
    threading.Timer(2.5, first.release).start()  # longer than STALE: the signs of life count
    assert _seconds(second) > 2.0
    assert second.has_waited
    assert not first.is_lost
    assert 'waiting' in capsys.readouterr().out
    second.release()


def test_one_that_is_to_stop_does_not_wait(tmp_path):
    first, second = WorkLock(tmp_path), WorkLock(tmp_path, lambda: True)
    first.acquire()
    assert second.acquire() is False
    second.release()
    assert (tmp_path / LOCK_FILE).exists()
    first.release()


@pytest.mark.parametrize('reaped', [True, False])
def test_a_process_that_was_killed_on_this_machine_blocks_nobody(tmp_path, monkeypatch, reaped):
    """Not even while its parent has not asked how it ended."""
    monkeypatch.setattr(lock, 'STALE', 1000.0)
    code = 'import sys, time, pathlib; from aiida_mlpotential.worker.lock import WorkLock\n'
    code += 'WorkLock(pathlib.Path(sys.argv[1])).acquire(); print("in", flush=True); time.sleep(1000)'
    process = subprocess.Popen([sys.executable, '-c', code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'in\n'
    waiting = WorkLock(tmp_path, lambda: True)
    assert not waiting.acquire()
    process.send_signal(signal.SIGKILL)
    while reaped and process.poll() is None:
        time.sleep(0.01)
    with WorkLock(tmp_path) as second:
        assert _seconds(second) < AT_ONCE
    process.wait()
    process.stdout.close()


def test_another_process_with_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, 'STALE', 1000.0)
    _leave(tmp_path, process=(os.getpid(), '1'))
    with WorkLock(tmp_path) as second:
        assert _seconds(second) < AT_ONCE


@pytest.mark.parametrize('process', [(os.getpid(), '1'), None], ids=['no process here', 'a process here'])
@pytest.mark.parametrize(('machine', 'here'), [('another machine', 'this'), ('', 'this'), ('', '')])
def test_one_of_another_machine_is_dead_when_it_gives_no_sign_of_life(tmp_path, monkeypatch, machine, here, process):
    """The numbers of its processes mean nothing here, nor do they where it is not known which machine this is."""
    _leave(tmp_path, machine=machine, **({'process': process} if process else {}))
    monkeypatch.setattr(lock, '_machine', lambda: here)
    with WorkLock(tmp_path) as second:
        assert 0.9 < _seconds(second) < AT_ONCE


def test_the_same_job_that_the_scheduler_started_again_waits_for_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, 'STALE', 1000.0)
    _leave(tmp_path, machine='another machine', job='77', restarts=0)
    monkeypatch.setenv('SLURM_JOB_ID', '77')
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    with WorkLock(tmp_path) as second:
        assert _seconds(second) < AT_ONCE


def test_two_processes_of_one_job_wait_for_each_other(tmp_path, monkeypatch):
    """As with several MPI processes by mistake: neither is a restart of the other."""
    monkeypatch.setenv('SLURM_JOB_ID', '77')
    first, second = WorkLock(tmp_path), WorkLock(tmp_path, lambda: True)
    assert first.acquire()
    assert not second.acquire()
    first.release()


@pytest.mark.parametrize('content', [b'', b'{"token":', b'[]', b'\x00' * 512])
def test_a_damaged_file_blocks_for_a_while_only(tmp_path, content):
    (tmp_path / LOCK_FILE).write_bytes(content)
    with WorkLock(tmp_path) as second:
        assert _seconds(second) < AT_ONCE


def test_of_several_that_replace_a_dead_one_at_once_one_stays(tmp_path, monkeypatch):
    _leave(tmp_path, machine='another machine')
    together = threading.Barrier(4, timeout=10)

    def is_dead(self, other):
        if other.token == 'other':
            together.wait()
        return other.token == 'other'

    monkeypatch.setattr(Owner, 'is_dead', is_dead)
    monkeypatch.setattr(lock, 'STALE', 1000.0)
    locks = [WorkLock(tmp_path) for _ in range(4)]
    inside, most, guard = [], [], threading.Lock()

    def work(work_lock):
        assert work_lock.acquire()
        with guard:
            inside.append(1)
            most.append(len(inside))
        time.sleep(0.3)
        with guard:
            inside.pop()
        work_lock.release()

    threads = [threading.Thread(target=work, args=(work_lock,)) for work_lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
    assert list(tmp_path.iterdir()) == []


def test_one_that_was_replaced_notices_and_leaves_the_file_to_the_other(tmp_path):
    first = WorkLock(tmp_path)
    first.acquire()
    other = tmp_path / 'other'
    other.write_bytes(dataclasses.replace(Owner.of_this_process(), token='other').encode(0))
    other.replace(tmp_path / LOCK_FILE)
    deadline = time.monotonic() + 5
    while not first.is_lost:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.release()
    assert Owner.decode((tmp_path / LOCK_FILE).read_bytes()).token == 'other'


def test_a_directory_that_cannot_be_written_is_for_others_to_complain_about(tmp_path):
    with WorkLock(tmp_path / 'missing') as work_lock:
        assert work_lock.acquire()


@pytest.mark.parametrize('left', [True, False], ids=['of a dead one', 'none'])
def test_a_full_disk_is_for_others_to_complain_about(tmp_path, monkeypatch, left):
    """There is no room for a sign of life: the worker goes on, and leaves nothing that would stop another one."""
    monkeypatch.setattr(lock, 'STALE', 1000.0)
    if left:
        _leave(tmp_path, process=(os.getpid(), '1'))

    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    before = list(tmp_path.iterdir())
    monkeypatch.setattr(lock.os, 'pwrite', full)
    with WorkLock(tmp_path) as work_lock:
        assert _seconds(work_lock) < AT_ONCE
        assert list(tmp_path.iterdir()) == before
    assert list(tmp_path.iterdir()) == before


def test_signs_of_life_have_one_length(tmp_path):
    owner = Owner.of_this_process()
    assert len(owner.encode(0)) == len(owner.encode(10**9))
    assert Owner.decode(owner.encode(5)) == owner
