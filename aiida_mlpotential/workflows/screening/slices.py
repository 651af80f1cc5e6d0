"""How a set of structures is taken apart into slices, and the slices are given to lanes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

#: Structures in a slice unless someone says otherwise: minutes of work on a few cores, seconds to begin anew.
DEFAULT_SIZE = 5000


@dataclasses.dataclass(frozen=True)
class Slice:
    """One job: some structures of the set with one model.

    :ivar model: label of the model
    :ivar start: number of the first structure
    :ivar stop: number of the one after the last
    :ivar parent: PK of a work directory to go on from
    """

    model: str
    start: int
    stop: int
    parent: int | None = None

    @property
    def name(self) -> str:
        """Return a name that no other slice has, as a link may have it."""
        return f'{self.model}__{self.start:09d}'

    def to_dict(self) -> dict[str, Any]:
        """Return the slice as an input of a process has it."""
        return dataclasses.asdict(self)


def take_apart(n_structures: int, size: int) -> list[tuple[int, int]]:
    """Return first structure and the one after the last of slices of equal size, none larger than asked for.

    :param n_structures: 1 or more
    :param size: largest number of structures in a slice
    """
    number = math.ceil(n_structures / size)
    borders = [n_structures * index // number for index in range(number + 1)]
    return list(itertools.pairwise(borders))


def deal(slices: Sequence[Slice], n_lanes: int) -> list[list[Slice]]:
    """Return the slices of each lane: one after the other in turn, so that all lanes have about equal work."""
    lanes = [list(slices[index::n_lanes]) for index in range(n_lanes)]
    return [lane for lane in lanes if lane]
