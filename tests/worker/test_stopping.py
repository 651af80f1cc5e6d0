"""Asking a job to stop: by a signal, or by a file in its work directory."""

from __future__ import annotations

from aiida_mlpotential.worker.schema import STOP_FILE
from aiida_mlpotential.worker.stopping import StopRequest


def test_nobody_asked(tmp_path):
    request = StopRequest(tmp_path, lambda: False)
    assert not request()
    assert request.reason == ''


def test_a_signal(tmp_path):
    signals = []
    request = StopRequest(tmp_path, lambda: bool(signals))
    assert not request()
    signals.append(15)
    assert request()
    assert 'SIGTERM' in request.reason


def test_a_file_is_seen_within_a_second_and_not_looked_for_all_the_time(tmp_path):
    now = [0.0]
    request = StopRequest(tmp_path, lambda: False, clock=lambda: now[0])
    assert not request()
    (tmp_path / STOP_FILE).touch()
    now[0] = 0.9
    assert not request()
    now[0] = 1.0
    assert request()
    assert STOP_FILE in request.reason


def test_once_asked_it_stays_asked(tmp_path):
    path = tmp_path / STOP_FILE
    path.touch()
    request = StopRequest(tmp_path, lambda: False)
    assert request()
    path.unlink()
    assert request()
