"""The tasks by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..errors import WorkerError

if TYPE_CHECKING:
    from .base import Task

#: Module and class of each task.
TASKS: dict[str, tuple[str, str]] = {
    'single_point': ('single_point', 'SinglePoint'),
    'geometry_optimization': ('geometry_optimization', 'GeometryOptimization'),
    'vibrations': ('vibrations', 'Vibrations'),
    'thermochemistry': ('thermochemistry', 'Thermochemistry'),
}


def get_task(name: str) -> type[Task]:
    """Return the class of a task."""
    try:
        module, cls = TASKS[name]
    except KeyError:
        raise WorkerError('ERROR_JOB_INVALID', f'unknown task {name!r}; there are {", ".join(sorted(TASKS))}') from None
    task: type[Task] = getattr(importlib.import_module(f'.{module}', __name__), cls)
    return task
