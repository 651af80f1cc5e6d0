"""The symmetry operations of crystals, found by spglib, as the arrays that the worker keeps them by."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from ..worker.frames import FloatArray, Frames, IntArray
from ..worker.symmetry import is_first, is_translation
from .libraries import import_library

#: Largest number of operations times atoms of a frame: 40 MB. Only supercells of thousands of cells have more.
_MAX_ENTRIES = 10**7

Operations = tuple[npt.NDArray[np.int32], FloatArray, npt.NDArray[np.int32]]


class TooManyOperationsError(ValueError):
    """A supercell has more symmetry operations than can be kept; the message says what to do."""


def symmetry_arrays(frames: Frames, tolerance: float = 1e-3) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of ``symmetry.npz`` that :class:`~..worker.symmetry.SpaceGroups` reads.

    A frame without operations is one whose space group is not known: it is not periodic in three directions, or spglib
    finds nothing (with atoms on top of each other, for instance). A crystal without symmetry has one: the identity.
    Of the others all translations are there, and one operation for each rotation: their products are the rest.

    :param frames: the frames of a job
    :param tolerance: angstrom; atoms this near to where an operation wants them count as there
    :return: ``rotations`` (O, 3, 3) in fractional coordinates, ``translations`` (O, 3), ``permutations`` flat (of each
        operation the atom that each atom is mapped to) and ``operation_offsets`` (n + 1,)
    :raises MissingLibraryError: without spglib
    :raises TooManyOperationsError: if a frame is a large supercell
    """
    spglib = import_library('spglib')
    found = [_operations(spglib, frames, index, tolerance) for index in range(len(frames))]
    nothing = _none(0)
    rotations, translations, permutations = zip(*found, strict=True) if found else ([], [], [])
    return {
        'rotations': np.concatenate([*rotations, nothing[0]]),
        'translations': np.concatenate([*translations, nothing[1]]),
        'permutations': np.concatenate([*(item.ravel() for item in permutations), nothing[2].ravel()]),
        'operation_offsets': np.concatenate([[0], np.cumsum([len(item) for item in rotations])]).astype(np.int64),
    }


def _none(n_atoms: int) -> Operations:
    return np.zeros((0, 3, 3), np.int32), np.zeros((0, 3)), np.zeros((0, n_atoms), np.int32)


def _operations(spglib: Any, frames: Frames, index: int, tolerance: float) -> Operations:
    atoms = slice(frames.offsets[index], frames.offsets[index + 1])
    positions, numbers, cell = frames.positions[atoms], frames.numbers[atoms], frames.cells[index]
    sound = len(numbers) and np.isfinite(positions).all() and np.isfinite(cell).all()
    if not sound or not frames.pbc[index].all() or abs(np.linalg.det(cell)) < 1e-6:
        return _none(len(numbers))
    fractional = np.linalg.solve(cell.T, positions.T).T
    dataset = _dataset(spglib, (cell, fractional, numbers.astype(int)), tolerance)
    if dataset is None:
        return _none(len(numbers))
    rotations, translations = np.array(dataset.rotations, np.int32), np.array(dataset.translations)
    needed = is_translation(rotations) | is_first(rotations, np.array([len(rotations)]))
    rotations, translations = rotations[needed], translations[needed]
    if len(rotations) * len(numbers) > _MAX_ENTRIES:
        text = f'structure {frames.label(index)} has {len(rotations)} symmetry operations on {len(numbers)} atoms'
        raise TooManyOperationsError(f'{text}: optimize its primitive cell, or leave out `keep_symmetry`')
    permutations = _permutations(rotations, translations, fractional, cell, 10 * tolerance)
    if permutations is None or np.any(numbers[permutations] != numbers):
        return _none(len(numbers))
    return rotations, translations, permutations


def _dataset(spglib: Any, cell: Any, tolerance: float) -> Any:
    """Return what spglib finds, or ``None``: an exception from version 2.8 on, before it ``None`` and a warning."""
    failure: Any = getattr(spglib, 'SpglibError', ())
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.*OLD_ERROR_HANDLING', category=DeprecationWarning)
        try:
            return spglib.get_symmetry_dataset(cell, symprec=tolerance)
        except failure:
            return None


def _permutations(
    rotations: npt.NDArray[np.int32], translations: FloatArray, fractional: FloatArray, cell: FloatArray, limit: float
) -> npt.NDArray[np.int32] | None:
    """Return which atom each operation maps each atom to, ``(O, N)``; ``None`` if some are mapped to none.

    :param limit: angstrom; spglib combines operations, each of which may be off by its tolerance
    """
    from scipy.spatial import cKDTree

    home = _wrapped(fractional)
    mapped = np.einsum('oij,aj->oai', rotations, fractional) + translations[:, None]
    flat = mapped.reshape(-1, 3)
    nearest: IntArray = cKDTree(home, boxsize=1.0).query(_wrapped(flat))[1]
    away = flat - home[nearest]
    distances = np.linalg.norm((away - np.round(away)) @ cell, axis=1)
    permutations = nearest.reshape(len(rotations), len(fractional)).astype(np.int32)
    complete = np.all(np.sort(permutations, axis=1) == np.arange(len(fractional)))
    return permutations if complete and bool(np.all(distances <= limit)) else None


def _wrapped(fractional: FloatArray) -> FloatArray:
    """Return fractional coordinates from 0 to below 1; rounding makes 1 of those just below 0."""
    wrapped = fractional - np.floor(fractional)
    return np.where(wrapped >= 1.0, 0.0, wrapped)
