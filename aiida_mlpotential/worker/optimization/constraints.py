"""Constraints on the geometry: atoms, components, bonds, angles and dihedrals, for many frames at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..frames import BoolArray, FloatArray, Frames, IntArray
from .carrying import carry
from .constraint_input import (
    Spec,
    expand,
    missing_atoms,
    validate_constraints,
    validate_structures,
)
from .internals import ANGLE, BOND, DIHEDRAL, KINDS, LEAST_ANGLE, Internals

__all__ = ('Constraints', 'validate_constraints', 'validate_structures')

#: Angstrom and radians: as near as this to its target a coordinate has it.
_TOLERANCE = 1e-7
_MAX_ITERATIONS = 200
#: Angstrom: longest way of an atom in one iteration; far targets are reached in several.
_MAX_STEP = 0.2
#: Angstrom and radians (10 degrees): farther than this from its target a part of a molecule is moved as a whole.
_FAR = {BOND: 0.2, ANGLE: 0.17, DIHEDRAL: 0.17}
#: Singular values of the derivatives below the root of this count as zero: that constraint follows from the others.
_REDUNDANT = 1e-9


class Constraints:
    """The constraints of a pool of n frames with A atoms.

    Bonds, angles and dihedrals are kept to first order by :meth:`project`, which leaves of a force or step what does
    not change them, and exactly by :meth:`correct` after a step. Both leave fixed atoms and components alone.

    :param specs: constraints for which :func:`validate_constraints` has no complaint
    :param frames: the frames of the pool as the job got them: coordinates without a value keep the one they have here
    :param indices: the number of each frame in the job, ``(n,)``
    :raises ValueError: if a frame lacks an atom; :meth:`problems` says which frames to leave out
    """

    def __init__(self, specs: Sequence[Spec], frames: Frames, indices: IntArray) -> None:
        rows = expand(specs, frames.offsets, np.asarray(indices))
        self._frames = frames
        self._free = rows.free
        self._any_fixed = not bool(rows.free.all())
        self._frame, self._spec = rows.frame, rows.spec
        self._driven = np.isfinite(rows.target)
        self._internals = Internals.of(rows.kind, rows.atoms, frames)
        initial = self._internals.evaluate(frames.positions)[0] if len(rows.frame) else rows.target
        given = np.where(rows.kind == BOND, rows.target, np.radians(rows.target))
        self._targets = np.where(self._driven, given, initial)

    def __bool__(self) -> bool:
        """Return whether there is any constraint."""
        return self._any_fixed or bool(len(self._internals))

    @property
    def free(self) -> BoolArray:
        """Return which Cartesian components are not fixed, ``(A, 3)``."""
        return self._free

    def select(self, places: Sequence[int] | IntArray) -> Constraints:
        """Return the constraints of some frames of the pool, in the order given, as :meth:`Frames.select` does.

        Cheap: initial values are not computed again.
        """
        chosen = np.asarray(places, dtype=np.int64)
        result = copy.copy(self)
        result._frames = self._frames.select(chosen)
        result._free = self._free[self._frames.atom_indices(chosen)]
        result._any_fixed = not bool(result._free.all())
        # The rows of each frame lie one after the other: they are taken as atoms are.
        counts = np.bincount(self._frame, minlength=len(self._frames))
        ends, kept = np.cumsum(counts), counts[chosen]
        rows = np.repeat((ends - counts)[chosen] - (np.cumsum(kept) - kept), kept) + np.arange(kept.sum())
        result._frame = np.repeat(np.arange(len(chosen)), kept)
        result._spec, result._driven, result._targets = self._spec[rows], self._driven[rows], self._targets[rows]
        moved = (result._frames.offsets[:-1] - self._frames.offsets[chosen])[result._frame]
        result._internals = self._internals.select(rows, self._internals.atoms[rows] + moved[:, None])
        return result

    def project(self, positions: FloatArray, vectors: FloatArray) -> FloatArray:
        """Return what forces or steps have left that changes no constrained coordinate, ``(A, 3)``.

        :param positions: where the derivatives of bonds, angles and dihedrals are taken, ``(A, 3)``
        """
        result = np.where(self._free, vectors, 0.0) if self._any_fixed else np.array(vectors)
        if len(self._internals):
            _, derivatives, _ = self._evaluate(positions)
            along = np.einsum('kac,kac->k', derivatives, result[self._internals.atoms])
            result -= self._spread(derivatives, self._multipliers(derivatives, along), len(result))
        return result

    def correct(self, positions: FloatArray) -> tuple[FloatArray, BoolArray]:
        """Bring bonds, angles and dihedrals to their targets, along the shortest way that fixed atoms allow.

        Where a target that was asked for is far away, in a molecule, the atoms behind it are carried along first, as
        one rigid part, if nothing else holds them.

        :return: positions, and which frames were not brought there: their targets exclude each other, or an angle
            became straight
        """
        failed = np.zeros(len(self._frames), dtype=bool)
        if not len(self._internals):
            return positions, failed
        result = self._carried(np.array(positions))
        for _ in range(_MAX_ITERATIONS):
            differences, derivatives, scale = self._evaluate(result)
            off = ~(np.abs(differences) <= _TOLERANCE)
            failed = np.bincount(self._frame[off], minlength=len(failed)) > 0
            # NaN: no derivatives lead back. The other frames go on.
            off &= np.isfinite(differences)
            if not off.any():
                break
            wanted = np.where(np.isfinite(differences) & failed[self._frame], differences, 0.0) * scale
            step = self._spread(derivatives, self._multipliers(derivatives, wanted), len(result))
            longest = np.zeros(len(failed))
            np.maximum.at(longest, self._frames.frame_of_atom, np.linalg.norm(step, axis=1))
            shorter = np.minimum(1.0, _MAX_STEP / np.maximum(longest, 1e-300))
            result += step * shorter[self._frames.frame_of_atom, None]
        return result, failed

    @staticmethod
    def problems(specs: Sequence[Spec], frames: Frames) -> dict[int, str]:
        """Return why constraints cannot be kept in some frames of a job, by the number of the frame.

        :param specs: constraints for which :func:`validate_constraints` has no complaint
        :param frames: all frames of the job; those with NaN or infinite numbers fail elsewhere
        """
        if not specs:
            return {}
        found = missing_atoms(specs, frames.counts)
        broken = (
            np.bincount(frames.frame_of_atom[~np.isfinite(frames.positions).all(axis=1)], minlength=len(frames)) > 0
        )
        sound = ~broken & np.isfinite(frames.cells).all(axis=(1, 2))
        sound[list(found)] = False
        indices = np.flatnonzero(sound)
        constraints = Constraints(specs, frames.select(indices), indices)
        for index, text in constraints.complaints(specs).items():
            found[int(indices[index])] = text
        return found

    def complaints(self, specs: Sequence[Spec]) -> dict[int, str]:
        """Return why constraints cannot be kept or reached, by place in the pool.

        :param specs: the constraints that these were made of
        """
        found: dict[int, str] = {}
        for row in _doubled(self._frame, self._internals):
            found.setdefault(
                int(self._frame[row]), f'{_name(specs[self._spec[row]])} is there twice for the same atoms'
            )
        straight = ~self._internals.defined(self._frames.positions, float(np.sin(np.radians(LEAST_ANGLE))))
        for row in np.flatnonzero(straight):
            text = 'is not defined: its atoms lie in a line or in one place; fix the atoms instead'
            found.setdefault(int(self._frame[row]), f'{_name(specs[self._spec[row]])} {text}')
        driven = np.setdiff1d(self._frame[self._driven], list(found))
        part = self.select(driven)
        for place in driven[part.correct(part._frames.positions)[1]]:
            found[int(place)] = 'the values of the constraints cannot be met together: change or leave out some'
        return found

    def _evaluate(self, positions: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return distances to the targets, normalised derivatives by free components, and what they were scaled by."""
        values, derivatives = self._internals.evaluate(positions)
        if self._any_fixed:
            derivatives *= self._free[self._internals.atoms]
        norms = np.sqrt(np.einsum('kac,kac->k', derivatives, derivatives))
        scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 1e-8)
        return self._internals.differences(self._targets, values), derivatives * scale[:, None, None], scale

    def _multipliers(self, derivatives: FloatArray, wanted: FloatArray) -> FloatArray:
        """Solve ``B B^T x = wanted`` in each frame, by the pseudoinverse: constraints may follow from others."""
        from scipy.sparse import csr_array

        counts = np.bincount(self._frame, minlength=len(self._frames))
        if counts.max() == 1:
            return wanted  # the rows are normalised, or zero
        k, width = self._internals.atoms.shape
        columns = (3 * self._internals.atoms[:, :, None] + np.arange(3)).reshape(k, 3 * width)
        shape = (k, 3 * self._frames.n_atoms)
        rows = csr_array((derivatives.ravel(), columns.ravel(), np.arange(k + 1) * 3 * width), shape=shape)
        product: Any = (rows @ rows.T).tocoo()
        starts = np.cumsum(counts) - counts
        local = np.arange(k) - starts[self._frame]
        result = np.zeros(k)
        for size in np.unique(counts[counts > 0]):
            chosen = np.flatnonzero(counts == size)
            place = np.full(len(counts), -1)
            place[chosen] = np.arange(len(chosen))
            matrices = np.zeros((len(chosen), size, size))
            at = place[self._frame[product.row]]
            inside = at >= 0
            matrices[at[inside], local[product.row[inside]], local[product.col[inside]]] = product.data[inside]
            members = starts[chosen][:, None] + np.arange(size)
            inverses = np.linalg.pinv(matrices, rcond=_REDUNDANT, hermitian=True)
            result[members] = np.einsum('gij,gj->gi', inverses, wanted[members])
        return result

    def _spread(self, derivatives: FloatArray, multipliers: FloatArray, n_atoms: int) -> FloatArray:
        """Return ``B^T x``: what multipliers of the coordinates are on the atoms, ``(A, 3)``."""
        shares = (derivatives * multipliers[:, None, None]).reshape(-1, 3)
        atoms = self._internals.atoms.ravel()
        columns = [np.bincount(atoms, weights=shares[:, column], minlength=n_atoms) for column in range(3)]
        return np.stack(columns, axis=1)

    def _carried(self, positions: FloatArray) -> FloatArray:
        """Move parts of molecules whose coordinates were asked for and are far away, one coordinate after the other."""
        if not self._driven.any():
            return positions
        molecule = ~np.asarray(self._frames.pbc.any(axis=1))
        limits = np.array([_FAR[number] for number in range(len(KINDS))])[self._internals.kind]
        candidates = self._driven & molecule[self._frame]
        differences = self._internals.differences(self._targets, self._internals.evaluate(positions)[0])
        far = np.flatnonzero(candidates & (np.abs(differences) > limits))
        if not len(far):
            return positions
        rank = np.arange(len(far)) - np.searchsorted(self._frame[far], self._frame[far])
        for turn in range(int(rank.max()) + 1):  # at most one coordinate of a frame in each turn
            rows = far[rank == turn]
            atoms = self._internals.atoms[rows]
            chosen = self._frames.atom_indices(self._frame[rows])
            part = self._frames.select(self._frame[rows])
            moved = (part.offsets[:-1] - self._frames.offsets[self._frame[rows]])[:, None]
            here = self._internals.select(rows, atoms + moved)
            change = here.differences(self._targets[rows], here.evaluate(positions[chosen])[0])
            positions[chosen] = carry(part, positions[chosen], here, change, np.asarray(self._free[chosen].all(axis=1)))
        return positions


def _doubled(frame: IntArray, internals: Internals) -> IntArray:
    """Return the rows that constrain what an earlier row does; a coordinate read backwards is the same."""
    last = np.take_along_axis(internals.atoms, internals.widths[:, None] - 1, axis=1)
    named = np.where(internals.atoms[:, :1] <= last, internals.atoms, internals.backwards())
    # Unused columns repeat the first atom of either reading.
    named = np.where(np.arange(named.shape[1]) < internals.widths[:, None], named, -1)
    keys = np.concatenate([frame[:, None], internals.kind[:, None], named], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    return np.setdiff1d(np.arange(len(keys)), first)


def _name(spec: Spec) -> str:
    return f'the {spec["kind"]} constraint on the atoms {", ".join(map(str, spec["atoms"]))}'
