"""Cut frames into batches: like frames together, none above a budget of atoms unless it is alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .frames import IntArray

#: At most so many frames a batch, so that a batch of single atoms stays quick and progress visible.
MAX_FRAMES = 4096


def plan_batches(
    indices: IntArray, counts: IntArray, budget: int, keys: npt.NDArray[Any] | None = None
) -> Iterator[IntArray]:
    """Yield the indices of each batch.

    Frames are sorted by key and size, equal ones stay in their order: so a batch holds frames that are alike, and of a
    homogeneous set it is one piece of the results files.

    :param indices: the frames to evaluate
    :param counts: atoms of each of these frames
    :param budget: atoms in a batch
    :param keys: a sortable key for each of these frames, for a backend that is faster when neighbours share it
    """
    order = np.lexsort((counts,) if keys is None else (counts, keys))
    start = 0
    while start < len(order):
        sums = np.cumsum(counts[order[start : start + MAX_FRAMES]])
        stop = start + max(1, int(np.searchsorted(sums, budget, side='right')))
        yield indices[order[start:stop]]
        start = stop
