"""Parser of single points: for one structure the numbers that people query stand in the output parameters."""

from __future__ import annotations

from typing import Any

from aiida_mlpotential.data.results import ResultsData

from .base import MlpotentialParser
from .summaries import summarize_energy


class SinglePointParser(MlpotentialParser):
    """Parser of :class:`~aiida_mlpotential.calculations.single_point.SinglePointCalculation`."""

    def summarize(self, results: ResultsData) -> dict[str, Any]:
        """Return energy and spread (eV) and the largest force (eV/angstrom) of a single structure."""
        if len(results) != 1:
            return {}
        frame = results.frame(0)
        return {} if frame.energy is None else summarize_energy(results, frame)
