"""The summary of a screening: numbers that people look at first, and filter on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction

from aiida_mlpotential.data.merged import MergedResultsData

#: So many of the lowest, the most uncertain and the failed structures are named.
MAX_NAMED = 20
_COUNTS = ('n_frames', 'n_ok', 'n_failed', 'n_pending', 'status_counts', 'energy_min', 'energy_std_max', 'qbc_max')


@calcfunction
def summarize_results(ranking: orm.ArrayData, slices: orm.Dict, **results: MergedResultsData) -> orm.Dict:
    """Return counts by model, the lowest structure of each formula, and the most uncertain structures.

    :param ranking: see ``rank_structures``
    :param slices: how many there were, were reused, and are missing
    :param results: of each model, by its label
    """
    order, formulas = ranking.get_array('order'), ranking.get_array('formula')
    uncertainty, flagged = ranking.get_array('uncertainty'), ranking.get_array('flagged')
    there = np.isfinite(ranking.get_array('relative_energy')[0])
    ranked = order[there[order]]
    _, first = np.unique(formulas[ranked], return_index=True)
    lowest = ranked[np.sort(first)][:MAX_NAMED]
    known = np.flatnonzero(np.isfinite(uncertainty))
    worst = known[np.argsort(-uncertainty[known], kind='stable')][:MAX_NAMED]
    return orm.Dict(
        {
            'n_structures': len(order),
            'models': {label: _counts(node) for label, node in sorted(results.items())},
            'slices': slices.get_dict(),
            'lowest': [{'index': int(index), 'formula': str(formulas[index])} for index in lowest],
            'max_qbc': ranking.base.attributes.get('max_qbc'),
            'n_flagged': int(flagged.sum()),
            'most_uncertain': [{'index': int(index), 'qbc': float(uncertainty[index])} for index in worst],
        }
    )


def _counts(node: MergedResultsData) -> dict[str, Any]:
    attributes = node.base.attributes.all
    return {
        'model_name': attributes.get('model_name'),
        'model_sha256': attributes.get('model_sha256'),
        **{key: attributes[key] for key in _COUNTS if attributes.get(key) is not None},
        'failures': dict(list(attributes.get('messages', {}).items())[:MAX_NAMED]),
    }


def summarize(results: Mapping[str, MergedResultsData], ranking: orm.ArrayData, slices: Mapping[str, Any]) -> orm.Dict:
    """Return the stored summary of a screening."""
    node: orm.Dict = summarize_results(ranking, orm.Dict(dict(slices)), **results)
    return node
