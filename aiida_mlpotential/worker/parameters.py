"""The keys of a job's parameters: default, meaning and what is allowed, checked before submission and by the worker."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import numbers
import re
from collections.abc import Callable, Mapping
from typing import Any

from .schema import PROPERTIES, JobSpec

Check = Callable[[Any], bool]

_MAX_DISTANCE = 10  # angstrom: beyond it nothing is too close
_MAX_THREADS = 1024
_MAX_ATOMS = 10**9
_MAX_MEGABYTES = 10**8


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One key of the parameters."""

    name: str
    default: Any
    allowed: str
    help: str
    check: Check
    #: False for keys that change how fast or where, but not what, is computed: a restart may change these.
    affects_results: bool = False


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_integer_up_to(value: Any, most: int, least: int = 1) -> bool:
    return _is_integer(value) and least <= value <= most


def _is_properties(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) and item in PROPERTIES for item in value)


def _is_device(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r'|cpu|cuda(:\d{1,3})?', value) is not None


def _is_distance(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MAX_DISTANCE


PARAMETERS: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter(
            'properties',
            ['energy', 'forces'],
            f'a list of {", ".join(PROPERTIES)}',
            'What to compute. The energy, and for an ensemble its members and spread, are always there.',
            _is_properties,
            affects_results=True,
        ),
        Parameter(
            'precision',
            'single',
            'single, double',
            'Float type of the model; energies are summed in double precision in either case.',
            lambda value: value in ('single', 'double'),
            affects_results=True,
        ),
        Parameter(
            'minimum_distance',
            0.4,
            f'a distance in angstrom from 0 to {_MAX_DISTANCE}',
            'Structures with two atoms closer than this (angstrom) get the status ATOMS_TOO_CLOSE; 0 switches it off.',
            _is_distance,
            affects_results=True,
        ),
        Parameter(
            'reorder_atoms',
            False,
            'true, false',
            'Bring the atoms of each structure into the order that a model for one molecule (sGDML) wants, and its '
            'results back. Without it a structure in another order gets the status ATOM_ORDER.',
            lambda value: isinstance(value, bool),
            affects_results=True,
        ),
        Parameter(
            'device',
            '',
            '"" (GPU if there is one, else CPU), cpu, cuda, cuda:N',
            'Device to compute on. A GPU that is asked for and absent is an error.',
            _is_device,
        ),
        Parameter(
            'device_fallback',
            False,
            'true, false',
            'Compute on the CPU, and say so, where the requested GPU is absent.',
            lambda value: isinstance(value, bool),
        ),
        Parameter(
            'num_threads',
            None,
            f'an integer from 1 to {_MAX_THREADS}, or null (what the scheduler grants)',
            'Threads on the CPU: sets OMP_NUM_THREADS and the threads of the backend library.',
            lambda value: value is None or _is_integer_up_to(value, _MAX_THREADS),
        ),
        Parameter(
            'batch_atoms',
            None,
            'an integer, 1 or larger, or null (automatic)',
            'Largest number of atoms evaluated in one batch; a structure larger than this is a batch of its own.',
            lambda value: value is None or _is_integer_up_to(value, _MAX_ATOMS),
        ),
        Parameter(
            'memory_limit',
            None,
            'a number of megabytes, 256 or larger, or null (what is available)',
            'Memory (MB) that the worker may take on the CPU before it halves a batch or gives up on a structure.',
            lambda value: value is None or _is_integer_up_to(value, _MAX_MEGABYTES, least=256),
        ),
    )
}


def validate_parameters(values: Mapping[str, Any]) -> str | None:
    """Return one sentence that names the first wrong key and what is allowed, or ``None`` if all is well."""
    for key, value in values.items():
        parameter = PARAMETERS.get(key)
        if parameter is None:
            close = difflib.get_close_matches(str(key), PARAMETERS, n=1)
            hint = f'did you mean {close[0]!r}? ' if close else ''
            return f'parameters: unknown key {key!r}; {hint}Allowed are {", ".join(PARAMETERS)}.'
        if not parameter.check(value):
            return f'parameters: {key} = {value!r} is not valid; it must be {parameter.allowed}.'
    return None


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return all parameters, the given ones over the defaults."""
    return {name: values.get(name, parameter.default) for name, parameter in PARAMETERS.items()}


def result_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those parameters on which the results depend."""
    complete = with_defaults(values)
    chosen = {name: complete[name] for name, parameter in PARAMETERS.items() if parameter.affects_results}
    chosen['properties'] = sorted(set(chosen['properties']) | {'energy'})
    return chosen


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
        'parameters': result_parameters(job.parameters),
        'frames': job.frames_sha256,
        'results_version': job.results_version,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
