"""Results of a model: all that the database has, found by the hash of its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.results import ResultsData

#: A hash, or as much of one as a person copies.
_HASH = re.compile(r'[0-9a-f]{8,64}')


def results_of_model(model: ModelData | str, task: str | None = None, parts: bool = False) -> list[ResultsData]:
    """Return all results of a model, the newest first.

    :param model: a node, or the sha256 of its parameters, of which the first eight digits or more are enough
    :param task: only results of this task, such as ``single_point``
    :param parts: whether slices count beside the results that they were merged into
    :raises ValueError: if the text is no hash
    """
    return list(iter_results(model_filters(model), task, parts))


def model_filters(model: ModelData | str | None) -> dict[str, Any]:
    """Return a filter for the results of a model; ``None`` is any.

    :raises ValueError: if the text is no hash
    """
    if model is None:
        return {}
    if isinstance(model, ModelData):
        return {'attributes.model_sha256': model.sha256}
    if not _HASH.fullmatch(model):
        raise ValueError(f'{model[:80]!r} is no sha256 of a model: give 8 to 64 of its digits, 0 to 9 and a to f')
    return {'attributes.model_sha256': {'like': f'{model}%'}}


def iter_results(filters: Mapping[str, Any], task: str | None = None, parts: bool = False) -> Iterator[ResultsData]:
    """Yield results, the newest first, without slices that were merged into others unless ``parts`` is set.

    :param filters: in the notation of the query builder
    :param task: only results of this task
    """
    conditions = {**filters, **({} if task is None else {'attributes.task': task})}
    merged = set() if parts else _merged_parts()
    query = orm.QueryBuilder()
    query.append(ResultsData, filters=conditions, project=['id', '*'], tag='results')
    query.order_by({'results': [{'id': 'desc'}]})
    # All at once: while a query is iterated over, the caller could store nothing.
    yield from (results for pk, results in query.all() if pk not in merged)


def _merged_parts() -> set[int]:
    """Return the PKs of slices whose numbers stand in the results of the whole set, too."""
    query = orm.QueryBuilder()
    filters = {'attributes.selection': {'of_type': 'object'}}
    query.append(ResultsData, filters=filters, project='id', tag='part')
    query.append(orm.CalcFunctionNode, with_incoming='part', tag='merge')
    query.append(ResultsData, with_incoming='merge')
    return set(query.all(flat=True))
