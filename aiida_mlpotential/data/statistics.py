"""The filterable attributes of results: counts, extrema, model and messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.quantities import QUANTITIES

from .npy import NpyFile, ResultsError, largest_norm

Array = npt.NDArray[Any]

#: At most so many messages of failed structures are kept as an attribute.
MAX_MESSAGES = 100


#: Statuses that are no failures: what is done, and what was not reached.
_NO_FAILURES = (FrameStatus.OK.name, FrameStatus.PENDING.name)


def info_attributes(info: Mapping[str, Any], files: Mapping[str, NpyFile]) -> dict[str, Any]:
    """Return what the worker's results file adds to the attributes."""
    try:
        model, messages = info['model'], info.get('messages', {})
        members = files['member_energies'].shape[0] if 'member_energies' in files else model.get('ensemble_size', 1)
        first = sorted(messages, key=int)[:MAX_MESSAGES]
        return {
            'model_name': str(model['name']),
            'model_sha256': str(model['sha256']),
            'n_members': int(members),
            'precision': info.get('precision'),
            'task': info.get('task'),
            'units': {name: str(QUANTITIES[name].unit) for name in files if name in QUANTITIES},
            'messages': {str(index): str(messages[index]) for index in first},
        }
    except (KeyError, TypeError, ValueError, AttributeError) as exception:
        raise ResultsError(f'the results file is incomplete: {type(exception).__name__}: {exception}') from None


def counts_of(status: Array) -> dict[str, Any]:
    """Return how many structures there are, and how many of them have which status.

    :param status: ``(n,)``
    """
    n_ok = int(np.count_nonzero(status == FrameStatus.OK))
    n_pending = int(np.count_nonzero(status == FrameStatus.PENDING))
    values, counts = np.unique(status, return_counts=True)
    return {
        'n_frames': len(status),
        'n_ok': n_ok,
        'n_pending': n_pending,
        'n_failed': len(status) - n_ok - n_pending,
        'status_counts': {
            FrameStatus(value).name: count for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        },
    }


def format_causes(counts: Mapping[str, int]) -> str:
    """Return the causes of failures with their numbers, the most frequent one first.

    :param counts: numbers of structures by status, as results have them
    """
    causes = {name: number for name, number in counts.items() if name not in _NO_FAILURES}
    return ', '.join(f'{causes[name]} {name}' for name in sorted(causes, key=lambda name: (-causes[name], name)))


def statistics(files: Mapping[str, NpyFile], offsets: Array, status: Array) -> dict[str, Any]:
    """Return counts, and extrema over the structures that succeeded."""
    ok = status == FrameStatus.OK
    result = counts_of(status)
    if 'steps' in files:
        steps = files['steps'].load()
        result['steps_max'] = int(steps.max()) if steps.max() >= 0 else None
    wanted: dict[str, dict[str, Callable[[Array], Any]]] = {
        'energies': {'energy_min': np.min, 'energy_max': np.max},
        'energy_std': {'energy_std_max': np.max, 'energy_std_mean': np.mean},
        'qbc': {'qbc_max': np.max},
    }
    for name, functions in wanted.items():
        values = files[name].load()[ok] if name in files else np.zeros(0)
        values = values[np.isfinite(values)]
        if len(values):
            result.update({key: float(function(values)) for key, function in functions.items()})
    if 'forces' in files:
        largest = largest_norm(files['forces'], np.repeat(ok, np.diff(offsets)))
        if largest is not None:
            result['force_max'] = largest
    return result
