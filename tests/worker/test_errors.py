"""Errors: every status has a meaning, every exit code a place of its own."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.errors import EXIT_CODES, FRAME_STATUS_HELP, FrameStatus, WorkerError


def test_every_status_is_explained():
    assert set(FRAME_STATUS_HELP) == set(FrameStatus)
    assert all(status.help.endswith('.') for status in FrameStatus)


def test_exit_codes_are_unique_and_outside_the_range_of_aiida():
    assert len({code.status for code in EXIT_CODES}) == len({code.label for code in EXIT_CODES}) == len(EXIT_CODES)
    assert all(300 <= code.status < 500 and '{detail}' in code.message for code in EXIT_CODES)


def test_a_failure_that_another_machine_may_not_have_is_not_cached():
    cached = {code.label for code in EXIT_CODES if not code.invalidates_cache}
    assert cached == {'ERROR_JOB_INVALID', 'ERROR_MODEL_UNSUPPORTED', 'ERROR_PROPERTY_UNAVAILABLE'}


def test_a_worker_error_carries_a_known_label():
    assert WorkerError('ERROR_DISK_FULL', 'no room').to_dict() == {'label': 'ERROR_DISK_FULL', 'message': 'no room'}
    with pytest.raises(ValueError, match='unknown exit code'):
        WorkerError('ERROR_OF_NOBODY', 'no room')
