"""A set of frames (structures) as flat arrays, and its reproducible ``.npz`` form."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ase import Atoms

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: Array names in the file, with dtype and the shape in terms of A atoms and n frames.
_LAYOUT: dict[str, tuple[str, str]] = {
    'numbers': ('u1', 'A'),
    'positions': ('<f8', 'A3'),
    'offsets': ('<i8', 'n+1'),
    'cells': ('<f8', 'n33'),
    'pbc': ('?', 'n3'),
}

#: Version of the zip format that knows sizes over 4 GB.
_ZIP64_VERSION = 45

#: So much of an array is compressed to find out whether it is worth while.
_SAMPLE_BYTES = 2**16

#: Longest label; what is longer is cut.
MAX_LABEL = 100


def clean_label(label: object) -> str:
    """Return a label on one line, of printable characters, not too long: it goes into tables and comment lines."""
    text = ' '.join(str(label).split())
    return ''.join(character if character.isprintable() else '?' for character in text[:MAX_LABEL])


class FramesError(ValueError):
    """The arrays or the file are not a valid set of frames."""


@dataclasses.dataclass(frozen=True, eq=False)
class Frames:
    """n structures with A atoms in all.

    :ivar numbers: atomic numbers, ``(A,)``
    :ivar positions: angstrom, ``(A, 3)``
    :ivar offsets: frame i has the atoms ``offsets[i]:offsets[i + 1]``, ``(n + 1,)``
    :ivar cells: cell vectors as rows, angstrom, zero where there is none, ``(n, 3, 3)``
    :ivar pbc: periodic along each cell vector, ``(n, 3)``
    :ivar labels: a name for each frame, or empty
    """

    numbers: npt.NDArray[np.uint8]
    positions: FloatArray
    offsets: IntArray
    cells: FloatArray
    pbc: BoolArray
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check shapes and offsets; values such as NaN are allowed, they fail frame by frame."""
        n_atoms, n_frames = len(self.numbers), len(self.offsets) - 1
        shapes = {
            'A': (n_atoms,),
            'A3': (n_atoms, 3),
            'n+1': (n_frames + 1,),
            'n33': (n_frames, 3, 3),
            'n3': (n_frames, 3),
        }
        for name, (_, shape) in _LAYOUT.items():
            actual = getattr(self, name).shape
            if actual != shapes[shape]:
                raise FramesError(f'{name} has shape {actual}, expected {shapes[shape]} for {n_frames} frames')
        offsets = self.offsets
        if n_frames < 0 or offsets[0] != 0 or offsets[-1] != n_atoms or np.any(np.diff(offsets) < 0):
            raise FramesError(f'offsets must rise from 0 to the number of atoms, {n_atoms}')
        if self.labels and len(self.labels) != n_frames:
            raise FramesError(f'{len(self.labels)} labels for {n_frames} frames')

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms of all frames together."""
        return len(self.numbers)

    @property
    def counts(self) -> IntArray:
        """Return the number of atoms of each frame, ``(n,)``."""
        return np.diff(self.offsets)

    @property
    def frame_of_atom(self) -> IntArray:
        """Return the index of the frame of each atom, ``(A,)``."""
        return np.repeat(np.arange(len(self)), self.counts)

    def label(self, index: int) -> str:
        """Return the label of a frame, or its number counted from 0 where it has none."""
        return (self.labels[index] if self.labels else '') or f'#{index}'

    def atom_indices(self, indices: IntArray) -> IntArray:
        """Return the indices of the atoms of some frames, frame after frame."""
        counts = self.counts[indices]
        starts = self.offsets[:-1][indices]
        ends = np.cumsum(counts)
        return np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)

    def select(self, indices: Sequence[int] | IntArray) -> Frames:
        """Return the frames with the given indices, in their order."""
        chosen = np.asarray(indices, dtype=np.int64)
        atoms = self.atom_indices(chosen)
        return Frames(
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            offsets=np.concatenate([[0], np.cumsum(self.counts[chosen])]).astype(np.int64),
            cells=self.cells[chosen],
            pbc=self.pbc[chosen],
            labels=tuple(self.labels[i] for i in chosen) if self.labels else (),
        )

    def to_ase(self, index: int) -> Atoms:
        """Return one frame as ASE atoms."""
        from ase import Atoms

        atoms = slice(self.offsets[index], self.offsets[index + 1])
        return Atoms(
            numbers=self.numbers[atoms], positions=self.positions[atoms], cell=self.cells[index], pbc=self.pbc[index]
        )

    def __iter__(self) -> Iterator[Atoms]:
        return (self.to_ase(index) for index in range(len(self)))

    @classmethod
    def from_ase(cls, structures: Iterable[Atoms], labels: Sequence[str] = ()) -> Frames:
        """Make a set of frames from ASE atoms; an iterator is read once, so a generator may stream a large file."""
        numbers, positions, cells, pbc = [], [], [], []
        for atoms in structures:
            numbers.append(np.asarray(atoms.numbers))
            positions.append(np.asarray(atoms.positions, dtype='f8'))
            cells.append(atoms.cell.array)
            pbc.append(atoms.pbc)
        offsets = np.concatenate([[0], np.cumsum([len(item) for item in numbers])]).astype(np.int64)
        return cls(
            numbers=_as_bytes(np.concatenate(numbers)) if numbers else np.zeros(0, 'u1'),
            positions=np.concatenate(positions) if positions else np.zeros((0, 3)),
            offsets=offsets,
            cells=np.array(cells, dtype='f8').reshape(-1, 3, 3),
            pbc=np.array(pbc, dtype=bool).reshape(-1, 3),
            labels=tuple(clean_label(label) for label in labels),
        )

    def write(self, target: str | Path | IO[bytes]) -> None:
        """Write the frames as an ``.npz`` file whose bytes depend on nothing but the frames."""
        arrays = {name: np.ascontiguousarray(getattr(self, name), dtype=dtype) for name, (dtype, _) in _LAYOUT.items()}
        if self.labels:
            arrays['labels'] = np.array(self.labels, dtype=np.str_)
        write_npz(target, arrays)

    @classmethod
    def read(cls, source: str | Path | IO[bytes]) -> Frames:
        """Read an ``.npz`` file; anything else raises a :class:`FramesError` that says why."""
        try:
            with np.load(source, allow_pickle=False) as file:
                arrays = {name: file[name].astype(dtype, casting='safe') for name, (dtype, _) in _LAYOUT.items()}
                labels = tuple(str(label) for label in file['labels']) if 'labels' in file.files else ()
        except (FileNotFoundError, MemoryError):
            raise
        except Exception as exception:  # a broken zip raises a dozen different types
            raise FramesError(f'not a set of frames: {type(exception).__name__}: {exception}') from exception
        return cls(**arrays, labels=labels)


def _as_bytes(numbers: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return atomic numbers in one byte each; numpy would turn 257 into hydrogen without a word."""
    wrong = numbers[(numbers < 0) | (numbers > 255)]
    if len(wrong):
        raise FramesError(f'{wrong[0]} is not the atomic number of an element')
    return numbers.astype('u1')


def write_npz(target: str | Path | IO[bytes], arrays: Mapping[str, npt.NDArray[Any]], compress: bool = True) -> None:
    """Write arrays as an ``.npz`` with fixed times and order, so that equal arrays are equal files.

    Compressed bytes may differ between versions of zlib; without compression they are the same everywhere: hashes that
    are known beforehand, such as those of the published models, rest on it.

    :param compress: whether to compress the arrays that become much smaller by it
    """
    with zipfile.ZipFile(target, 'w') as archive:
        for name in sorted(arrays):
            array = np.asanyarray(arrays[name])
            info = _Member(f'{name}.npy', date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED if compress and _shrinks(array) else zipfile.ZIP_STORED
            with archive.open(info, 'w', force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)


class _Member(zipfile.ZipInfo):
    """A member of unknown size, whose header has the same bytes in all versions of Python.

    Before 3.11.4 the header gave the sizes twice, in the Zip64 field and where a mark should refer to that field, and
    asked for too old a version of the format (CPython's issue 103861).
    """

    def FileHeader(self, zip64: bool | None = None) -> bytes:  # noqa: N802 (the name is that of the base class)
        """Return the header as later versions of Python write it."""
        header = bytearray(super().FileHeader(zip64))
        if zip64:
            self.create_version = self.extract_version = _ZIP64_VERSION
            struct.pack_into('<H', header, 4, _ZIP64_VERSION)
            struct.pack_into('<LL', header, 18, 0xFFFFFFFF, 0xFFFFFFFF)
        return bytes(header)


def _shrinks(array: npt.NDArray[Any]) -> bool:
    """Return whether compression takes at least a tenth off an array, by its first elements.

    Coordinates of double precision hardly shrink, and would take most of the time of writing and reading a file.
    """
    sample = array.reshape(-1)[: _SAMPLE_BYTES // max(array.itemsize, 1)].tobytes()
    return len(zlib.compress(sample)) <= 0.9 * len(sample)


def sha256_of(source: str | Path | bytes | IO[bytes]) -> str:
    """Return the sha256 of a file, an open file or bytes, read in blocks."""
    digest = hashlib.sha256()
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, (str, Path)):
        with Path(source).open('rb') as handle:
            return sha256_of(handle)
    for block in iter(lambda: source.read(io.DEFAULT_BUFFER_SIZE * 128), b''):
        digest.update(block)
    return digest.hexdigest()
