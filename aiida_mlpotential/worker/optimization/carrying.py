"""Move part of a molecule as a whole, so that a bond, angle or dihedral far from its target gets there undistorted."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..frames import BoolArray, FloatArray, Frames, IntArray
from .guards import bonded_pairs, components
from .internals import ANGLE, BOND, DIHEDRAL, Internals


def carry(
    frames: Frames, positions: FloatArray, internals: Internals, change: FloatArray, movable: BoolArray
) -> FloatArray:
    """Change one internal coordinate of each molecule by moving all that hangs on its last or its first atom.

    Where both ends hang together otherwise (a ring), or fixed atoms are on either side, the molecule is left as it is.

    :param frames: n molecules; where their atoms lie is not read from here
    :param positions: where they lie, angstrom, ``(A, 3)``
    :param internals: one coordinate of each molecule in their order, ``(n,)``
    :param change: by how much to change each, angstrom or radians; NaN where it is not defined, ``(n,)``
    :param movable: which atoms are wholly free, ``(A,)``
    :return: new positions
    """
    here = dataclasses.replace(frames, positions=positions)
    bonds = bonded_pairs(here)
    frame = frames.frame_of_atom
    result = np.array(positions)
    waiting = np.isfinite(change)
    for atoms in (internals.atoms, internals.backwards()):
        hanging = _hanging(here, bonds, internals.kind, atoms)
        held = np.bincount(frame[hanging & ~movable], minlength=len(frames)) > 0
        possible = waiting & ~held & ~hanging[atoms[:, 0]]
        moved = np.flatnonzero(hanging & possible[frame])
        result[moved] = _turned(positions, moved, frame[moved], _Turns.of(internals.kind, positions[atoms], change))
        waiting &= ~possible
    return result


def _hanging(frames: Frames, bonds: tuple[IntArray, IntArray], kind: IntArray, atoms: IntArray) -> BoolArray:
    """Return which atoms hang on the last one of each coordinate once the bond that it turns about is cut, ``(A,)``."""
    at = np.where(kind == BOND, 0, 1)
    near, far = (np.take_along_axis(atoms, (at + step)[:, None], axis=1)[:, 0] for step in (0, 1))
    first, second = bonds
    frame = frames.frame_of_atom[first]
    cut = ((first == near[frame]) & (second == far[frame])) | ((first == far[frame]) & (second == near[frame]))
    _, label = components(frames.n_atoms, first[~cut], second[~cut])
    last = np.take_along_axis(atoms, (kind + 1)[:, None], axis=1)[:, 0]
    hanging = np.asarray(label == label[last][frames.frame_of_atom])
    hanging[atoms[kind == DIHEDRAL, 1:3]] = False  # on the axis
    return hanging


@dataclasses.dataclass(frozen=True)
class _Turns:
    """A rotation about an axis through a centre, or a translation, for each of n frames."""

    centre: FloatArray
    axis: FloatArray
    angle: FloatArray
    way: FloatArray

    @classmethod
    def of(cls, kind: IntArray, corners: FloatArray, change: FloatArray) -> _Turns:
        """Return what changes coordinates at the four atoms ``corners``, ``(n, 4, 3)``, by moving the last one."""
        along = np.diff(corners, axis=1)
        is_bond = kind == BOND
        axis = np.where((kind == ANGLE)[:, None], np.cross(-along[:, 0], along[:, 1]), along[:, 1])
        axis, straight = (
            item / np.maximum(np.linalg.norm(item, axis=1), 1e-12)[:, None] for item in (axis, along[:, 0])
        )
        change = np.nan_to_num(change)
        return cls(
            corners[:, 1],
            axis,
            np.where(is_bond, 0.0, change),
            straight * np.where(is_bond, change, 0.0)[:, None],
        )


def _turned(positions: FloatArray, moved: IntArray, frame: IntArray, turns: _Turns) -> FloatArray:
    """Return where the atoms ``moved``, of the frames ``frame``, lie afterwards (formula of Rodrigues)."""
    axis, angle = turns.axis[frame], turns.angle[frame][:, None]
    arm = positions[moved] - turns.centre[frame]
    along = axis * np.einsum('ac,ac->a', axis, arm)[:, None]
    arm = along + (arm - along) * np.cos(angle) + np.cross(axis, arm) * np.sin(angle)
    return np.asarray(turns.centre[frame] + arm + turns.way[frame])
