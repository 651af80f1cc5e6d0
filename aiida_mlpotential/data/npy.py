"""Check ``.npy`` files in a repository by their headers, and read them in pieces, without ever unpickling anything."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from aiida.orm.nodes.repository import NodeRepository

from aiida_mlpotential.worker.quantities import QUANTITIES, Shape
from aiida_mlpotential.worker.storage import dtype_of, hessian_offsets

Array = npt.NDArray[Any]

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_BLOCK_ROWS = 1 << 18


class ResultsError(ValueError):
    """The arrays are no results; one sentence says why."""


@dataclasses.dataclass(frozen=True)
class NpyFile:
    """A ``.npy`` file whose header and size are right."""

    repository: NodeRepository
    path: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    data_start: int

    @classmethod
    def inspect(cls, repository: NodeRepository, path: str, name: str) -> NpyFile:
        """Read and check the header, and compare it with the size of the file, none of which is copied.

        :raises ResultsError: if the file is missing, truncated or no ``.npy`` of the expected type
        """
        try:
            with repository.open(path, 'rb') as handle:
                shape, fortran_order, dtype = read_header(handle)
                start = handle.tell()
                handle.seek(0, io.SEEK_END)
                size = handle.tell()
        except FileNotFoundError:
            raise ResultsError(f'the array {name}.npy is missing') from None
        except Exception as exception:  # a damaged header raises many types, from tokenize errors to EOFError
            raise ResultsError(f'{name}.npy is no array file: {type(exception).__name__}: {exception}') from None
        expected = expected_dtypes(name)
        if dtype.hasobject or dtype.str not in expected:
            raise ResultsError(f'{name}.npy holds values of type {dtype.str}, expected {" or ".join(expected)}')
        if any(length < 0 for length in shape):
            raise ResultsError(f'{name}.npy has the impossible shape {shape}')
        file = cls(repository, path, name, tuple(shape), dtype, bool(fortran_order), start)
        if size != file.size:
            reason = 'truncated' if size < file.size else 'too long'
            raise ResultsError(f'{name}.npy is {reason}: {size} bytes, expected {file.size} for the shape {shape}')
        return file

    @property
    def size(self) -> int:
        """Return the number of bytes that header and values take."""
        return self.data_start + math.prod(self.shape) * self.dtype.itemsize

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Open the file for reading."""
        return self.repository.open(self.path, 'rb')

    def load(self) -> Array:
        """Return the whole array."""
        with self.open() as handle:
            values: Array = np.load(handle, allow_pickle=False)
        return values


def read_header(handle: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether the order is that of Fortran, and type of an array; the handle is at its values then.

    A damaged file raises many types of exceptions.
    """
    version = np.lib.format.read_magic(handle)
    return _HEADER_READERS[version](handle)


def expected_dtypes(name: str) -> tuple[str, ...]:
    """Return the types that an array of the results may have, as numpy writes them."""
    special = {'status': ('|i1',), 'offsets': ('<i8',)}
    if name in special:
        return special[name]
    quantity = QUANTITIES[name]
    return tuple(dict.fromkeys((dtype_of(quantity), dtype_of(quantity, single=True))))


def check_offsets(offsets: Array) -> Array:
    """Return the offsets if they rise from 0.

    :raises ResultsError: if they do not
    """
    if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or np.any(np.diff(offsets) < 0):
        raise ResultsError('offsets.npy must rise from 0 and have one value more than there are structures')
    return offsets


def check_shapes(files: Mapping[str, NpyFile], offsets: Array) -> None:
    """Check the shape of every array: numbers of structures and atoms, and like numbers of members and temperatures.

    :raises ResultsError: if one does not fit
    """
    shapes = _expected_shapes(offsets)
    known: dict[str, int] = {}  # the lengths that only the arrays themselves tell
    for name, file in files.items():
        if name == 'offsets':
            continue
        expected = shapes[QUANTITIES[name].shape if name in QUANTITIES else 'frame']
        if not _fits(file.shape, expected, known):
            text = ', '.join(str(known.get(str(length), length)) for length in expected)
            text = f'({text},)' if len(expected) == 1 else f'({text})'
            raise ResultsError(f'{name}.npy has shape {file.shape}, expected {text} for {len(offsets) - 1} structures')


def _expected_shapes(offsets: Array) -> dict[Shape, tuple[int | str, ...]]:
    n_frames, n_atoms = len(offsets) - 1, int(offsets[-1])
    return {
        'frame': (n_frames,),
        'frame3': (n_frames, 3),
        'frame33': (n_frames, 3, 3),
        'member': ('members', n_frames),
        'atom': (n_atoms,),
        'atom3': (n_atoms, 3),
        'hessian': (int(hessian_offsets(offsets)[-1]),),
        'mode': (3 * n_atoms,),
        'member_mode': ('members', 3 * n_atoms),
        'temperature': (n_frames, 'temperatures'),
        'member_temperature': (n_frames, 'members', 'temperatures'),
    }


def _fits(shape: tuple[int, ...], expected: tuple[int | str, ...], known: dict[str, int]) -> bool:
    """Return whether a shape is the expected one; the first array with a length known by name only sets it."""
    if len(shape) != len(expected):
        return False
    found: dict[str, int] = {}
    for length, wanted in zip(shape, expected, strict=True):
        if isinstance(wanted, str):
            found[wanted] = length
            wanted = known.get(wanted, max(length, 1))
        if length != wanted:
            return False
    known.update(found)
    return True


def largest_norm(file: NpyFile, mask: npt.NDArray[np.bool_]) -> float | None:
    """Return the length of the longest row of an ``(A, 3)`` array where the mask ``(A,)`` is true, block by block.

    :return: ``None`` if there is no such finite row
    """
    if file.fortran_order and file.shape[0] > 1:
        raise ResultsError(f'{file.name}.npy is in Fortran order, expected rows of three')
    largest = -1.0
    with file.open() as handle:
        handle.seek(file.data_start)
        for start in range(0, len(mask), _BLOCK_ROWS):
            chosen = mask[start : start + _BLOCK_ROWS]
            block = handle.read(len(chosen) * 3 * file.dtype.itemsize)
            rows = np.frombuffer(block, dtype=file.dtype).reshape(-1, 3)[chosen]
            norms = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
            largest = max(largest, float(np.max(norms, where=np.isfinite(norms), initial=-1.0)))
    return None if largest < 0 else largest
