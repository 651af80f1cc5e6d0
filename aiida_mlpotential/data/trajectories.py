"""The trajectories node: recorded steps of many structures, as the very files that the worker writes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.orm.pydantic import OrmMetadataField

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.schema import FRAMES_FILE, TRAJECTORY_DIRECTORY
from aiida_mlpotential.worker.trajectory import (
    HEADER_FILE,
    POSITIONS_FILE,
    RECORDS_FILE,
    FrameTrajectory,
    Trajectories,
    TrajectoryError,
    read_trajectories,
)

from .structures import check_index

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ('TrajectoryError', 'TrajectorySetData', 'read_folder', 'to_trajectory')

_FILES = (HEADER_FILE, RECORDS_FILE, POSITIONS_FILE)


class TrajectorySetData(orm.Data):
    """The recorded steps of n structures, each with its own number of steps.

    Files are those of the worker beside the structures that the job began with, so they take no space of their own.
    """

    class AttributesModel(orm.Data.AttributesModel):
        """Attributes that QueryBuilder can filter on."""

        n_frames: int = OrmMetadataField(description='Number of structures of the job')
        n_recorded: int = OrmMetadataField(description='Number of structures of which there are steps')
        n_steps: int = OrmMetadataField(description='Number of recorded steps of all structures together')

    def initialize(self) -> None:
        """Set up what a node has that was made or loaded."""
        super().initialize()
        self._trajectories: Trajectories | None = None
        self._frames: Frames | None = None

    @classmethod
    def from_folder(cls, folder: orm.FolderData, frames: Frames) -> TrajectorySetData:
        """Return an unstored node with the trajectories of a job.

        :param folder: what was retrieved
        :param frames: the structures that the job began with
        :raises TrajectoryError: if the files are damaged or those of other structures
        """
        trajectories = read_folder(folder, frames)
        node = cls()
        repository = folder.base.repository
        for name in _FILES:
            with repository.open(f'{TRAJECTORY_DIRECTORY}/{name}', 'rb') as handle:
                node.base.repository.put_object_from_filelike(handle, name)  # type: ignore[arg-type]
        stream = io.BytesIO()
        frames.write(stream)
        stream.seek(0)
        node.base.repository.put_object_from_filelike(stream, FRAMES_FILE)  # type: ignore[arg-type]
        node.base.attributes.set_many(
            {
                'n_frames': len(frames),
                'n_recorded': len(trajectories.frames),
                'n_steps': len(trajectories.records),
            }
        )
        return node

    def get_frames(self) -> Frames:
        """Return the structures that the job began with."""
        if self._frames is None:
            with self.base.repository.open(FRAMES_FILE, 'rb') as handle:
                self._frames = Frames.read(handle)
        return self._frames

    @property
    def trajectories(self) -> Trajectories:
        """Return all trajectories as the worker reads them."""
        if self._trajectories is None:
            contents = [self.base.repository.get_object_content(name, mode='rb') for name in _FILES]
            self._trajectories = read_trajectories(*contents)
        return self._trajectories

    def __len__(self) -> int:
        return int(self.base.attributes.get('n_frames'))

    def __bool__(self) -> bool:
        """Return True, as every node."""
        return True

    @property
    def recorded(self) -> tuple[int, ...]:
        """Return the indices of the structures of which there are steps."""
        return self.trajectories.frames

    def get_frame(self, index: int) -> FrameTrajectory:
        """Return the steps of a structure as arrays.

        :raises IndexError: if there is no such structure
        :raises ValueError: if nothing was recorded of it
        """
        number = check_index(index, len(self))
        if number not in self.recorded:
            raise ValueError(f'nothing was recorded of structure {number}: it failed before its first step')
        return self.trajectories.frame(number)

    def get_trajectory(self, index: int) -> orm.TrajectoryData:
        """Return the steps of a structure as an unstored TrajectoryData.

        :raises IndexError: if there is no such structure
        :raises ValueError: if nothing was recorded of it
        """
        number = check_index(index, len(self))
        return to_trajectory(self.get_frame(number), self.get_frames().to_ase(number))

    def get_ase(self, index: int) -> list[Atoms]:
        """Return the steps of a structure as ASE atoms with their energies; the step is ``info['step']``.

        :raises IndexError: if there is no such structure
        :raises ValueError: if nothing was recorded of it
        """
        from ase.calculators.singlepoint import SinglePointCalculator

        number, images = check_index(index, len(self)), []
        steps, first = self.get_frame(number), self.get_frames().to_ase(number)
        for step, energy, positions, cell in zip(
            steps.steps, steps.energies, steps.positions, steps.cells, strict=True
        ):
            atoms = first.copy()  # type: ignore[no-untyped-call]
            atoms.set_cell(cell)
            atoms.set_positions(positions)
            atoms.calc = SinglePointCalculator(atoms, energy=float(energy))  # type: ignore[no-untyped-call]
            atoms.info['step'] = int(step)
            images.append(atoms)
        return images

    def get_description(self) -> str:
        """Return a line for ``verdi node show`` and the like."""
        counts = self.base.attributes
        return f'{counts.get("n_steps")} steps of {counts.get("n_recorded")} of {counts.get("n_frames")} structures'

    def _validate(self) -> bool:
        """Check that the node was made by :meth:`from_folder`."""
        super()._validate()
        missing = {*_FILES, FRAMES_FILE} - set(self.base.repository.list_object_names())
        if missing or 'n_frames' not in self.base.attributes:
            raise ValidationError('trajectories must be made with TrajectorySetData.from_folder')
        return True


def read_folder(folder: orm.FolderData, frames: Frames) -> Trajectories:
    """Return the trajectories in a retrieved folder.

    :param frames: the structures that the job began with
    :raises TrajectoryError: if there are none, or they are damaged or those of other structures
    """
    repository = folder.base.repository
    try:
        contents = [repository.get_object_content(f'{TRAJECTORY_DIRECTORY}/{name}', mode='rb') for name in _FILES]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exception:
        raise TrajectoryError(f'the trajectories are incomplete: {exception}') from None
    try:
        trajectories = read_trajectories(*contents)
    except TrajectoryError:
        raise
    except Exception as exception:  # whatever bytes from elsewhere make of array operations
        raise TrajectoryError(f'the trajectories cannot be read: {type(exception).__name__}: {exception}') from None
    rows = trajectories.records
    index = rows['frame']
    sound = (index >= 0) & (index < len(frames)) & (rows['start'] >= 0)
    sound[sound] = rows['atoms'][sound] == frames.counts[index[sound]]
    if not sound.all():
        raise TrajectoryError('the trajectories are those of other structures')
    return trajectories


def to_trajectory(steps: FrameTrajectory, atoms: Atoms) -> orm.TrajectoryData:
    """Return the steps of a structure as an unstored TrajectoryData.

    It has ``energies`` (eV) and ``max_forces`` (eV/angstrom), ``(k,)``, beside the arrays of AiiDA; numbers of the
    steps are in ``steps``.

    :param atoms: the structure, for its elements and whether it is periodic
    """
    node = orm.TrajectoryData()
    values: dict[str, Any] = {
        'symbols': list(atoms.symbols),
        'positions': np.ascontiguousarray(steps.positions, dtype=np.float64),
        'stepids': np.ascontiguousarray(steps.steps, dtype=np.int64),
        'pbc': tuple(bool(value) for value in atoms.pbc),
    }
    if np.any(steps.cells):
        values['cells'] = np.ascontiguousarray(steps.cells, dtype=np.float64)
    node.set_trajectory(**values)
    node.set_array('energies', np.array(steps.energies))
    node.set_array('max_forces', np.array(steps.max_forces))
    return node
