"""Structures of which a model does not know enough: those whose spread over the members is above a limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.selection import Selection

from .results import iter_results, model_filters

#: The spread of the energy over the square root of the number of atoms, or that of the energy itself, eV.
SpreadQuantity = Literal['qbc', 'energy_std']


@dataclasses.dataclass(frozen=True)
class UncertainStructure:
    """One structure whose spread is above the limit.

    :ivar results: the node with its numbers
    :ivar index: which structure of that node, counted from 0
    :ivar spread: the quantity that was asked for, eV
    """

    results: ResultsData
    index: int
    spread: float

    @property
    def set_index(self) -> int:
        """Return which structure of the whole set it is: another number than ``index`` where a job took a part."""
        selection = self.results.base.attributes.get('selection', None)
        if selection is None:
            return self.index
        chosen = Selection.from_dict(selection)
        return chosen.numbers[self.index] if chosen.numbers else chosen.start + self.index


def structures_above(
    limit: float,
    quantity: SpreadQuantity = 'qbc',
    *,
    model: ModelData | str | None = None,
    task: str | None = None,
    parts: bool = False,
) -> Iterator[UncertainStructure]:
    """Yield all structures whose spread is above a limit, those of the newest results first, in their order.

    The database finds the nodes; only the array of the quantity is read of them. A structure that failed and has
    values all the same, as one that did not converge, counts.

    :param limit: eV
    :param model: only results of this model; a node, or the sha256 of its parameters or its beginning
    :param task: only results of this task
    :param parts: whether slices count beside the results that they were merged into
    """
    # The attribute is the maximum over the structures that succeeded: failed ones may lie above it. For an integer
    # AiiDA would cut off the decimals of the attribute on SQLite: 0.9 is not above 0 then.
    above = {f'attributes.{quantity}_max': {'>': float(limit)}}
    failed = {'attributes.n_failed': {'>': 0}, 'attributes.n_members': {'>': 1}}
    filters = {**model_filters(model), 'or': [above, failed]}
    for results in iter_results(filters, task, parts):
        spreads = getattr(results, quantity)
        if spreads is not None:
            for index in np.flatnonzero(spreads > limit):
                yield UncertainStructure(results, int(index), float(spreads[index]))
