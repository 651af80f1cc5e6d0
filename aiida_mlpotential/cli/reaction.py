"""Energy of a reaction from an ensemble, with the spread of the reaction energy itself."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from aiida_mlpotential.worker.units import KCAL_PER_MOL

FloatArray = npt.NDArray[np.floating[Any]]


@dataclasses.dataclass(frozen=True)
class ReactionEnergy:
    """Energy of a reaction educt -> product, kcal/mol.

    :ivar energy: E(product) - E(educt), the mean over the members
    :ivar std: sample standard deviation (ddof = 1) over the reaction energies of the members
    :ivar combined: the two standard deviations combined as if educt and product erred independently
    """

    energy: float
    std: float
    combined: float

    @classmethod
    def from_members(cls, educt: FloatArray, product: FloatArray) -> ReactionEnergy:
        """Take the difference member by member, so that errors common to both sides cancel.

        :param educt: energies of the members, eV, ``(m,)``, m of at least 2
        :param product: energies of the same members in the same order, eV, ``(m,)``
        """
        if educt.shape != product.shape or educt.ndim != 1 or len(educt) < 2:
            raise ValueError(f'expected two arrays of one energy a member, got {educt.shape} and {product.shape}')
        differences = (product - educt) / KCAL_PER_MOL
        return cls(
            energy=float(differences.mean()),
            std=float(differences.std(ddof=1)),
            combined=math.hypot(educt.std(ddof=1), product.std(ddof=1)) / KCAL_PER_MOL,
        )
