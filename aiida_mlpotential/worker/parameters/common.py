"""The parameters that every task has."""

from __future__ import annotations

import re
from typing import Any

from ..quantities import PROPERTIES
from .base import Parameter, is_bool, is_integer_up_to, is_number

_MAX_DISTANCE = 10  # angstrom: beyond it nothing is too close
_MAX_THREADS = 1024
_MAX_ATOMS = 10**9
_MAX_MEGABYTES = 10**8


def _is_properties(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) and item in PROPERTIES for item in value)


def _is_device(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r'|cpu|cuda(:\d{1,3})?', value) is not None


ROWS: tuple[Parameter, ...] = (
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
        lambda value: is_number(value, 0, _MAX_DISTANCE),
        affects_results=True,
    ),
    Parameter(
        'reorder_atoms',
        False,
        'true, false',
        'Bring the atoms of each structure into the order that a model for one molecule (sGDML) wants, and its '
        'results back. Without it a structure in another order gets the status ATOM_ORDER.',
        is_bool,
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
        is_bool,
    ),
    Parameter(
        'num_threads',
        None,
        f'an integer from 1 to {_MAX_THREADS}, or null (what the scheduler grants)',
        'Threads on the CPU: sets OMP_NUM_THREADS and the threads of the backend library.',
        lambda value: value is None or is_integer_up_to(value, _MAX_THREADS),
    ),
    Parameter(
        'batch_atoms',
        None,
        'an integer, 1 or larger, or null (automatic)',
        'Largest number of atoms evaluated in one batch; a structure larger than this is a batch of its own.',
        lambda value: value is None or is_integer_up_to(value, _MAX_ATOMS),
    ),
    Parameter(
        'memory_limit',
        None,
        'a number of megabytes, 256 or larger, or null (what is available)',
        'Memory (MB) that the worker may take on the CPU before it halves a batch or gives up on a structure.',
        lambda value: value is None or is_integer_up_to(value, _MAX_MEGABYTES, least=256),
    ),
)
