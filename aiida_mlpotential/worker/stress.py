"""Stress from the derivatives of the energy by the strain: the same for all backends."""

from __future__ import annotations

import numpy as np

from .frames import FloatArray, Frames, IntArray


def stress_of_strain(derivatives: FloatArray, frames: Frames) -> FloatArray:
    """Return the stress of each frame, ``(n, 3, 3)``, eV/angstrom^3; NaN where a frame is no crystal.

    It is symmetric, for the energy does not change when everything is turned.

    :param derivatives: dE/dstrain of each frame, ``(n, 3, 3)``, eV
    """
    stress = np.full((len(frames), 3, 3), np.nan)
    crystals = np.flatnonzero(frames.pbc.all(axis=1))
    volumes = np.abs(np.linalg.det(frames.cells[crystals]))[:, None, None]
    stress[crystals] = (derivatives[crystals] + derivatives[crystals].transpose(0, 2, 1)) / 2 / volumes
    return stress


def stress_of_pairs(frame_of_pair: IntArray, vectors: FloatArray, slopes: FloatArray, frames: Frames) -> FloatArray:
    """Return the stress of each frame from what its pairs of atoms feel, ``(n, 3, 3)``; see above.

    :param frame_of_pair: ``(p,)``
    :param vectors: from the first to the second atom, angstrom, ``(p, 3)``
    :param slopes: derivatives of the energy by these vectors, eV/angstrom, ``(p, 3)``
    """
    virial = np.empty((len(frames), 3, 3))
    for row in range(3):
        for column in range(3):
            weights = vectors[:, row] * slopes[:, column]
            virial[:, row, column] = np.bincount(frame_of_pair, weights, len(frames))
    return stress_of_strain(virial, frames)
