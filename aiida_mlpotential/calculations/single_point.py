"""Single point: energies, forces, stress and ensemble statistics of one structure or very many in one job."""

from __future__ import annotations

from aiida.engine import CalcJobProcessSpec

from .base import MlpotentialCalculation


class SinglePointCalculation(MlpotentialCalculation):
    """Evaluate every structure once; all of them travel, run and come back as one job.

    A structure that fails costs no other: it gets a status and a message, the job an exit code in the 400s.
    """

    TASK = 'single_point'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Declare the parser."""
        super().define(spec)
        spec.inputs['metadata']['options']['parser_name'].default = 'mlpotential.single_point'  # type: ignore[index]
