"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_for(condition: Callable[[], Any], seconds: float = 150.0, what: str = '') -> Any:
    """Return the first true value of a condition; fail if it takes too long."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f'not after {seconds:g} seconds: {what or condition}'
        time.sleep(0.05)
    return value
