"""The summary of a screening: numbers that people look at first, and filter on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from aiida_mlpotential.data.results import ResultsData

#: So many of the lowest, the most uncertain and the failed structures are named.
MAX_NAMED = 20
_COUNTS = ('n_frames', 'n_ok', 'n_failed', 'n_pending', 'status_counts', 'energy_min', 'energy_std_max', 'qbc_max')


def summarize(
    ranking: Mapping[str, npt.NDArray[Any]],
    max_qbc: float | None,
    slices: Mapping[str, Any],
    results: Mapping[str, ResultsData],
) -> dict[str, Any]:
    """Return counts by model, the lowest structure of each formula, and the most uncertain structures.

    :param ranking: the arrays of :func:`.ranking.rank_structures`
    :param slices: how many there were, were reused, and are missing
    :param results: of each model, by its label
    """
    order, formulas, uncertainty = ranking['order'], ranking['formula'], ranking['uncertainty']
    there = np.isfinite(ranking['relative_energy'][0])
    ranked = order[there[order]]
    _, first = np.unique(formulas[ranked], return_index=True)
    lowest = ranked[np.sort(first)][:MAX_NAMED]
    known = np.flatnonzero(np.isfinite(uncertainty))
    worst = known[np.argsort(-uncertainty[known], kind='stable')][:MAX_NAMED]
    return {
        'n_structures': len(order),
        'models': {label: _counts(node) for label, node in sorted(results.items())},
        'slices': dict(slices),
        'lowest': [{'index': int(index), 'formula': str(formulas[index])} for index in lowest],
        'max_qbc': max_qbc,
        'n_flagged': int(ranking['flagged'].sum()),
        'most_uncertain': [{'index': int(index), 'qbc': float(uncertainty[index])} for index in worst],
    }


def _counts(node: ResultsData) -> dict[str, Any]:
    attributes = node.base.attributes.all
    return {
        'model_name': attributes.get('model_name'),
        'model_sha256': attributes.get('model_sha256'),
        **{key: attributes[key] for key in _COUNTS if attributes.get(key) is not None},
        'failures': dict(list(attributes.get('messages', {}).items())[:MAX_NAMED]),
    }
