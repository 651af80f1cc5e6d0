"""Parser of single points: for one structure the numbers that people query stand in the output parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from aiida_mlpotential.data.results import ResultsData

from .base import MlpotentialParser


class SinglePointParser(MlpotentialParser):
    """Parser of :class:`~aiida_mlpotential.calculations.single_point.SinglePointCalculation`."""

    def summarize(self, results: ResultsData) -> dict[str, Any]:
        """Return energy and spread (eV) and the largest force (eV/angstrom) of a single structure."""
        if len(results) != 1:
            return {}
        frame = results.frame(0)
        if frame.energy is None:
            return {}
        n_atoms = int(results.offsets[1])
        summary: dict[str, Any] = {
            'energy': float(frame.energy),
            'n_atoms': n_atoms,
            'formula': results.base.attributes.get('formulas')[0],
        }
        if frame.energy_std is not None:
            summary.update(
                energy_std=float(frame.energy_std),
                energy_std_per_atom=float(frame.energy_std) / n_atoms,
                qbc=float(frame.energy_std) / math.sqrt(n_atoms),
            )
        if frame.forces is not None:
            summary['max_force'] = float(np.linalg.norm(frame.forces, axis=1).max())
        return summary
