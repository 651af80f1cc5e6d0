"""Numbers of a single structure that stand in the output parameters whatever the task was."""

from __future__ import annotations

import math
from typing import Any

from aiida_mlpotential.data.frame_result import FrameResult
from aiida_mlpotential.data.results import ResultsData


def is_storable(value: Any) -> bool:
    """Return whether AiiDA can store a value: it refuses numbers that are not finite, however deep they are."""
    if isinstance(value, dict):
        return all(map(is_storable, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_storable, value))
    return not isinstance(value, float) or math.isfinite(value)


def summarize_energy(results: ResultsData, frame: FrameResult) -> dict[str, Any]:
    """Return energy and spread (eV) and the largest force (eV/angstrom) of a single structure that has results."""
    assert frame.energy is not None  # noqa: S101 - for the type checker
    summary: dict[str, Any] = {
        'energy': float(frame.energy),
        'n_atoms': frame.n_atoms,
        'formula': results.base.attributes.get('formulas')[0],
    }
    if frame.energy_std is not None:
        summary.update(
            energy_std=float(frame.energy_std),
            energy_std_per_atom=float(frame.energy_std) / frame.n_atoms,
            qbc=float(frame.energy_std) / math.sqrt(frame.n_atoms),
        )
    if frame.max_force is not None:
        summary['max_force'] = frame.max_force
    return summary
