"""The cell as coordinates: the logarithm of its deformation, and the forces on it, for many cells at once.

The definitions are those of ``ase.filters.FrechetCellFilter``, so that a largest force means the same: with the
deformation F (the cell is ``reference @ F.T``) of a frame of N atoms, the coordinates are N log F and its forces are
the derivatives of the enthalpy by them; the positions are those in the undeformed cell and their forces are ``f @ F``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..frames import BoolArray, FloatArray, Frames

#: eV/angstrom^3 of 1 GPa (CODATA 2014, as in ase.units).
GPA = 0.006241509125883258
_MAX_ITERATIONS = 50
_CONVERGED = 1e-14


@dataclasses.dataclass(frozen=True)
class CellRules:
    """What of the cell is free.

    :ivar pressure: eV/angstrom^3
    :ivar mask: which components of the deformation are free, symmetric, ``(3, 3)``
    :ivar fixed_volume: whether the volume is kept
    :ivar hydrostatic: whether the shape is kept
    """

    pressure: float = 0.0
    mask: BoolArray = dataclasses.field(default_factory=lambda: np.ones((3, 3), dtype=bool))
    fixed_volume: bool = False
    hydrostatic: bool = False

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> CellRules | None:
        """Return the rules that the parameters of a job ask for, or ``None`` where the cells are kept."""
        if not parameters['optimize_cell']:
            return None
        return cls(
            float(parameters['pressure']) * GPA,
            full_mask(parameters['cell_mask']),
            bool(parameters['fixed_volume']),
            bool(parameters['hydrostatic']),
        )

    def pressed(self, stress: FloatArray) -> FloatArray:
        """Return the stress that is left to relax, ``(n, 3, 3)``, eV/angstrom^3: the one that has to vanish."""
        left = stress + self.pressure * np.eye(3)
        if self.hydrostatic:
            left = _trace(left) / 3 * np.eye(3)
        return self.isochoric(left * self.mask)

    def isochoric(self, matrices: FloatArray) -> FloatArray:
        """Return the matrices without what changes the volume, where that is kept: the trace of what is free."""
        if not self.fixed_volume or not self.mask.diagonal().any():
            return np.asarray(matrices)
        free = np.diag(self.mask.diagonal())
        return np.asarray(matrices - _trace(matrices * free) / free.sum() * free)


def full_mask(mask: Any) -> BoolArray:
    """Return six flags in Voigt order (xx, yy, zz, yz, xz, xy) as a symmetric matrix; ``None`` frees all."""
    xx, yy, zz, yz, xz, xy = [True] * 6 if mask is None else mask
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], dtype=bool)


def _trace(matrices: FloatArray) -> FloatArray:
    return np.asarray(np.trace(matrices, axis1=-2, axis2=-1)[..., None, None])


def volumes(cells: FloatArray) -> FloatArray:
    """Return the volume of each cell, ``(n,)``, angstrom^3."""
    return np.asarray(np.abs(np.linalg.det(cells)))


def deformations(references: FloatArray, cells: FloatArray) -> FloatArray:
    """Return F of each frame, ``(n, 3, 3)``: ``cell = reference @ F.T``."""
    return np.asarray(np.linalg.solve(references, cells).swapaxes(-1, -2))


def exponential(matrices: FloatArray) -> FloatArray:
    """Return the exponential of each matrix, ``(n, k, k)``."""
    from scipy.linalg import expm

    return np.asarray(expm(matrices)) if len(matrices) else matrices


def logarithm(matrices: FloatArray) -> FloatArray:
    """Return the real logarithm of each matrix, ``(n, 3, 3)``.

    The square root is taken until a matrix is near to 1, then Halley's iteration ``X += 2 (e^X + A)^-1 (A - e^X)``,
    whose start, and so all that follows, commutes with the matrix.

    :source: Higham, Functions of Matrices (SIAM 2008), eq. 6.15 (the square root) and sec. 11.5 (scaling)
    """
    roots, scale = matrices, 1.0
    while len(roots) and np.abs(roots - np.eye(3)).max() > 0.5 and scale < 2.0**30:
        roots, scale = _square_root(roots), scale * 2
    result = roots - np.eye(3)
    for _ in range(_MAX_ITERATIONS):
        grown = exponential(result)
        change = 2 * np.linalg.solve(grown + roots, roots - grown)
        result = result + change
        if not len(change) or np.abs(change).max() < _CONVERGED:
            break
    return np.asarray(scale * result)


def _square_root(matrices: FloatArray) -> FloatArray:
    """Return the principal square root of each matrix by the iteration of Denman and Beavers."""
    root, inverse = matrices, np.broadcast_to(np.eye(3), matrices.shape)
    for _ in range(_MAX_ITERATIONS):
        previous = root
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
        if np.abs(root - previous).max() < _CONVERGED * np.abs(root).max():
            break
    return root


def masked(deformation: FloatArray, rules: CellRules) -> FloatArray:
    """Return the deformations with the components that are not free put back to those of no deformation."""
    if rules.mask.all():
        return deformation
    return np.asarray(np.eye(3) + (deformation - np.eye(3)) * rules.mask)


def cell_forces(
    frames: Frames, stress: FloatArray, deformation: FloatArray, logs: FloatArray, rules: CellRules
) -> FloatArray:
    """Return the forces on N log F, ``(n, 3, 3)``, eV/angstrom.

    The derivative of the exponential, contracted with the virial, is the derivative at the transposed matrix in the
    direction of the virial: one block of the exponential of a matrix of twice the size.

    :param frames: the frames in their present cells
    :param stress: eV/angstrom^3, ``(n, 3, 3)``
    :param deformation: F, ``(n, 3, 3)``
    :param logs: log F, ``(n, 3, 3)``
    :source: Al-Mohy and Higham, SIAM J. Matrix Anal. Appl. 30 (2009) 1639 (Frechet derivative); ASE, FrechetCellFilter
    """
    virial = -volumes(frames.cells)[:, None, None] * (stress + rules.pressure * np.eye(3))
    if rules.hydrostatic:
        virial = _trace(virial) / 3 * np.eye(3)
    virial = virial * rules.mask
    direction = np.linalg.solve(deformation, virial.swapaxes(-1, -2)).swapaxes(-1, -2)
    blocks = np.zeros((len(frames), 6, 6))
    blocks[:, :3, :3] = blocks[:, 3:, 3:] = logs.swapaxes(-1, -2)
    blocks[:, :3, 3:] = direction
    forces = rules.isochoric(exponential(blocks)[:, :3, 3:])
    return np.asarray(forces / frames.counts[:, None, None])
