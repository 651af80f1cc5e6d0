"""Geometry optimization: minima of one structure or very many, with the cell or without, in one job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from aiida import orm
from aiida.engine import CalcJobProcessSpec

from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.data.trajectories import TrajectorySetData
from aiida_mlpotential.symmetry.space_groups import symmetry_arrays
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization.constraints import Constraints, validate_structures
from aiida_mlpotential.worker.parameters.geometry_optimization import BATCHED

from .base import MlpotentialCalculation
from .validation import Request

_NO_GROUP = 'its space group was not found: look for atoms on top of each other, or leave out keep_symmetry'


class GeometryOptimizationCalculation(MlpotentialCalculation):
    """Optimize every structure; all of them go downhill together, and finished ones leave the batch.

    A structure that does not converge, explodes or leaves what the model knows costs no other: it gets a status and a
    message and keeps its last sound geometry.
    """

    TASK = 'geometry_optimization'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Declare parser and outputs."""
        super().define(spec)
        spec.inputs['metadata']['options']['parser_name'].default = 'mlpotential.geometry_optimization'  # type: ignore[index]
        spec.output(
            'output_structure',
            valid_type=orm.StructureData,
            required=False,
            help='The structure at the end, for the input `structure`: with its kinds, names and masses.',
        )
        spec.output(
            'output_structures',
            valid_type=StructureSetData,
            required=False,
            help='The structures at the end, for the input `structures`: in the same order, with the same labels. '
            'One that failed keeps its last sound geometry, or that of the input.',
        )
        spec.output(
            'trajectory',
            valid_type=(orm.TrajectoryData, TrajectorySetData),
            required=False,
            help='Recorded steps of the structure, or of all structures, if the parameter `trajectory` asks for them.',
        )

    @classmethod
    def check_task(cls, request: Request) -> str | None:
        """Return one sentence on why the job as a whole cannot be done, or ``None``."""
        parameters, number = request.parameters, len(request.frames)
        optimizer = parameters['optimizer']
        if optimizer not in BATCHED and number > 1:
            return (
                f'parameters: the optimizer {optimizer} takes one structure, these are {number}: '
                f'choose {" or ".join(BATCHED)}.'
            )
        if parameters['max_qbc'] is not None and request.model.to_spec().ensemble_size == 1:
            return f'parameters: max_qbc asks for a spread, but {request.model.name} has one member: leave it out.'
        message = validate_structures(parameters['constraints'], number)
        return None if message is None else f'parameters: {message}.'

    @classmethod
    def frame_problems(cls, request: Request) -> dict[int, str]:
        """Return why constraints or the cell of single structures make no sense, by their number."""
        frames, parameters = request.frames, request.parameters
        problems = Constraints.problems(parameters['constraints'], frames)
        arrays = cls.symmetry_arrays(frames, parameters)
        if arrays is not None:
            unknown = np.flatnonzero(np.diff(arrays['operation_offsets']) == 0)
            problems.update((int(index), _NO_GROUP) for index in unknown)
        flat = np.flatnonzero(~frames.pbc.all(axis=1))
        for name in ('optimize_cell', 'keep_symmetry'):
            if parameters[name]:
                problems.update((int(index), f'{name}: {FrameStatus.NO_CELL.help}') for index in flat)
        return problems

    @classmethod
    def symmetry_arrays(cls, frames: Frames, parameters: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]] | None:
        """Return the symmetry operations of the structures if they are to be kept."""
        return symmetry_arrays(frames, parameters['symmetry_tolerance']) if parameters['keep_symmetry'] else None
