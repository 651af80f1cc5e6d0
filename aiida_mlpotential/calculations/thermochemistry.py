"""Thermochemistry of ideal gases on normal modes: one molecule or many, at many temperatures, in one job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from aiida_mlpotential.symmetry.libraries import import_library
from aiida_mlpotential.symmetry.point_groups import symmetry_numbers
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.ideal_gas import check_molecules
from aiida_mlpotential.worker.parameters.thermochemistry import check_structures

from .validation import Request
from .vibrations import VibrationsCalculation


class ThermochemistryCalculation(VibrationsCalculation):
    """Compute entropies, enthalpies and Gibbs energies of molecules from their normal modes.

    Symmetry numbers are those of the point groups, which are found before the job is sent, unless they are given.
    """

    TASK = 'thermochemistry'

    @classmethod
    def check_task(cls, request: Request) -> str | None:
        """Return one sentence on why the job as a whole cannot be done, or ``None``."""
        return super().check_task(request) or check_structures(request.parameters, request.frames.pbc)

    @classmethod
    def frame_problems(cls, request: Request) -> dict[int, str]:
        """Return why there is no thermochemistry of single structures, by their number."""
        given: Any = request.parameters['symmetry_number']
        # Of a set there may be very many: each is looked at once, when the job is sent. Without the library none is.
        if given is None:
            import_library('pymatgen.symmetry.analyzer')
        arrays = cls.symmetry_arrays(request.frames, request.parameters) if request.single else None
        numbers = (given or 1) if arrays is None else arrays['symmetry_numbers']
        statuses = check_molecules(request.frames, numbers)
        bad = (statuses != FrameStatus.PENDING).nonzero()[0]
        return {index: FrameStatus(int(statuses[index])).help for index in bad.tolist()}

    @classmethod
    def symmetry_arrays(cls, frames: Frames, parameters: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]] | None:
        """Return symmetry numbers and point groups, unless the symmetry numbers are given."""
        if parameters['symmetry_number'] is not None:
            return None
        numbers, groups = symmetry_numbers(frames)
        return {'symmetry_numbers': numbers, 'point_groups': np.array(groups, dtype=np.str_)}
