"""Statistics over the members of an ensemble."""

from __future__ import annotations

import numpy as np

from .frames import FloatArray, IntArray


def sample_std(members: FloatArray) -> FloatArray:
    """Return the sample standard deviation over the first axis, the members (ddof = 1)."""
    return np.asarray(np.std(members, axis=0, ddof=1, dtype=np.float64))


def query_by_committee(std: FloatArray, counts: IntArray) -> FloatArray:
    """Return the standard deviation over the square root of the number of atoms.

    :param std: sample standard deviation of the energy, ``(n,)``
    :param counts: atoms of each frame, ``(n,)``
    :source: Smith et al., J. Chem. Phys. 148 (2018) 241733, eq. 1 (there written rho)
    """
    return np.asarray(std / np.sqrt(counts))
