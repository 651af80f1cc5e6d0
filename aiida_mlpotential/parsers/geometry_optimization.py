"""Parser of geometry optimizations: the structures at the end become nodes of the kind that went in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from aiida import orm

from aiida_mlpotential.data.npy import NpyFile
from aiida_mlpotential.data.results import ResultsData, ResultsError
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.data.trajectories import TrajectoryError, TrajectorySetData, read_folder, to_trajectory
from aiida_mlpotential.worker.errors import HAS_RESULTS, FrameStatus
from aiida_mlpotential.worker.frames import BoolArray, Frames
from aiida_mlpotential.worker.schema import ARRAYS_DIRECTORY, TRAJECTORY_DIRECTORY

from .base import MlpotentialParser
from .summaries import summarize_energy


class GeometryOptimizationParser(MlpotentialParser):
    """Parser of :class:`~aiida_mlpotential.calculations.geometry_optimization.GeometryOptimizationCalculation`."""

    ELSEWHERE = ('positions', 'cells')

    def more_outputs(self, results: ResultsData) -> Iterator[tuple[str, orm.Data]]:
        """Yield the structures at the end, and the trajectories if there are any."""
        frames = self.input_frames()
        final, there = self._final(frames, results)
        if not self.single:
            yield 'output_structures', StructureSetData.from_frames(final)
        elif there[0]:
            yield 'output_structure', moved(self.node.inputs.structure, final)
        if TRAJECTORY_DIRECTORY in self.retrieved.base.repository.list_object_names():
            yield from self._trajectories(frames)

    def _final(self, frames: Frames, results: ResultsData) -> tuple[Frames, BoolArray]:
        """Return the structures at the end, and which of them are not simply those of the input, ``(n,)``."""
        repository = self.retrieved.base.repository
        arrays = {
            name: NpyFile.inspect(repository, f'{ARRAYS_DIRECTORY}/{name}.npy', name).load()
            for name in self.ELSEWHERE
            if name == 'positions' or f'{name}.npy' in repository.list_object_names(ARRAYS_DIRECTORY)
        }
        positions, cells = arrays['positions'], arrays.get('cells', frames.cells)
        there = np.isin(results.status, [int(status) for status in HAS_RESULTS])
        broken = np.bincount(frames.frame_of_atom[~np.isfinite(positions).all(axis=1)], minlength=len(frames)) > 0
        # The cell of a structure that is no crystal was not optimized, whatever the row says.
        crystal = frames.pbc.all(axis=1)
        broken |= crystal & ~np.isfinite(cells).all(axis=(1, 2))
        if np.any(broken & (results.status == FrameStatus.OK)):
            raise ResultsError('positions.npy or cells.npy has NaN or infinity where the status is OK')
        there &= ~broken
        final = dataclasses.replace(
            frames,
            positions=np.where(there[frames.frame_of_atom][:, None], positions, frames.positions),
            cells=np.where((there & crystal)[:, None, None], cells, frames.cells),
        )
        return final, there

    def _trajectories(self, frames: Frames) -> Iterator[tuple[str, orm.Data]]:
        try:
            if not self.single:
                yield 'trajectory', TrajectorySetData.from_folder(self.retrieved, frames)
                return
            trajectories = read_folder(self.retrieved, frames)
        except TrajectoryError as exception:
            raise ResultsError(str(exception)) from None
        if trajectories.frames:
            yield 'trajectory', to_trajectory(trajectories.frame(0), frames.to_ase(0))

    def summarize(self, results: ResultsData) -> dict[str, Any]:
        """Return steps and energies (eV) of a single structure; of many, how they ended and how long it took."""
        steps = results.get_array('steps')
        summary: dict[str, Any] = {'steps': int(steps[steps >= 0].sum())}
        if len(results) > 1:
            counts = results.base.attributes.get('status_counts')
            return {**summary, 'steps_max': int(steps.max()), 'status_counts': counts, 'n_converged': results.n_ok}
        frame = results.frame(0)
        summary.update(status=frame.status.name, converged=frame.ok)
        if frame.energy is None:
            return summary
        initial = float(frame.extra['initial_energies'])
        summary.update(
            summarize_energy(results, frame), initial_energy=initial, energy_change=float(frame.energy) - initial
        )
        frames = self.input_frames()
        if frames.pbc.all() and self.read_job().parameters.get('optimize_cell'):
            final, _ = self._final(frames, results)
            summary.update(initial_volume=_volume(frames), volume=_volume(final))
        return summary


def _volume(frames: Frames) -> float:
    """Return the volume of the cell of the first frame, angstrom^3."""
    return float(abs(np.linalg.det(frames.cells[0])))


def moved(structure: orm.StructureData, frames: Frames) -> orm.StructureData:
    """Return an unstored copy of a structure with kinds, names and masses as they are, and the geometry of frames.

    :param frames: one frame, with the sites of the structure in their order
    """
    result: orm.StructureData = structure.clone()  # type: ignore[no-untyped-call]
    result.label, result.description = structure.label, structure.description
    result.reset_cell(frames.cells[0].tolist())  # type: ignore[no-untyped-call]
    result.reset_sites_positions(frames.positions.tolist())  # type: ignore[no-untyped-call]
    return result
