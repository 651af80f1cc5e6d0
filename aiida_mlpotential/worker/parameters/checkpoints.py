"""The parameter of tasks that take checkpoints."""

from __future__ import annotations

from .base import Parameter, is_number

_MAX_SECONDS = 86400

CHECKPOINT_INTERVAL = Parameter(
    'checkpoint_interval',
    60,
    f'a number of seconds from 0 to {_MAX_SECONDS}',
    'Seconds between two checkpoints: what a killed job loses at most.',
    lambda value: is_number(value, 0, _MAX_SECONDS),
)
