"""The interval of checkpoints: seconds, zero for one after each batch."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.parameters.checkpoints import CHECKPOINT_INTERVAL


@pytest.mark.parametrize('value', [0, 0.5, 60, 86400])
def test_seconds_up_to_a_day(value):
    assert CHECKPOINT_INTERVAL.complaint(value) is None


@pytest.mark.parametrize('value', [-1, 86401, '60', None, True])
def test_anything_else_is_refused(value):
    assert 'seconds' in CHECKPOINT_INTERVAL.complaint(value)


def test_a_restart_may_change_it():
    assert not CHECKPOINT_INTERVAL.affects_results
