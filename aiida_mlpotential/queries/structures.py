"""What is known of one structure: its latest result, and its energy in every model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from aiida import orm
from aiida.common.hashing import make_hash

from aiida_mlpotential.data.frame_result import FrameResult
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.selection import Selection
from aiida_mlpotential.data.structures import StructureSetData, check_index

from .results import iter_results, model_filters

#: Extra in which AiiDA keeps the hash of a stored node.
_HASH_EXTRA = '_aiida_hash'


@dataclasses.dataclass(frozen=True)
class StructureResult:
    """The numbers of one structure, and where they are.

    :ivar results: the node
    :ivar index: which structure of the node, counted from 0
    :ivar frame: the numbers: energy and spread in eV, forces in eV/angstrom
    """

    results: ResultsData
    index: int
    frame: FrameResult

    @property
    def model_name(self) -> str:
        """Return the name of the model."""
        return str(self.results.base.attributes.get('model_name', ''))

    @property
    def model_sha256(self) -> str:
        """Return the hash of the model."""
        return str(self.results.base.attributes.get('model_sha256', ''))


def latest_result(
    structure: orm.StructureData | StructureSetData,
    index: int | None = None,
    *,
    model: ModelData | str | None = None,
    task: str = 'single_point',
) -> StructureResult | None:
    """Return the newest result of a structure that succeeded, or ``None`` if there is none.

    It may come from a job of its own, from one of a whole set, or from a slice. Another node with equal content is the
    same structure; single ones from an archive have no hash to tell that before ``verdi node rehash``.

    :param structure: a structure, or a set
    :param index: which structure of a set, counted from 0, negative ones from the end
    :param model: only results of this model; a node, or the sha256 of its parameters or its beginning
    :param task: the results of an optimization are those of the geometry where it ended
    :raises ValueError: if the structure is a set of several and the index is missing
    :raises IndexError: if the set has no such structure
    """
    return next(_results_of(structure, index, model, task), None)


def energies_in_models(
    structure: orm.StructureData | StructureSetData, index: int | None = None, *, task: str = 'single_point'
) -> list[StructureResult]:
    """Return the newest result of a structure with each model that has one, by the names of the models.

    Arguments and errors are those of :func:`latest_result`.
    """
    newest: dict[tuple[str, str], StructureResult] = {}
    for found in _results_of(structure, index, None, task):
        newest.setdefault((found.model_name, found.model_sha256), found)
    return [newest[key] for key in sorted(newest)]


def _results_of(
    structure: orm.StructureData | StructureSetData, index: int | None, model: ModelData | str | None, task: str
) -> Iterator[StructureResult]:
    """Yield the results of a structure that succeeded, the newest first."""
    number = _number(structure, index)
    for results in iter_results({**_structure_filters(structure), **model_filters(model)}, task, parts=True):
        selection = results.base.attributes.get('selection', None)
        position = number if selection is None else _position(Selection.from_dict(selection), number)
        if position is not None and (frame := results.frame(position)).ok:
            yield StructureResult(results, position, frame)


def _number(structure: orm.StructureData | StructureSetData, index: int | None) -> int:
    length = len(structure) if isinstance(structure, StructureSetData) else 1
    if index is None and length > 1:
        raise ValueError(f'the set has {length} structures: say which one with `index`, counted from 0')
    return check_index(index or 0, length)


def _structure_filters(structure: orm.StructureData | StructureSetData) -> dict[str, Any]:
    if isinstance(structure, StructureSetData):
        return {'attributes.structures_sha256': structure.sha256}
    query = orm.QueryBuilder()
    caching = structure.base.caching
    content = caching.get_hash() or make_hash(caching.get_objects_to_hash())  # one that is not stored has none yet
    query.append(orm.StructureData, filters={f'extras.{_HASH_EXTRA}': content}, project='uuid')
    return {'attributes.structures_uuid': {'in': [structure.uuid, *query.all(flat=True)]}}


def _position(selection: Selection, number: int) -> int | None:
    """Return where a structure of the set is among those that are selected, or ``None`` if it is not."""
    if selection.numbers:
        return selection.numbers.index(number) if number in selection.numbers else None
    return number - selection.start if selection.start <= number < selection.stop else None
