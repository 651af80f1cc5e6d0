"""Normal modes: from Hessians to wavenumbers, many frames of one size at once.

Masses are the standard atomic weights of IUPAC (2016) as ase has them, constants those of CODATA 2014 as everywhere in
the package. Translations and rotations are projected out before anything is diagonalised, so that what is left of them
in a Hessian that is not exact, or not of a stationary point, does not mix with soft vibrations.

Source of the projection: Miller, Handy and Adams, J. Chem. Phys. 72 (1980) 99, section II.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from ase.data import atomic_masses
from ase.units import CODATA

from .frames import BoolArray, FloatArray, Frames, IntArray

_C, _H, _E, _AMU = (float(CODATA['2014'][name]) for name in ('_c', '_hplanck', '_e', '_amu'))
#: Wavenumber, cm^-1, of an eigenvalue of the mass-weighted Hessian of 1 eV/angstrom^2/amu.
WAVENUMBER_OF_ONE = math.sqrt(_E / _AMU) * 1e10 / (2 * math.pi * _C * 100)
#: Energy of a wavenumber, eV cm.
ENERGY_OF_WAVENUMBER = 100 * _C * _H / _E

#: A molecule is linear when no atom is further than this from its axis, angstrom ...
_ON_AXIS = 0.01
#: ... and may be up to this one, which is what a loose optimization leaves of a soft bend. Then the curvature decides:
#: turning a bent molecule about the axis costs nothing, doing so to a linear one bends it.
_NEAR_AXIS = 0.1
#: Wavenumber of such a turn, cm^-1, from which on it is a bend: forces of 0.04 eV/angstrom look like that.
_BEND = 100.0
#: Components of a mode that count as its largest, relative to it; the first of them gives the mode its sign.
_LARGEST = 1 - 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class NormalModes:
    """The normal modes of n frames of N atoms each: translations and rotations first, then by ascending wavenumber.

    :ivar frequencies: wavenumbers, ``(n, 3 N)``, cm^-1; exactly 0 for translations and rotations, imaginary ones
        negative
    :ivar modes: displacements of length 1, ``(n, 3 N, 3 N)``, row k is mode k
    :ivar reduced_masses: sum of m x^2 over the displacement x of length 1, ``(n, 3 N)``, amu
    :ivar n_rigid: number of translations and rotations, ``(n,)``: 6, of linear molecules 5, of atoms and of whatever
        is periodic 3
    :ivar linear: whether a frame is a linear molecule, ``(n,)``
    :ivar member_frequencies: wavenumbers of each member, ``(n, m, 3 N)``, cm^-1, in the order of ``frequencies``
    """

    frequencies: FloatArray
    modes: FloatArray
    reduced_masses: FloatArray
    n_rigid: IntArray
    linear: BoolArray
    member_frequencies: FloatArray | None = None

    @property
    def zero_point_energies(self) -> FloatArray:
        """Return half the quanta of all real modes, ``(n,)``, eV; imaginary modes have none."""
        return np.asarray(np.sum(np.maximum(self.frequencies, 0), axis=1) * ENERGY_OF_WAVENUMBER / 2)

    def n_imaginary(self, cutoff: float) -> IntArray:
        """Return the number of imaginary modes beyond a cutoff, ``(n,)``: the order of a saddle point.

        :param cutoff: smaller ones are noise, cm^-1
        """
        return np.asarray(np.sum(self.frequencies < -cutoff, axis=1), dtype=np.int64)


def analyse(frames: Frames, hessians: FloatArray, member_hessians: FloatArray | None = None) -> NormalModes:
    """Return the normal modes of frames that all have the same number of atoms.

    Each member of an ensemble gets its own modes, in the space that is left of the mean's geometry, which is not a
    stationary point of the member. They are put into the order of the mean's modes so that the sum of the squared
    overlaps is the largest; crossing modes keep their names that way.

    :param hessians: ``(n, 3 N, 3 N)``, eV/angstrom^2, symmetric
    :param member_hessians: ``(n, m, 3 N, 3 N)``
    """
    number = len(frames)
    masses = atomic_masses[frames.numbers].reshape(number, -1)
    roots = np.repeat(np.sqrt(masses), 3, axis=1)
    weighted = _weighted(hessians, roots)
    rigid, n_rigid, linear = _rigid_motions(frames, masses, weighted)
    eigenvalues, vectors = np.zeros_like(roots), np.empty_like(weighted)
    given = np.empty((number, 0, *weighted.shape[1:])) if member_hessians is None else member_hessians
    members = np.zeros((number, given.shape[1], roots.shape[1]))
    for size in np.unique(n_rigid):
        rows = np.flatnonzero(n_rigid == size)
        inner = np.linalg.qr(rigid[rows, :, :size], mode='complete')[0][:, :, size:]
        eigenvalues[rows, size:], turns = np.linalg.eigh(_projected(weighted[rows], inner))
        vectors[rows] = np.concatenate([rigid[rows, :, :size], inner @ turns], axis=2)
        for member in range(given.shape[1]):
            own = _projected(_weighted(given[rows, member], roots[rows]), inner)
            members[rows, member, size:] = wavenumbers(_in_order_of(turns, own))
    shapes = np.swapaxes(vectors, 1, 2) / roots[:, None, :]
    lengths = np.linalg.norm(shapes, axis=2)
    frequencies = wavenumbers(eigenvalues)
    shapes = _signed(shapes / lengths[:, :, None])
    found = None if member_hessians is None else members
    return NormalModes(frequencies, shapes, lengths**-2, n_rigid, linear, found)


def wavenumbers(eigenvalues: FloatArray) -> FloatArray:
    """Return wavenumbers, cm^-1, imaginary ones as negative numbers, of eigenvalues in eV/angstrom^2/amu."""
    return np.asarray(np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues)) * WAVENUMBER_OF_ONE)


def largest_forces(frames: Frames, forces: FloatArray) -> FloatArray:
    """Return the largest force on an atom of each frame, ``(n,)``, eV/angstrom; no frame may be empty.

    :param forces: ``(A, 3)``
    """
    return np.asarray(np.maximum.reduceat(np.linalg.norm(forces, axis=1), frames.offsets[:-1]))


def _weighted(hessians: FloatArray, roots: FloatArray) -> FloatArray:
    return np.asarray(hessians / (roots[:, :, None] * roots[:, None, :]))


def _projected(weighted: FloatArray, inner: FloatArray) -> FloatArray:
    return np.asarray(np.swapaxes(inner, 1, 2) @ weighted @ inner)


def _rigid_motions(frames: Frames, masses: FloatArray, weighted: FloatArray) -> tuple[FloatArray, IntArray, BoolArray]:
    """Return translations and rotations as orthonormal mass-weighted columns, how many count, and who is linear.

    :return: ``(n, 3 N, 6)``, of which the first ``(n,)`` count: three translations, then rotations about the principal
        axes, that of the smallest moment of inertia last
    """
    number, atoms = masses.shape
    positions = frames.positions.reshape(number, atoms, 3)
    centred = positions - (masses[:, None, :] @ positions) / masses.sum(axis=1)[:, None, None]
    tensor = np.einsum('na,nai,naj->nij', masses, centred, centred)
    tensor = np.trace(tensor, axis1=1, axis2=2)[:, None, None] * np.eye(3) - tensor
    axes = np.swapaxes(np.linalg.eigh(tensor)[1], 1, 2)[:, ::-1]
    turns = np.cross(axes[:, :, None], centred[:, None])
    motions = np.empty((number, 6, atoms, 3))
    motions[:, :3] = np.eye(3)[:, None]
    motions[:, 3:] = turns
    motions *= np.sqrt(masses)[:, None, :, None]
    columns = np.moveaxis(motions.reshape(number, 6, -1), 1, 2)
    lengths = np.linalg.norm(columns, axis=1, keepdims=True)
    columns = np.divide(columns, lengths, out=np.zeros_like(columns), where=lengths > 0)
    molecule = ~frames.pbc.any(axis=1) & (atoms > 1)
    off_axis = np.linalg.norm(turns[:, 2], axis=2).max(axis=1)
    last = columns[:, :, 5]
    bend = wavenumbers(np.einsum('ni,nij,nj->n', last, weighted, last))
    linear = molecule & ((off_axis < _ON_AXIS) | (off_axis < _NEAR_AXIS) & (np.abs(bend) > _BEND))
    return columns, np.where(molecule, 6 - linear, 3).astype(np.int64), linear


def _in_order_of(turns: FloatArray, projected: FloatArray) -> FloatArray:
    """Return the eigenvalues of matrices in the order of other eigenvectors, ``(n, k)``.

    :param turns: those eigenvectors as columns, ``(n, k, k)``
    :param projected: the matrices, ``(n, k, k)``
    """
    from scipy.optimize import linear_sum_assignment

    eigenvalues, own = np.linalg.eigh(projected)
    overlaps = np.square(np.swapaxes(turns, 1, 2) @ own)
    order = [linear_sum_assignment(overlap, maximize=True)[1] for overlap in overlaps]
    return np.asarray(np.take_along_axis(eigenvalues, np.array(order, dtype=np.int64), axis=1))


def _signed(modes: npt.NDArray[np.float64]) -> FloatArray:
    """Return modes whose largest component is positive: a diagonalisation leaves the sign open."""
    sizes = np.abs(modes)
    first = np.argmax(sizes >= _LARGEST * sizes.max(axis=2, keepdims=True), axis=2)
    return np.asarray(modes * np.sign(np.take_along_axis(modes, first[:, :, None], axis=2)))
