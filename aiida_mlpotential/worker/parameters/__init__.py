"""The keys of a job's parameters: default, meaning and what is allowed, checked before submission and by the worker."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ..schema import JobSpec
from .base import Parameter
from .common import ROWS as COMMON

__all__ = (
    'Parameter',
    'fingerprint',
    'parameters_hash',
    'parameters_of',
    'result_parameters',
    'validate_parameters',
    'with_defaults',
)

#: Characters of a wrong value that a message shows.
_MAX_SHOWN = 200
#: The module with the rows of each task that has some of its own.
_MODULES: dict[str, str] = {
    'geometry_optimization': 'geometry_optimization',
    'vibrations': 'vibrations',
    'thermochemistry': 'thermochemistry',
}


def _module(task: str) -> ModuleType | None:
    return importlib.import_module(f'.{_MODULES[task]}', __name__) if task in _MODULES else None


@functools.cache
def parameters_of(task: str = 'single_point') -> Mapping[str, Parameter]:
    """Return the parameters of a task by name: its own first, then those that all have."""
    module = _module(task)
    own = {parameter.name: parameter for parameter in (module.ROWS if module else ())}
    return {**own, **{parameter.name: own.get(parameter.name, parameter) for parameter in COMMON}}


def validate_parameters(values: Mapping[str, Any], task: str = 'single_point') -> str | None:
    """Return one sentence that names the first wrong key and what is allowed, or ``None`` if all is well."""
    known = parameters_of(task)
    for key, value in values.items():
        parameter = known.get(key)
        if parameter is None:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f'did you mean {close[0]!r}? ' if close else ''
            return f'parameters: unknown key {key!r}; {hint}Allowed are {", ".join(known)}.'
        complaint = parameter.complaint(value)
        if complaint:
            return f'parameters: {key} = {_short(value)} is not valid; {complaint.rstrip(".")}.'
    check_together = getattr(_module(task), 'check_together', None)
    return check_together(with_defaults(values, task)) if check_together else None


def _short(value: Any) -> str:
    """Return a value as a message shows it: of a long one its beginning."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f'{text[:_MAX_SHOWN]} ...'


def with_defaults(values: Mapping[str, Any], task: str = 'single_point') -> dict[str, Any]:
    """Return all parameters of a task, the given ones over the defaults."""
    return {name: values.get(name, parameter.default) for name, parameter in parameters_of(task).items()}


def result_parameters(values: Mapping[str, Any], task: str = 'single_point') -> dict[str, Any]:
    """Return those parameters on which the results depend."""
    complete = with_defaults(values, task)
    chosen = {name: complete[name] for name, parameter in parameters_of(task).items() if parameter.affects_results}
    chosen['properties'] = sorted(set(chosen['properties']) | {'energy'})
    return chosen


def parameters_hash(values: Mapping[str, Any], task: str = 'single_point') -> str:
    """Return a hash of the task and of all parameters on which its results depend, given or not."""
    identity = {'task': task, 'parameters': result_parameters(values, task)}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def fingerprint(job: JobSpec) -> str:
    """Return a hash of all on which the results depend: two jobs with the same one may share results."""
    identity = {
        'task': job.task,
        'model': job.model.sha256,
        'options': dict(job.model.options),
        'backend': job.model.backend,
        'elements': job.model.elements,
        'committee': job.model.committee,
        'units': [job.model.energy_unit, job.model.distance_unit],
        'parameters': result_parameters(job.parameters, job.task),
        'frames': job.frames_sha256,
        'symmetry': job.symmetry_sha256,
        'results_version': job.results_version,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
