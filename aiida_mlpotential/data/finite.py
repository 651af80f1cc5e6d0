"""Find values that were never written where a status says that they were: results to refuse, not to store."""

from __future__ import annotations

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
        mask = np.repeat(status == FrameStatus.OK, _rows_of_frames(quantity.shape, offsets))
        if not _is_finite(file, mask, last=quantity.shape in ('member', 'member_mode')):
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


def _is_finite(file: NpyFile, mask: Array, last: bool) -> bool:
    """Return whether all values of the rows of a mask are finite.

    :param last: whether the rows are along the last axis, members along the first
    """
    if len(file.shape) > 1 and file.fortran_order != last:  # not as workers write: rows do not follow each other
        values = np.moveaxis(file.load(), -1 if last else 0, 0)
        return bool(np.isfinite(values[mask]).all())
    width = int(np.prod(file.shape, dtype=np.int64)) // max(len(mask), 1)
    with file.open() as handle:
        handle.seek(file.data_start)
        for start in range(0, len(mask), _BLOCK_ROWS):
            chosen = mask[start : start + _BLOCK_ROWS]
            block = np.frombuffer(handle.read(len(chosen) * width * file.dtype.itemsize), dtype=file.dtype)
            if not np.isfinite(block.reshape(len(chosen), -1)[chosen]).all():
                return False
    return True
