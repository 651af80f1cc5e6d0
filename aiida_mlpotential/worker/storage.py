"""Results on disk: one ``.npy`` file a quantity, written batch by batch: a killed job loses its last batch only.

Every file is filled to its full size before anything is computed. A full disk is therefore found at the start, and at
any later moment the files are valid: frames that were not reached are NaN and have the status ``PENDING``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import FrameStatus, WorkerError
from .frames import BoolArray, IntArray
from .parents import earlier_runs
from .quantities import QUANTITIES, Quantity
from .schema import ARRAYS_DIRECTORY, FINGERPRINT_FILE, RESULTS_FILE, STATUS_FILE

Array = npt.NDArray[Any]
Rows = Literal['frame', 'atom', 'hessian', 'mode']

_FILL_BYTES = 1 << 22
_BLOCK_ROWS = 1 << 18
#: Room kept for ``results.json`` from the start, so that the cause can still be written when the disk is full.
_RESERVED_BYTES = 1 << 16


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn a full disk or an exhausted quota into a :class:`WorkerError` of its own."""
    try:
        yield
    except OSError as exception:
        if exception.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkerError('ERROR_DISK_FULL', f'writing {what}: {exception.strerror}') from exception
        raise


@dataclasses.dataclass(frozen=True)
class _Column:
    """One file: rows of ``width`` numbers, one for each frame, atom, mode, or element of a Hessian."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    width: int
    rows: Rows
    fortran_order: bool = False

    @property
    def header(self) -> bytes:
        """Return the ``.npy`` header."""
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream,
            {
                'descr': np.lib.format.dtype_to_descr(self.dtype),
                'fortran_order': self.fortran_order,
                'shape': self.shape,
            },
        )
        return stream.getvalue()

    @property
    def row_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    @property
    def size(self) -> int:
        return len(self.header) + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def create(self, fill: float) -> None:
        """Write the whole file, really, so that its place on disk is taken."""
        rest = self.size - len(self.header)
        block = np.full(min(rest, _FILL_BYTES) // self.dtype.itemsize, fill, dtype=self.dtype).tobytes()
        with disk_errors(self.path.name), self.path.open('wb') as handle:
            handle.write(self.header)
            while rest > 0:
                rest -= handle.write(block[:rest])
            handle.flush()
            os.fsync(handle.fileno())


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Lengths of the arrays beside the numbers of frames and atoms.

    :ivar n_members: size of the ensemble
    :ivar n_temperatures: temperatures of thermochemistry
    :ivar single: store what follows the precision of the model as float32
    """

    n_members: int = 1
    n_temperatures: int = 0
    single: bool = False


class ResultsStore:
    """The arrays of one job in a directory.

    :param offsets: atoms of the frames, as in :class:`~.frames.Frames`
    :param names: quantities to store, keys of ``QUANTITIES``
    """

    def __init__(self, directory: Path, offsets: IntArray, names: Iterable[str], sizes: Sizes = Sizes()) -> None:
        self._directory = directory / ARRAYS_DIRECTORY
        self._offsets = np.asarray(offsets, dtype=np.int64)
        #: Where the rows of each frame begin, by kind of row.
        self._starts: dict[Rows, IntArray] = {
            'frame': np.arange(len(offsets), dtype=np.int64),
            'atom': self._offsets,
            'hessian': hessian_offsets(self._offsets),
            'mode': 3 * self._offsets,
        }
        self._columns = {name: self._column(QUANTITIES[name], sizes) for name in names}
        n_frames = len(offsets) - 1
        self._status = _Column(self._directory / STATUS_FILE, (n_frames,), np.dtype('i1'), 1, 'frame')
        self.status = np.full(n_frames, FrameStatus.PENDING, dtype=np.int8)
        self._handles: dict[str, int] = {}

    def _column(self, quantity: Quantity, sizes: Sizes) -> _Column:
        n_frames, n_atoms = len(self._offsets) - 1, int(self._offsets[-1])
        members, temperatures = sizes.n_members, sizes.n_temperatures
        shapes: dict[str, tuple[tuple[int, ...], int, Rows]] = {
            'frame': ((n_frames,), 1, 'frame'),
            'frame3': ((n_frames, 3), 3, 'frame'),
            'frame33': ((n_frames, 3, 3), 9, 'frame'),
            'member': ((members, n_frames), members, 'frame'),
            'temperature': ((n_frames, temperatures), temperatures, 'frame'),
            'member_temperature': ((n_frames, members, temperatures), members * temperatures, 'frame'),
            'atom': ((n_atoms,), 1, 'atom'),
            'atom3': ((n_atoms, 3), 3, 'atom'),
            'hessian': ((int(self._starts['hessian'][-1]),), 1, 'hessian'),
            'mode': ((3 * n_atoms,), 1, 'mode'),
            'member_mode': ((members, 3 * n_atoms), members, 'mode'),
        }
        shape, width, rows = shapes[quantity.shape]
        dtype = np.dtype(dtype_of(quantity, sizes.single))
        path = self._directory / f'{quantity.name}.npy'
        # Fortran order keeps the members of one frame together, so that a batch is one piece of the file.
        return _Column(path, shape, dtype, width, rows, quantity.shape in ('member', 'member_mode'))

    def open(self, fingerprint: str) -> None:
        """Open the files: those of an earlier run of the very same job if there are any, else new ones.

        They are here when the same work directory was used again, or in the directory of the parent when that was
        copied here.

        :param fingerprint: tells the job from all that would give other results
        """
        if not self._belongs(self._directory, fingerprint):
            shutil.rmtree(self._directory, ignore_errors=True)
            earlier = (run / ARRAYS_DIRECTORY for run in earlier_runs(self._directory.parent))
            found = next((path for path in earlier if self._belongs(path, fingerprint)), None)
            if found is not None:
                _keep_what_was_finished(found)
                found.rename(self._directory)
        if self._directory.exists():
            self.status = np.array(np.load(self._status.path, allow_pickle=False))
        else:
            self._create(fingerprint)
        columns = {**self._columns, 'status': self._status}
        self._handles = {name: os.open(column.path, os.O_WRONLY) for name, column in columns.items()}

    def _create(self, fingerprint: str) -> None:
        """Make all files; the fingerprint comes last and makes them count."""
        with disk_errors(ARRAYS_DIRECTORY):
            self._directory.mkdir(parents=True)
        for column in self._columns.values():
            column.create(-1 if column.dtype.kind == 'i' else np.nan)
        self._status.create(FrameStatus.PENDING)
        with disk_errors('offsets.npy'):
            np.save(self._directory / 'offsets.npy', self._offsets, allow_pickle=False)
        with disk_errors(FINGERPRINT_FILE):
            (self._directory / FINGERPRINT_FILE).write_text(fingerprint)

    def _belongs(self, directory: Path, fingerprint: str) -> bool:
        """Return whether a directory has complete files of this job."""
        try:
            if (directory / FINGERPRINT_FILE).read_text() != fingerprint:
                return False
            offsets = np.load(directory / 'offsets.npy', allow_pickle=False)
        except (OSError, ValueError, EOFError):  # a crash of the node may leave empty files
            return False
        columns = (*self._columns.values(), self._status)
        return np.array_equal(offsets, self._offsets) and all(
            _matches(dataclasses.replace(column, path=directory / column.path.name)) for column in columns
        )

    def write(self, indices: IntArray, arrays: Mapping[str, Array], status: Array) -> None:
        """Write a batch: the arrays first, then the status that makes them count.

        Where values of an earlier run are replaced, as those of a structure that had not converged, the new ones are on
        the disk before the status is: after a crash of the machine nothing would tell the old ones from them.

        :param indices: the frames of the batch, ``(b,)``
        :param arrays: for every name given at construction, values of these frames in this order, of its shape
        :param status: ``(b,)``
        """
        replaces = self._has_values(indices)
        for name, column in self._columns.items():
            values = np.asarray(arrays[name])
            rows = np.ascontiguousarray(values.T if column.fortran_order else values, dtype=column.dtype)
            starts = self._starts[column.rows]
            self._write_rows(name, column, starts[:-1][indices], np.diff(starts)[indices], rows)
        if replaces:
            self.sync()
        self.mark(indices, status)

    def _has_values(self, indices: IntArray) -> bool:
        """Return whether an earlier run left energies of any of these frames."""
        if 'energies' not in self._columns:
            return False
        energies = np.load(self._columns['energies'].path, mmap_mode='r', allow_pickle=False)
        return bool(np.isfinite(energies[indices]).any())

    def mark(self, indices: IntArray, status: Array) -> None:
        """Write the status of frames that have no results."""
        self._write_rows('status', self._status, indices, np.ones_like(indices), np.asarray(status, dtype='i1'))
        self.status[indices] = status

    def _write_rows(self, name: str, column: _Column, starts: IntArray, lengths: IntArray, rows: Array) -> None:
        """Write rows to where their frames are, neighbours in one piece."""
        if not len(starts):
            return
        base = len(column.header)
        data = memoryview(rows.tobytes())
        breaks = np.flatnonzero(starts[1:] != starts[:-1] + lengths[:-1]) + 1
        row_starts = np.concatenate([[0], np.cumsum(lengths)])
        edges = np.concatenate([[0], breaks, [len(starts)]])
        for begin, end in itertools.pairwise(edges):
            piece = data[row_starts[begin] * column.row_bytes : row_starts[end] * column.row_bytes]
            position = base + int(starts[begin]) * column.row_bytes
            with disk_errors(column.path.name):
                while piece:
                    written = os.pwrite(self._handles[name], piece, position)
                    piece, position = piece[written:], position + written

    def sync(self) -> None:
        """Make sure that what was written survives a crash of the node."""
        for name in [*self._columns, 'status']:
            with disk_errors(ARRAYS_DIRECTORY):
                os.fsync(self._handles[name])

    def close(self) -> None:
        """Close the files."""
        for handle in self._handles.values():
            os.close(handle)
        self._handles = {}

    def read(self, name: str, index: int) -> Array:
        """Return the values of one frame."""
        column = self._columns[name]
        array = np.load(column.path, mmap_mode='r', allow_pickle=False)
        if column.rows != 'frame':
            starts = self._starts[column.rows]
            rows = slice(starts[index], starts[index + 1])
            return np.array(array[:, rows] if column.fortran_order else array[rows])
        return np.array(array[:, index] if column.fortran_order else array[index])

    def missing(self, name: str) -> BoolArray:
        """Return for each frame whether the file has anything in its rows that was never written, ``(n,)``."""
        column = self._columns[name]
        array = np.load(column.path, mmap_mode='r', allow_pickle=False)
        rows = array.T if column.fortran_order else array
        starts = self._starts[column.rows]
        found = np.zeros(len(starts) - 1, dtype=bool)
        owners = np.searchsorted(starts, np.arange(0, int(starts[-1]) + 1, _BLOCK_ROWS), side='right') - 1
        for begin, end in itertools.pairwise(np.unique([*owners, 0, len(found)])):  # not all in memory at once
            block = np.asarray(rows[starts[begin] : starts[end]]).reshape(int(starts[end] - starts[begin]), -1)
            never = np.any(block == -1 if column.dtype.kind == 'i' else np.isnan(block), axis=1)
            so_far = np.concatenate([[0], np.cumsum(never)])
            edges = starts[begin : end + 1] - starts[begin]
            found[begin:end] = so_far[edges[1:]] > so_far[edges[:-1]]
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Return the stored quantities."""
        return tuple(self._columns)


def dtype_of(quantity: Quantity, single: bool = False) -> str:
    """Return the type of an array as numpy writes it.

    :param single: whether what follows the precision of the model is single
    """
    if quantity.integer:
        return '<i4'
    return '<f4' if single and quantity.follows_precision else '<f8'


def hessian_offsets(offsets: IntArray) -> IntArray:
    """Return where the Hessian of each frame begins in the flat array of all, ``(n + 1,)``.

    :param offsets: atoms of the frames, ``(n + 1,)``
    """
    sizes = np.square(3 * (offsets[1:] - offsets[:-1]), dtype=np.int64)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])


def _keep_what_was_finished(arrays: Path) -> None:
    """Set frames back whose status changed while the files of an earlier run were copied.

    Its worker was then still at work. One array may have been copied before it wrote, and the next one after; the
    status, which comes last, tells nothing of those before it. But what the status counted when the copy began was
    whole by then, and no worker writes it again.

    :param arrays: the copy; beside it lies the status as it was before anything else was copied, unless an older
        version of the plugin made the copy
    """
    before_path, path = arrays.parent / STATUS_FILE, arrays / STATUS_FILE
    try:
        before = np.load(before_path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return
    status = np.array(np.load(path, allow_pickle=False))
    if before.shape != status.shape or np.array_equal(before, status):
        return
    status[before != status] = FrameStatus.PENDING
    temporary = path.with_suffix('.tmp')
    with disk_errors(path.name):
        with temporary.open('wb') as handle:
            np.save(handle, status, allow_pickle=False)
        temporary.replace(path)


def _matches(column: _Column) -> bool:
    try:
        with column.path.open('rb') as handle:
            return handle.read(len(column.header)) == column.header and column.path.stat().st_size == column.size
    except OSError:
        return False


class ResultsFile:
    """The file ``results.json``: written at the start with room to spare, and again whenever there is news."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / RESULTS_FILE

    def reserve(self, content: Mapping[str, Any]) -> None:
        """Write the content followed by white space, which keeps room on the disk for what comes later."""
        with disk_errors(self.path.name):
            self._replace(json.dumps(content, allow_nan=False).ljust(_RESERVED_BYTES))

    def write(self, content: Mapping[str, Any]) -> None:
        """Write the content; in place of the reserved room when the disk has no room for a new file."""
        text = json.dumps(content, indent=1, allow_nan=False)
        try:
            self._replace(text)
        except OSError:
            with disk_errors(self.path.name), self.path.open('r+') as handle:
                handle.write(text if len(text) > _RESERVED_BYTES else text.ljust(_RESERVED_BYTES))

    def _replace(self, text: str) -> None:
        temporary = self.path.with_suffix('.tmp')
        try:
            with temporary.open('w') as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
