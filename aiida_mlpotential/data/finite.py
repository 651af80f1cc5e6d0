"""Find values that were never written where a status says that they were: results to refuse, not to store."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.quantities import QUANTITIES, Shape
from aiida_mlpotential.worker.storage import hessian_offsets
from aiida_mlpotential.worker.torn import MAY_BE_MISSING

from .npy import Array, NpyFile, ResultsError

_BLOCK_ROWS = 1 << 18


def check_finite(files: Mapping[str, NpyFile], offsets: Array, status: Array) -> None:
    """Check that every value of a structure that succeeded is there, block by block.

    A copy that was made while a worker still wrote, or a crash of the machine, may leave the status alone. The stress
    is not looked at, as only crystals have one.

    :raises ResultsError: if one is missing
    """
    for name, file in files.items():
        quantity = QUANTITIES.get(name)
        if quantity is None or quantity.integer or name == 'stress' or name in MAY_BE_MISSING:
            continue
        starts = np.concatenate([[0], np.cumsum(_rows_of_frames(quantity.shape, offsets))])
        last = quantity.shape in ('member', 'member_mode')
        if not _is_finite(file, starts, status == FrameStatus.OK, last):
            raise ResultsError(f'{name}.npy has NaN or infinity where the status is OK')


def _rows_of_frames(shape: Shape, offsets: Array) -> Array:
    """Return how many rows each structure has."""
    atoms = np.diff(offsets)
    by_shape = {
        'atom': atoms,
        'atom3': atoms,
        'mode': 3 * atoms,
        'member_mode': 3 * atoms,
        'hessian': np.diff(hessian_offsets(offsets)),
    }
    return by_shape.get(shape, np.ones_like(atoms))


def _is_finite(file: NpyFile, starts: Array, chosen: Array, last: bool) -> bool:
    """Return whether all values of the chosen structures are finite.

    :param starts: where the rows of each structure begin, ``(n + 1,)``
    :param chosen: ``(n,)``
    :param last: whether the rows are along the last axis, members along the first
    """
    lengths = np.diff(starts)
    if len(file.shape) > 1 and file.fortran_order != last:  # not as workers write: rows do not follow each other
        values = np.moveaxis(file.load(), -1 if last else 0, 0)
        return bool(np.isfinite(values[np.repeat(chosen, lengths)]).all())
    width = int(np.prod(file.shape, dtype=np.int64)) // max(int(starts[-1]), 1)
    edges = np.searchsorted(starts, np.arange(0, int(starts[-1]) + 1, _BLOCK_ROWS), side='right') - 1
    with file.open() as handle:
        handle.seek(file.data_start)
        for begin, end in itertools.pairwise(np.unique([*edges, 0, len(lengths)])):  # not all in memory at once
            rows = int(starts[end] - starts[begin])
            block = np.frombuffer(handle.read(rows * width * file.dtype.itemsize), dtype=file.dtype)
            mask = np.repeat(chosen[begin:end], lengths[begin:end])
            if not np.isfinite(block.reshape(rows, width)[mask]).all():
                return False
    return True
