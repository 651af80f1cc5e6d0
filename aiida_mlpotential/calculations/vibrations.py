"""Vibrational analysis: frequencies and normal modes of one structure or many in one job."""

from __future__ import annotations

from aiida.engine import CalcJobProcessSpec

from aiida_mlpotential.data.normal_modes import NormalModesData

from .base import MlpotentialCalculation
from .validation import Request, check_masses


class VibrationsCalculation(MlpotentialCalculation):
    """Find the normal modes of every structure, and what kind of stationary point it is.

    The structures should have been optimized with the same model: modes elsewhere than at a stationary point mean
    little, and are marked so.
    """

    TASK = 'vibrations'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Declare parser and outputs."""
        super().define(spec)
        spec.inputs['metadata']['options']['parser_name'].default = f'mlpotential.{cls.TASK}'  # type: ignore[index]
        spec.output(
            'results', valid_type=NormalModesData, required=False, help='Normal modes of all structures, as arrays.'
        )

    @classmethod
    def check_task(cls, request: Request) -> str | None:
        """Return one sentence on why the job as a whole cannot be done, or ``None``."""
        return check_masses(request.structure)
