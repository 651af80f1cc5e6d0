"""When an optimization is at its end: by force, energy, step and stress, as users of ASE and of AMS know them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..frames import BoolArray, FloatArray
from .rows import Rows


@dataclasses.dataclass(frozen=True)
class Criteria:
    """All that are given have to be met; ``None`` is not asked for.

    At the start there is no step yet whose length or gain could be too large: only forces and stress count there.

    :ivar force: eV/angstrom, the longest force on an atom (or on a row of the cell, if no ``stress`` is given)
    :ivar energy: eV for each atom, change in the last step
    :ivar step: angstrom, longest way of an atom in the last step
    :ivar stress: eV/angstrom^3, largest component of the stress that is free to relax
    """

    force: float
    energy: float | None = None
    step: float | None = None
    stress: float | None = None

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Criteria:
        """Return the criteria that the parameters of a job ask for."""
        names = ('force', 'energy', 'step', 'stress')
        return cls(**{name: parameters[f'{name}_tolerance'] for name in names})

    def largest_forces(self, rows: Rows, forces: FloatArray) -> FloatArray:
        """Return the longest force of each frame that counts, ``(n,)``.

        :param forces: on the generalised coordinates, ``(R, 3)``
        """
        if self.stress is None or not rows.with_cells:
            return rows.longest(forces)
        counted = forces.copy()
        counted[rows.cells] = 0.0
        return rows.longest(counted)

    def met(
        self, largest_forces: FloatArray, gains: FloatArray, ways: FloatArray, stress: FloatArray | None = None
    ) -> BoolArray:
        """Return which frames are converged, ``(n,)``.

        :param largest_forces: eV/angstrom, ``(n,)``
        :param gains: change of the energy for each atom in the last step, eV, 0 before the first, ``(n,)``
        :param ways: longest way of an atom in the last step, angstrom, 0 before the first, ``(n,)``
        :param stress: what is left to relax of it, eV/angstrom^3, ``(n, 3, 3)``
        """
        result = largest_forces < self.force
        if self.energy is not None:
            result &= np.abs(gains) < self.energy
        if self.step is not None:
            result &= ways < self.step
        if self.stress is not None and stress is not None:
            result &= np.abs(stress).max(axis=(1, 2)) < self.stress
        return np.asarray(result)
