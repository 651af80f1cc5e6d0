"""What queries need to know of AiiDA's processes: the states in which one has ended, and the types of ours."""

from __future__ import annotations

from aiida.engine import ProcessState

#: States of a process that nobody works on any more.
TERMINATED = tuple(state.value for state in (ProcessState.FINISHED, ProcessState.EXCEPTED, ProcessState.KILLED))

_PREFIX = 'aiida.calculations:mlpotential.'


def process_type(task: str) -> str:
    """Return the process type of the calculations of a task."""
    return f'{_PREFIX}{task}'


def task_of(process_type: str | None) -> str | None:
    """Return the task of a process, or ``None`` if it is none of our calculations."""
    return process_type.removeprefix(_PREFIX) if process_type and process_type.startswith(_PREFIX) else None
