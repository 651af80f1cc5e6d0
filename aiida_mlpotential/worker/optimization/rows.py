"""Rows of a pool of frames: those of each frame one after the other, summed and repeated without a loop."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ..frames import BoolArray, FloatArray, IntArray

#: Rows that the cell has: those of the logarithm of its deformation.
CELL_ROWS = 3


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where the rows of each frame are in arrays ``(R, 3)`` of generalised coordinates.

    A frame has a row for each atom and, where the cells are free, three more for its cell behind them.

    :ivar counts: atoms of each frame, ``(n,)``
    :ivar with_cells: whether the frames have rows for the cell
    :ivar starts: the first row of each frame, ``(n,)``
    :ivar frame: the frame of each row, ``(R,)``
    :ivar atoms: the rows of the atoms, ``(A,)``
    :ivar cells: the rows of the cells, ``(n, 3)`` or ``(0, 3)``
    """

    counts: IntArray
    with_cells: bool
    starts: IntArray
    frame: IntArray
    atoms: IntArray
    cells: IntArray

    @classmethod
    def of(cls, counts: IntArray, with_cells: bool) -> Rows:
        """Lay out the rows of frames of so many atoms each."""
        lengths = counts + (CELL_ROWS if with_cells else 0)
        ends = np.cumsum(lengths)
        starts = ends - lengths
        of_atom = np.repeat(np.arange(len(counts)), counts)
        atoms = np.arange(len(of_atom)) + (CELL_ROWS * of_atom if with_cells else 0)
        cells = ends[:, None] - CELL_ROWS + np.arange(CELL_ROWS) if with_cells else np.zeros((0, CELL_ROWS), np.int64)
        return cls(counts, with_cells, starts, np.repeat(np.arange(len(counts)), lengths), atoms, cells)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def n_rows(self) -> int:
        """Return the number of rows of all frames together."""
        return len(self.frame)

    def sum(self, values: npt.NDArray[Any]) -> FloatArray:
        """Return the sum over the rows of each frame: ``(R,)`` gives ``(n,)``."""
        return np.asarray(np.add.reduceat(values, self.starts) if len(self.starts) else np.zeros(0))

    def dot(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Return the scalar product of two vectors of each frame: ``(R, 3)`` twice gives ``(n,)``."""
        return self.sum(np.einsum('ri,ri->r', first, second))

    def longest(self, vectors: FloatArray) -> FloatArray:
        """Return the length of the longest row of each frame: ``(R, 3)`` gives ``(n,)``."""
        lengths = np.sqrt(np.einsum('ri,ri->r', vectors, vectors))
        return np.asarray(np.maximum.reduceat(lengths, self.starts) if len(self.starts) else np.zeros(0))

    def spread(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a value of each frame as a column for its rows: ``(n,)`` gives ``(R, 1)``."""
        return np.asarray(values[self.frame, None])

    def where(self, chosen: BoolArray) -> BoolArray:
        """Return which rows belong to the chosen frames: ``(n,)`` gives ``(R,)``."""
        return np.asarray(chosen[self.frame])
