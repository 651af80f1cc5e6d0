"""Bonds, angles and dihedrals of many frames at once: their values and derivatives, angstrom and radians."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..frames import BoolArray, FloatArray, Frames, IntArray

#: Most atoms of an internal coordinate.
WIDEST = 4
#: Degrees. Nearer to 0 or 180 the direction in which an angle opens, and dihedrals over it, are not defined well.
LEAST_ANGLE = 1.0
#: Below it the sine of an angle makes derivatives that are noise.
_LEAST_SINE = 1e-3
#: Angstrom; between atoms nearer than this a bond has no direction.
_LEAST_LENGTH = 1e-3


def _ase() -> Any:
    from ase import geometry

    return geometry


def _bond(vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    return np.linalg.norm(vectors[:, 0], axis=1), _ase().get_distances_derivatives(vectors[:, 0])


def _angle(vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    arms = -vectors[:, 0], vectors[:, 1]
    return np.radians(_ase().get_angles(*arms)), np.radians(_ase().get_angles_derivatives(*arms))


def _dihedral(vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    arms = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    return np.radians(_ase().get_dihedrals(*arms)), np.radians(_ase().get_dihedrals_derivatives(*arms))


class Kind(NamedTuple):
    """A kind of internal coordinate.

    :ivar width: number of atoms
    :ivar evaluate: from the vectors ``(k, width - 1, 3)`` from atom to atom to values ``(k,)`` and derivatives by the
        atoms ``(k, width, 3)``
    """

    width: int
    evaluate: Callable[[FloatArray], tuple[FloatArray, FloatArray]]


KINDS: dict[str, Kind] = {'bond': Kind(2, _bond), 'angle': Kind(3, _angle), 'dihedral': Kind(4, _dihedral)}
BOND, ANGLE, DIHEDRAL = range(len(KINDS))


@dataclasses.dataclass(frozen=True)
class Internals:
    """k internal coordinates of the atoms of a pool of frames.

    :ivar kind: number of the kind in ``KINDS``, ``(k,)``
    :ivar atoms: indices into the pool; where a kind has fewer than 4 the first again, ``(k, 4)``
    :ivar shifts: what to add to the vectors from atom to atom for the image that is meant, angstrom, ``(k, 3, 3)``
    """

    kind: IntArray
    atoms: IntArray
    shifts: FloatArray

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def of(cls, kind: IntArray, atoms: IntArray, frames: Frames) -> Internals:
        """Return internal coordinates between nearest images, as the atoms lie now; later the images stay the same.

        A coordinate thus changes steadily when an atom comes nearer to another image.
        """
        vectors = np.diff(frames.positions[atoms], axis=1)
        shifts = np.zeros_like(vectors)
        frame = frames.frame_of_atom[atoms[:, 0]]
        for index in np.unique(frame[frames.pbc[frame].any(axis=1)]):
            rows = np.flatnonzero(frame == index)
            flat = vectors[rows].reshape(-1, 3)
            nearest = _ase().find_mic(flat, frames.cells[index], frames.pbc[index])[0]
            shifts[rows] = (nearest - flat).reshape(-1, 3, 3)
        return cls(kind, atoms, shifts)

    def select(self, rows: IntArray, atoms: IntArray) -> Internals:
        """Return some of them, with the atoms numbered anew.

        :param atoms: the new ``atoms`` of those rows
        """
        return Internals(self.kind[rows], atoms, self.shifts[rows])

    def backwards(self) -> IntArray:
        """Return the atoms from the last to the first, ``(k, 4)``: each coordinate has the same value read so."""
        columns = np.arange(WIDEST)
        width = self.widths[:, None]
        return np.asarray(np.take_along_axis(self.atoms, np.where(columns < width, width - 1 - columns, 0), axis=1))

    @property
    def widths(self) -> IntArray:
        """Return the number of atoms of each, ``(k,)``."""
        return np.array([kind.width for kind in KINDS.values()])[self.kind]

    def vectors(self, positions: FloatArray) -> FloatArray:
        """Return the vectors from atom to atom, ``(k, 3, 3)``; those beyond the width of a kind mean nothing."""
        return np.asarray(np.diff(positions[self.atoms], axis=1) + self.shifts)

    def defined(self, positions: FloatArray, least_sine: float = _LEAST_SINE) -> BoolArray:
        """Return which have a value and derivatives: no atoms in one place or, with more than two, in a line."""
        vectors = self.vectors(positions)
        lengths = np.linalg.norm(vectors, axis=2)
        # Columns beyond the width of a kind must not count against it.
        width = self.widths[:, None]
        columns = np.arange(WIDEST - 1)
        good = (lengths > _LEAST_LENGTH) | (columns >= width - 1)
        with np.errstate(divide='ignore', invalid='ignore'):
            crossed = np.linalg.norm(np.cross(vectors[:, :-1], vectors[:, 1:]), axis=2)
            sines = crossed / (lengths[:, :-1] * lengths[:, 1:])
        bent = (sines > least_sine) | (columns[:-1] >= width - 2)
        return np.asarray(good.all(axis=1) & bent.all(axis=1))

    def evaluate(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the values ``(k,)``, angstrom or radians, and their derivatives by the four atoms, ``(k, 4, 3)``.

        Where a coordinate is not defined the value is NaN and the derivatives are zero.
        """
        values = np.full(len(self), np.nan)
        derivatives = np.zeros((len(self), WIDEST, 3))
        vectors, good = self.vectors(positions), self.defined(positions)
        for number, (width, function) in enumerate(KINDS.values()):
            rows = np.flatnonzero(good & (self.kind == number))
            if len(rows):
                values[rows], derivatives[rows, :width] = function(vectors[rows, : width - 1])
        return values, derivatives

    def differences(self, targets: FloatArray, values: FloatArray) -> FloatArray:
        """Return how far values are from their targets; of dihedrals the shorter way round."""
        difference = targets - values
        round_trip = (difference + np.pi) % (2 * np.pi) - np.pi
        return np.asarray(np.where(self.kind == DIHEDRAL, round_trip, difference))
