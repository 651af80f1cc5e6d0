"""Keep the space groups of crystals: symmetrise forces, steps and stresses of many frames, from operations in a file.

The operations were found where a library for them is (``aiida_mlpotential.symmetry``); here numpy is enough.
"""

from __future__ import annotations

import dataclasses
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
class SpaceGroups:
    """The symmetry operations of n frames, with O operations in all.

    Operation o maps atom i with fractional coordinates x to ``rotations[o] @ x + translations[o]``, which is where
    atom ``permutations[o][i]`` is, or an image of it.

    :ivar rotations: in fractional coordinates, integers, ``(O, 3, 3)``
    :ivar permutations: of each operation as many as its frame has atoms, one after the other, ``(P,)``
    :ivar offsets: frame i has the operations ``offsets[i]:offsets[i + 1]``, ``(n + 1,)``
    :ivar counts: atoms of each frame, ``(n,)``
    """

    rotations: IntArray
    permutations: npt.NDArray[np.int32]
    offsets: IntArray
    counts: IntArray

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]], frames: Frames) -> SpaceGroups:
        """Return the operations of a symmetry file.

        :param arrays: ``rotations``, ``permutations`` and ``operation_offsets`` (``translations`` are not needed)
        :param frames: all frames of the job
        :raises SymmetryError: if the arrays are not those of these frames
        """
        missing = [name for name in ('rotations', 'permutations', 'operation_offsets') if name not in arrays]
        if missing:
            raise _invalid(f'has no {missing[0]}')
        offsets, rotations = arrays['operation_offsets'].astype(np.int64), arrays['rotations'].astype(np.int64)
        permutations, sizes = arrays['permutations'], np.diff(offsets)
        fits = len(sizes) == len(frames) and len(rotations) == offsets[-1] and bool(np.all(sizes >= 0))
        if not fits or len(permutations) != int(sizes @ frames.counts):
            raise _invalid('does not belong to these structures')
        if np.any(permutations < 0) or np.any(permutations >= np.repeat(frames.counts, sizes * frames.counts)):
            raise _invalid('names atoms that are not there')
        return cls(rotations, permutations, offsets, frames.counts)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def known(self) -> BoolArray:
        """Return whether the operations of each frame are known, ``(n,)``; the others are left as they are.

        Those of molecules and slabs are not; a crystal without symmetry has one, the identity.
        """
        return np.asarray(np.diff(self.offsets) > 0)

    def select(self, indices: Sequence[int] | IntArray) -> SpaceGroups:
        """Return the operations of some frames, in the order given, as :meth:`Frames.select` does."""
        chosen = np.asarray(indices, dtype=np.int64)
        sizes = np.diff(self.offsets)
        starts = np.concatenate([[0], np.cumsum(sizes * self.counts)])
        operations = _ranges(self.offsets[:-1][chosen], sizes[chosen])
        entries = _ranges(starts[:-1][chosen], (sizes * self.counts)[chosen])
        offsets = np.concatenate([[0], np.cumsum(sizes[chosen])]).astype(np.int64)
        return SpaceGroups(self.rotations[operations], self.permutations[entries], offsets, self.counts[chosen])

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
        fractional = np.einsum('nai,nij,nbj->nab', cells, stress, cells)
        averaged = fractional.copy()
        for frames, operations in self._groups(np.ones(len(self), dtype=np.int64)):
            rotations = self.rotations[operations].astype(np.float64)
            turned = np.einsum('goai,gab,gobj->gij', rotations, fractional[frames], rotations, optimize=True)
            averaged[frames] = turned / operations.shape[1]
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

    def _where_known(self, cells: FloatArray) -> FloatArray:
        """Return the cells, with a unit cell in place of those of frames that are left as they are."""
        return np.asarray(np.where(self.known[:, None, None], cells, np.eye(3)), dtype=np.float64)

    @property
    def _frame_of_atom(self) -> IntArray:
        return np.repeat(np.arange(len(self)), self.counts)

    def _averaged(self, fractional: FloatArray) -> FloatArray:
        """Return the mean over the operations of what each makes of vectors in fractional coordinates, ``(A, 3)``.

        Atom i gets ``R^-1 v[p(i)]`` of each operation: over a whole group that is the mean of all ``R v`` moved to i.
        """
        result = fractional.copy()
        atom_starts = np.cumsum(self.counts) - self.counts
        sizes = np.diff(self.offsets) * self.counts
        entry_starts = np.cumsum(sizes) - sizes
        for frames, operations in self._groups(self.counts):
            count, number = int(self.counts[frames[0]]), operations.shape[1]
            atoms = atom_starts[frames, None] + np.arange(count)
            entries = entry_starts[frames, None] + np.arange(number * count)
            partners = self.permutations[entries].reshape(-1, number, count) + atom_starts[frames, None, None]
            # (frame, atom, operation and component) times (frame, operation and component, component)
            moved = fractional[partners].swapaxes(1, 2).reshape(len(frames), count, 3 * number)
            inverse = np.linalg.inv(self.rotations[operations]).swapaxes(2, 3).reshape(len(frames), 3 * number, 3)
            result[atoms] = moved @ inverse / number
        return np.asarray(result)

    def _groups(self, weights: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield frames with as many atoms and operations as each other, and their operations ``(g, O)``."""
        sizes = np.diff(self.offsets)
        for count, size in np.unique(np.stack([self.counts, sizes]), axis=1).T:
            frames = np.flatnonzero((self.counts == count) & (sizes == size))
            if not count * size:
                continue
            step = max(1, _MAX_ROWS // int(size * weights[frames[0]]))
            for start in range(0, len(frames), step):
                part = frames[start : start + step]
                yield part, self.offsets[part, None] + np.arange(size)


def _invalid(text: str) -> SymmetryError:
    return SymmetryError(f'the symmetry file {text}: submit the calculation again')


def _ranges(starts: IntArray, sizes: IntArray) -> IntArray:
    """Return the numbers from each start on, as many as each size, one range after the other."""
    ends = np.cumsum(sizes)
    return np.asarray(np.repeat(starts - (ends - sizes), sizes) + np.arange(ends[-1] if len(ends) else 0))
