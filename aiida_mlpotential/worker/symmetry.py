"""Keep the space groups of crystals: symmetrise forces, steps and stresses of many frames, from operations in a file.

The operations were found where a library for them is (``aiida_mlpotential.symmetry``); here numpy is enough.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .frames import BoolArray, FloatArray, Frames, IntArray

#: Rows of transformed vectors that are held at once: 48 MB.
_MAX_ROWS = 2**21


class SymmetryError(ValueError):
    """The arrays of the symmetry file do not fit the frames."""


@dataclasses.dataclass(frozen=True)
class Operations:
    """Symmetry operations of n frames, O in all.

    Operation o maps atom i with fractional coordinates x to ``rotations[o] @ x`` and a translation, which is where atom
    ``permutations[o][i]`` is, or an image of it.

    :ivar rotations: in fractional coordinates, integers, ``(O, 3, 3)``
    :ivar permutations: of each operation as many as its frame has atoms, one after the other, ``(P,)``
    :ivar offsets: frame i has the operations ``offsets[i]:offsets[i + 1]``, ``(n + 1,)``
    :ivar counts: atoms of each frame, ``(n,)``
    """

    rotations: IntArray
    permutations: IntArray
    offsets: IntArray
    counts: IntArray

    @property
    def sizes(self) -> IntArray:
        """Return the number of operations of each frame, ``(n,)``."""
        return np.diff(self.offsets)

    @functools.cached_property
    def _inverse(self) -> FloatArray:
        """Return the inverse of each rotation, for vectors as rows, ``(O, 3, 3)``."""
        return np.asarray(np.linalg.inv(self.rotations).swapaxes(1, 2), dtype=np.float64)

    def where(self, chosen: BoolArray) -> Operations:
        """Return some of the operations, ``(O,)``."""
        frame = np.repeat(np.arange(len(self.counts)), self.sizes)
        sizes = np.bincount(frame[chosen], minlength=len(self.counts))
        entries = np.repeat(chosen, self.counts[frame])
        return Operations(self.rotations[chosen], self.permutations[entries], _offsets(sizes), self.counts)

    def select(self, frames: IntArray) -> Operations:
        """Return the operations of some frames, in the order given."""
        starts = _offsets(self.sizes * self.counts)[:-1]
        operations = _ranges(self.offsets[:-1][frames], self.sizes[frames])
        entries = _ranges(starts[frames], (self.sizes * self.counts)[frames])
        offsets = _offsets(self.sizes[frames])
        return Operations(self.rotations[operations], self.permutations[entries], offsets, self.counts[frames])

    def average_vectors(self, fractional: FloatArray) -> FloatArray:
        """Return the mean over the operations of what each makes of vectors in fractional coordinates, ``(A, 3)``.

        Atom i gets ``R^-1 v[p(i)]`` of each operation: over a whole group that is the mean of all ``R v`` moved to i.
        """
        result = fractional.copy()
        atom_starts, entry_starts = _offsets(self.counts)[:-1], _offsets(self.sizes * self.counts)[:-1]
        for frames, operations in self._alike():
            count, number = int(self.counts[frames[0]]), operations.shape[1]
            atoms = atom_starts[frames, None] + np.arange(count)
            entries = entry_starts[frames, None] + np.arange(number * count)
            partners = self.permutations[entries].reshape(-1, number, count) + atom_starts[frames, None, None]
            # (frame, atom, operation and component) times (frame, operation and component, component)
            moved = fractional[partners].swapaxes(1, 2).reshape(len(frames), count, 3 * number)
            inverse = self._inverse[operations].reshape(len(frames), 3 * number, 3)
            result[atoms] = moved @ inverse / number
        return np.asarray(result)

    def average_tensors(self, fractional: FloatArray) -> FloatArray:
        """Return the mean of ``R^T t R`` over the operations, of tensors in fractional coordinates, ``(n, 3, 3)``."""
        result = fractional.copy()
        for frames, operations in self._alike():
            rotations = self.rotations[operations].astype(np.float64)
            turned = np.einsum('goai,gab,gobj->gij', rotations, fractional[frames], rotations, optimize=True)
            result[frames] = turned / operations.shape[1]
        return np.asarray(result)

    def _alike(self) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield frames with as many atoms and operations as each other, and their operations ``(g, O)``."""
        for count, size in np.unique(np.stack([self.counts, self.sizes]), axis=1).T:
            if not count * size:
                continue
            frames = np.flatnonzero((self.counts == count) & (self.sizes == size))
            step = max(1, _MAX_ROWS // int(size * count))
            for start in range(0, len(frames), step):
                part = frames[start : start + step]
                yield part, self.offsets[part, None] + np.arange(size)


@dataclasses.dataclass(frozen=True)
class SpaceGroups:
    """The space groups of n frames, each as its translations and one operation for each rotation.

    The mean over a group is that over its translations, followed by that over one operation of each of its cosets: of
    a supercell of 27 cells in 156 instead of 5184 operations.

    :ivar translations: the operations that turn nothing, among them the identity
    :ivar cosets: one operation for each rotation, the identity among them
    """

    translations: Operations
    cosets: Operations

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]], frames: Frames) -> SpaceGroups:
        """Return the space groups of a symmetry file.

        :param arrays: ``rotations``, ``permutations`` and ``operation_offsets``: all operations of each frame, or all
            translations and one operation for each rotation
        :param frames: all frames of the job
        :raises SymmetryError: if the arrays are not those of these frames
        """
        missing = [name for name in ('rotations', 'permutations', 'operation_offsets') if name not in arrays]
        if missing:
            raise _invalid(f'has no {missing[0]}')
        names = ('rotations', 'permutations', 'operation_offsets')
        rotations, permutations, offsets = (arrays[name].astype(np.int64) for name in names)
        sizes = np.diff(offsets)
        fits = len(sizes) == len(frames) and len(rotations) == offsets[-1] and bool(np.all(sizes >= 0))
        if not fits or len(permutations) != int(sizes @ frames.counts):
            raise _invalid('does not belong to these structures')
        if np.any(permutations < 0) or np.any(permutations >= np.repeat(frames.counts, sizes * frames.counts)):
            raise _invalid('names atoms that are not there')
        operations = Operations(rotations, permutations, offsets, frames.counts)
        return cls(operations.where(is_translation(rotations)), operations.where(is_first(rotations, sizes)))

    def __len__(self) -> int:
        return len(self.cosets.counts)

    @property
    def known(self) -> BoolArray:
        """Return whether the operations of each frame are known, ``(n,)``; the others are left as they are.

        Those of molecules and slabs are not; a crystal without symmetry has one, the identity.
        """
        return np.asarray(self.cosets.sizes > 0)

    def select(self, indices: Sequence[int] | IntArray) -> SpaceGroups:
        """Return the space groups of some frames, in the order given, as :meth:`Frames.select` does."""
        chosen = np.asarray(indices, dtype=np.int64)
        return SpaceGroups(self.translations.select(chosen), self.cosets.select(chosen))

    def symmetrize_vectors(self, vectors: FloatArray, cells: FloatArray) -> FloatArray:
        """Return the part of forces or displacements that all operations leave as it is, ``(A, 3)``.

        :param vectors: of all atoms, Cartesian, ``(A, 3)``
        :param cells: the cells now, ``(n, 3, 3)``; deformed as they may be, the operations stay those of the crystal
        """
        cells, frame = self._where_known(cells), self._frame_of_atom
        fractional = np.einsum('ac,acj->aj', vectors, np.linalg.inv(cells)[frame])
        return np.asarray(np.einsum('ac,acj->aj', self._averaged(fractional), cells[frame]))

    def symmetrize_stress(self, stress: FloatArray, cells: FloatArray) -> FloatArray:
        """Return the part of stresses, or of other tensors, that all operations leave as it is, ``(n, 3, 3)``.

        :param stress: Cartesian, ``(n, 3, 3)``
        :param cells: the cells now, ``(n, 3, 3)``
        """
        cells = self._where_known(cells)
        averaged = self.cosets.average_tensors(np.einsum('nai,nij,nbj->nab', cells, stress, cells))
        inverse = np.linalg.inv(cells)
        return np.asarray(np.einsum('nia,nab,njb->nij', inverse, averaged, inverse))

    def symmetrize_step(self, before: Frames, after: Frames) -> FloatArray:
        """Return the positions after a step, ``(A, 3)``, with all of the step taken out that breaks the symmetry.

        The step is that of the fractional coordinates: cells may have changed as well. What deviation from the
        symmetry there was within its tolerance stays.
        """
        frame, cells = self._frame_of_atom, self._where_known(after.cells)
        start = np.einsum('ac,acj->aj', before.positions, np.linalg.inv(self._where_known(before.cells))[frame])
        end = np.einsum('ac,acj->aj', after.positions, np.linalg.inv(cells)[frame])
        return np.asarray(np.einsum('ac,acj->aj', start + self._averaged(end - start), cells[frame]))

    def _averaged(self, fractional: FloatArray) -> FloatArray:
        return self.cosets.average_vectors(self.translations.average_vectors(fractional))

    def _where_known(self, cells: FloatArray) -> FloatArray:
        """Return the cells, with a unit cell in place of those of frames that are left as they are."""
        return np.asarray(np.where(self.known[:, None, None], cells, np.eye(3)), dtype=np.float64)

    @property
    def _frame_of_atom(self) -> IntArray:
        return np.repeat(np.arange(len(self)), self.cosets.counts)


def is_translation(rotations: npt.NDArray[Any]) -> BoolArray:
    """Return which operations turn nothing, ``(O,)``."""
    return np.asarray(np.all(rotations == np.eye(3), axis=(1, 2)))


def is_first(rotations: npt.NDArray[Any], sizes: IntArray) -> BoolArray:
    """Return which operations are the first of their frame with their rotation, ``(O,)``."""
    frame = np.repeat(np.arange(len(sizes)), sizes)
    keys = np.concatenate([frame[:, None], rotations.reshape(len(frame), 9)], axis=1)
    result = np.zeros(len(frame), dtype=bool)
    result[np.unique(keys, axis=0, return_index=True)[1]] = True
    return result


def _offsets(sizes: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _invalid(text: str) -> SymmetryError:
    return SymmetryError(f'the symmetry file {text}: submit the calculation again')


def _ranges(starts: IntArray, sizes: IntArray) -> IntArray:
    """Return the numbers from each start on, as many as each size, one range after the other."""
    ends = np.cumsum(sizes)
    return np.asarray(np.repeat(starts - (ends - sizes), sizes) + np.arange(ends[-1] if len(ends) else 0))
