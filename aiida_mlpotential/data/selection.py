"""Which structures of a set a job takes: a run of them or single ones, so that jobs share one node and copy nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from aiida import orm

from aiida_mlpotential.worker.frames import Frames, IntArray

from .structures import StructureSetData, to_frames

_REMEDY = "give {'start': 0, 'stop': 1000} or {'indices': [3, 17]}"


class SelectionError(ValueError):
    """This is no selection of the structures; one sentence says why."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """Structures of a set, counted from 0: from ``start`` up to, not including, ``stop``, or those of ``numbers``.

    :ivar numbers: in the order in which the job has them; empty for a run
    """

    start: int = 0
    stop: int = 0
    numbers: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Selection:
        """Return the selection that a dictionary describes.

        :raises SelectionError: if it describes none
        """
        if set(content) == {'start', 'stop'} and all(_is_count(value) for value in content.values()):
            if content['start'] >= content['stop']:
                raise SelectionError(f'selection: start {content["start"]} is not below stop {content["stop"]}')
            return cls(content['start'], content['stop'])
        if set(content) == {'indices'} and isinstance(content['indices'], (list, tuple)) and content['indices']:
            numbers = tuple(content['indices'])
            if all(_is_count(value) for value in numbers):
                if len(set(numbers)) < len(numbers):
                    raise SelectionError('selection: the same structure is named twice in indices')
                return cls(numbers=numbers)
        raise SelectionError(f'selection: {str(dict(content))[:100]} does not say which structures: {_REMEDY}')

    def to_dict(self) -> dict[str, Any]:
        """Return the dictionary that describes the selection."""
        return {'indices': list(self.numbers)} if self.numbers else {'start': self.start, 'stop': self.stop}

    def __len__(self) -> int:
        return len(self.numbers) or self.stop - self.start

    def indices(self, n_frames: int) -> IntArray:
        """Return the numbers of the structures.

        :param n_frames: number of structures of the set
        :raises SelectionError: if the set has no such structure
        """
        chosen = np.array(self.numbers or range(self.start, self.stop), dtype=np.int64)
        if chosen.max() >= n_frames:
            raise SelectionError(
                f'selection: there is no structure {chosen.max()}: the set has {n_frames}, counted from 0'
            )
        return chosen


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def validate_selection(content: Mapping[str, Any], n_frames: int | None = None) -> str | None:
    """Return one sentence on what is wrong with a selection, or ``None``.

    :param n_frames: number of structures of the set, where it is known
    """
    try:
        selection = Selection.from_dict(content)
        if n_frames is not None:
            selection.indices(n_frames)
    except SelectionError as exception:
        return f'{exception}.'
    return None


def select_frames(node: StructureSetData | orm.StructureData, selection: Mapping[str, Any] | None = None) -> Frames:
    """Return the structures of a node, or those of them that are selected.

    :raises SelectionError: if there are no such structures
    """
    frames = to_frames(node)
    if selection is None:
        return frames
    return frames.select(Selection.from_dict(selection).indices(len(frames)))


def frames_of_inputs(inputs: Mapping[str, Any]) -> Frames:
    """Return the structures that a job takes.

    :param inputs: those of the job: ``structure``, or ``structures`` with or without ``selection``
    :raises SelectionError: if there are no such structures
    """
    if inputs.get('structures') is None:
        return to_frames(inputs['structure'])
    selection: orm.Dict | None = inputs.get('selection')
    return select_frames(inputs['structures'], None if selection is None else selection.get_dict())  # type: ignore[no-untyped-call]
