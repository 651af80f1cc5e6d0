"""Results of parts of a set of structures as results of the whole set, without a byte stored twice."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.orm.pydantic import OrmMetadataField

from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.quantities import QUANTITIES, Shape
from aiida_mlpotential.worker.storage import hessian_offsets

from .npy import read_header
from .results import ResultsData, ResultsError
from .selection import Selection
from .statistics import MAX_MESSAGES, counts_of
from .structures import StructureSetData

Array = npt.NDArray[Any]

#: Shapes whose rows stand along the second axis; all others have them along the first.
_SECOND_AXIS: tuple[Shape, ...] = ('member', 'member_mode')
#: Attributes that all parts must have in common.
_SHARED = ('task', 'model_sha256', 'n_members', 'precision', 'parameters_hash', 'results_version')
#: Largest and lowest values, and how those of the parts become that of the whole.
_EXTREMA = {
    'energy_min': min,
    'energy_max': max,
    'energy_std_max': max,
    'qbc_max': max,
    'force_max': max,
    'steps_max': max,
}


@dataclasses.dataclass(frozen=True)
class Part:
    """Results of the structures from ``start`` up to, not including, ``stop``; ``None`` where there are none."""

    start: int
    stop: int
    results: ResultsData | None = None


class MergedResultsData(ResultsData):
    """Results of a whole set: the files of its parts as they are, which become one array when they are read.

    The repository stores equal files once, so that nothing is copied. Structures of parts that are missing have the
    status PENDING, NaN for numbers, and -1 for what is counted.
    """

    class AttributesModel(ResultsData.AttributesModel):
        """Attributes to filter on, beside those of all results."""

        parts: list[list[int]] = OrmMetadataField(
            default_factory=list,
            description='First structure of each part, the one after its last, and 1 if it is there',
        )

    @classmethod
    def from_parts(cls, structures: StructureSetData, parts: Sequence[Part]) -> MergedResultsData:
        """Return an unstored node.

        :param structures: the whole set
        :param parts: in the order of the structures, without gaps
        :raises ResultsError: if the parts do not cover the set, none has results, one is of other structures than those
            where it stands, or they differ in model or parameters
        """
        offsets = structures.get_frames().offsets
        there = _check(structures, parts)
        node = cls()
        node._whole['offsets'] = offsets
        for number, part in enumerate(parts):
            for name in () if part.results is None else part.results.get_arraynames():
                with part.results.base.repository.open(f'{name}.npy', 'rb') as handle:  # type: ignore[union-attr]
                    node.base.repository.put_object_from_filelike(handle, _path(number, name))  # type: ignore[arg-type]
        first = there[0].base.attributes
        attributes: dict[str, Any] = {name: first.get(name, None) for name in (*_SHARED, 'model_name', 'units')}
        attributes.update({key: value for key, value in structures.info.items() if key != 'n_atoms'})
        attributes.update(structures_uuid=structures.uuid, structures_sha256=structures.sha256, selection=None)
        attributes['parts'] = [[part.start, part.stop, int(part.results is not None)] for part in parts]
        for name in there[0].get_arraynames():
            shape = list(first.get(f'{cls.array_prefix}{name}'))
            axis, starts = _rows(name, offsets)
            shape[axis] = len(offsets) if name == 'offsets' else int(starts[-1])
            attributes[f'{cls.array_prefix}{name}'] = shape
        node.base.attributes.set_many(attributes)
        node.base.attributes.set_many(_statistics(node, parts))
        return node

    def get_array(self, name: str | None = None) -> Array:
        """Return an array of the whole set; it is put together once.

        :raises KeyError: if there is no array of this name
        """
        if name is None:
            return super().get_array(name)
        if name not in self._whole:
            if name not in self.get_arraynames():
                raise KeyError(f'there is no array {name!r}: there are {", ".join(sorted(self.get_arraynames()))}')
            self._whole[name] = self._offsets() if name == 'offsets' else self._join(name)
        return self._whole[name]

    def initialize(self) -> None:
        """Set up what a node has that was made or loaded."""
        super().initialize()  # type: ignore[no-untyped-call]
        self._whole: dict[str, Array] = {}

    def _parts(self) -> Iterator[tuple[int, int, int, bool]]:
        """Yield number, first structure, the one after the last, and whether there are results, of each part."""
        for number, (start, stop, there) in enumerate(self.base.attributes.get('parts')):
            yield number, start, stop, bool(there)

    def _load(self, number: int, name: str) -> Array:
        with self.base.repository.open(_path(number, name), 'rb') as handle:
            values: Array = np.load(handle, allow_pickle=False)
        return values

    def _offsets(self) -> Array:
        """Return where the atoms of each structure are, which parts without results do not tell."""
        if all(there for _, _, _, there in self._parts()):
            counts = [np.diff(self._load(number, 'offsets')) for number, _, _, _ in self._parts()]
            return np.concatenate([[0], np.cumsum(np.concatenate(counts))])
        node = orm.load_node(self.base.attributes.get('structures_uuid'))
        return StructureSetData.get_frames(node).offsets  # type: ignore[arg-type]

    def _join(self, name: str) -> Array:
        """Return the arrays of all parts as one, filled where a part is missing.

        The parts are read one after the other into the array of the whole, so that there is never more than one of
        them in memory beside it.
        """
        there_are = [number for number, _, _, there in self._parts() if there]
        shape, fortran_order, dtype = self._header(there_are[0], name)
        if dtype.kind in 'SU':  # texts are as long in each part as its longest one; numbers are of one type in all
            dtype = np.result_type(*(self._header(number, name)[2] for number in there_are))
        axis, rows = _rows(name, self.get_array('offsets'))
        whole_shape = (*shape[:axis], int(rows[-1]), *shape[axis + 1 :])
        whole: Array = np.empty(whole_shape, dtype, order='F' if fortran_order else 'C')
        for number, start, stop, there in self._parts():
            place = (*(slice(None),) * axis, slice(int(rows[start]), int(rows[stop])))
            whole[place] = self._load(number, name) if there else _missing(name, dtype)
        return whole

    def _header(self, number: int, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        with self.base.repository.open(_path(number, name), 'rb') as handle:
            return read_header(handle)

    def _validate(self) -> bool:
        """Check that every part has its files."""
        orm.Data._validate(self)
        for number, _, _, there in self._parts():
            if there and 'status.npy' not in self.base.repository.list_object_names(f'part-{number:05d}'):
                raise ValidationError(f'part {number} has no files: make merged results with from_parts')
        return True


def _path(number: int, name: str) -> str:
    return f'part-{number:05d}/{name}.npy'


def _rows(name: str, offsets: Array) -> tuple[int, Array]:
    """Return the axis along which an array has its rows, and where those of each structure begin, ``(n + 1,)``."""
    shape: Shape = QUANTITIES[name].shape if name in QUANTITIES else 'frame'
    axis = 1 if shape in _SECOND_AXIS else 0
    if shape in ('atom', 'atom3'):
        return axis, offsets
    if shape in ('mode', 'member_mode'):
        return axis, 3 * offsets
    return axis, hessian_offsets(offsets) if shape == 'hessian' else np.arange(len(offsets))


def _missing(name: str, dtype: np.dtype[Any]) -> Any:
    """Return what stands for a structure without results."""
    if name == 'status':
        return int(FrameStatus.PENDING)
    return np.nan if dtype.kind == 'f' else -1 if dtype.kind == 'i' else np.zeros((), dtype)[()]


def _check(structures: StructureSetData, parts: Sequence[Part]) -> list[ResultsData]:
    """Return the results of the parts.

    :raises ResultsError: see :meth:`MergedResultsData.from_parts`
    """
    offsets = structures.get_frames().offsets
    borders = [0, *(part.stop for part in parts)]
    starts = [part.start for part in parts]
    if starts != borders[:-1] or borders[-1] != len(offsets) - 1 or any(part.start >= part.stop for part in parts):
        raise ResultsError(
            f'the parts {list(itertools.pairwise(borders))} do not cover the {len(offsets) - 1} structures'
        )
    there = [part.results for part in parts if part.results is not None]
    if not there:
        raise ResultsError('there are no results of any part')
    for part in parts:
        if part.results is None:
            continue
        _check_origin(structures, part, part.results.base.attributes.all)
        if not np.array_equal(np.diff(part.results.offsets), np.diff(offsets[part.start : part.stop + 1])):
            raise ResultsError(f'the results of {part.start} to {part.stop - 1} are those of other structures')
        if set(part.results.get_arraynames()) != set(there[0].get_arraynames()):
            raise ResultsError('the parts do not have the same arrays: they are of different parameters')
        for name in _SHARED:
            values = [item.base.attributes.get(name, None) for item in (part.results, there[0])]
            if values[0] != values[1]:
                raise ResultsError(f'the parts differ in {name}: {values[0]!r} and {values[1]!r}')
    return there


def _check_origin(structures: StructureSetData, part: Part, attributes: Mapping[str, Any]) -> None:
    """Compare what a part says of its structures with where it is to stand.

    Structures with as many atoms look alike by their offsets, such as all conformers of a molecule. Results that say
    nothing of their structures are taken as they are.

    :raises ResultsError: if it is of another set, or of other structures of this one
    """
    sha256, selection = attributes.get('structures_sha256'), attributes.get('selection')
    which = f'the results of {part.start} to {part.stop - 1}'
    if sha256 not in (None, structures.sha256):
        raise ResultsError(f'{which} are those of another set of structures: its sha256 is {sha256[:16]}…')
    if sha256 is None and selection is None:
        return
    numbers = range(len(structures)) if selection is None else _numbers(selection)
    if numbers != range(part.start, part.stop):
        said = 'all structures' if selection is None else f'the selection {str(dict(selection))[:100]}'
        raise ResultsError(f'{which} are those of {said}: put each part where its structures are')


def _numbers(selection: Mapping[str, Any]) -> range | tuple[int, ...]:
    """Return the numbers of selected structures, as a range where they follow one another."""
    chosen = Selection.from_dict(selection)
    if not chosen.numbers:
        return range(chosen.start, chosen.stop)
    whole = range(chosen.numbers[0], chosen.numbers[-1] + 1)
    return whole if chosen.numbers == tuple(whole) else chosen.numbers


def _statistics(node: MergedResultsData, parts: Sequence[Part]) -> dict[str, Any]:
    """Return counts, extrema and the first messages of the whole."""
    result = counts_of(node._join('status'))
    messages: dict[str, str] = {}
    found: dict[str, list[Any]] = {}
    spread = [(0, 0.0)]
    for part in parts:
        attributes: Mapping[str, Any] = {} if part.results is None else part.results.base.attributes.all
        for key in _EXTREMA:
            if attributes.get(key) is not None:
                found.setdefault(key, []).append(attributes[key])
        if attributes.get('energy_std_mean') is not None:
            spread.append((attributes['n_ok'], attributes['energy_std_mean']))
        first = sorted(attributes.get('messages', {}).items(), key=lambda item: int(item[0]))
        messages.update((str(int(index) + part.start), text) for index, text in first)
    result.update({key: _EXTREMA[key](values) for key, values in found.items()})
    weight = sum(number for number, _ in spread)
    if weight:
        result['energy_std_mean'] = sum(number * mean for number, mean in spread) / weight
    result['messages'] = dict(itertools.islice(messages.items(), MAX_MESSAGES))
    return result
