"""Trajectories of many frames in two files that only grow: written step by step, readable at any moment.

The directory ``trajectory`` holds

* ``header.json``: format version, record layout and the fingerprint of the job;
* ``records.bin``: one row of fixed size (:data:`RECORD`) for each recorded step of each frame, in the order of writing;
* ``positions.bin``: the positions of the recorded atoms, three little-endian doubles each, row after row.

A record is written after its positions and says where they begin, so a process that was killed leaves at most a torn
tail, which a reader ignores and the next writer cuts off. A frame that was set back to an earlier step (by going on
from a checkpoint) is recorded anew: of a frame, a record counts only if no later one has the same or an earlier step.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .frames import FloatArray, Frames, IntArray
from .parents import earlier_runs
from .schema import TRAJECTORY_DIRECTORY
from .storage import disk_errors

HEADER_FILE = 'header.json'
RECORDS_FILE = 'records.bin'
POSITIONS_FILE = 'positions.bin'
FORMAT_VERSION = 1

#: One recorded step of one frame: eV, eV/angstrom, angstrom; ``start`` is the first of its rows in the positions.
RECORD = np.dtype(
    [
        ('frame', '<i8'),
        ('step', '<i8'),
        ('start', '<i8'),
        ('atoms', '<i8'),
        ('energy', '<f8'),
        ('max_force', '<f8'),
        ('cell', '<f8', (3, 3)),
    ]
)
_ROW_BYTES = 3 * 8
#: No frame or step has a larger number.
_LARGEST = 2**31 - 1

Source = bytes | str | Path | IO[bytes]


class TrajectoryError(ValueError):
    """The files are not trajectories that this version can read."""


@dataclasses.dataclass(frozen=True)
class FrameTrajectory:
    """The recorded steps of one frame, in their order.

    :ivar steps: ``(k,)``
    :ivar energies: eV, ``(k,)``
    :ivar max_forces: largest force that drives the optimization, eV/angstrom, ``(k,)``
    :ivar positions: angstrom, ``(k, N, 3)``
    :ivar cells: angstrom, zero where there is none, ``(k, 3, 3)``
    """

    steps: IntArray
    energies: FloatArray
    max_forces: FloatArray
    positions: FloatArray
    cells: FloatArray


class Trajectories:
    """What was recorded of the frames of a job.

    :param records: rows of :data:`RECORD`
    :param positions: rows of the positions, ``(rows, 3)``
    :raises TrajectoryError: if a record has numbers that no writer writes
    """

    def __init__(self, records: npt.NDArray[Any], positions: FloatArray) -> None:
        # Written so that no number, whatever the file says, becomes too large for its type.
        complete = records['start'] <= len(positions) - np.clip(records['atoms'], 0, len(positions) + 1)
        records = records[: len(records) if complete.all() else int(np.argmin(complete))]
        for name in ('frame', 'step'):
            if len(records) and not 0 <= records[name].min() <= records[name].max() <= _LARGEST:
                raise TrajectoryError(f'the trajectories are those of other structures: the {name} is out of bounds')
        self.records = records[_latest(records['frame'], records['step'])]
        self._positions = positions
        bounds = np.flatnonzero(np.diff(self.records['frame'])) + 1
        edges = np.concatenate([[0], bounds, [len(self.records)]] if len(self.records) else [bounds])
        self._rows = {
            int(self.records['frame'][first]): slice(int(first), int(end)) for first, end in itertools.pairwise(edges)
        }

    @property
    def frames(self) -> tuple[int, ...]:
        """Return the indices of the frames of which there is something."""
        return tuple(self._rows)

    def frame(self, index: int) -> FrameTrajectory:
        """Return the trajectory of a frame; one of which nothing was recorded raises a ``KeyError``."""
        rows = self.records[self._rows[index]]
        atoms = rows['start'][:, None] + np.arange(rows['atoms'][0])
        return FrameTrajectory(
            rows['step'].copy(), rows['energy'].copy(), rows['max_force'].copy(), self._positions[atoms],
            rows['cell'].copy(),
        )  # fmt: skip


def _latest(frame: IntArray, step: IntArray) -> IntArray:
    """Return the records that were not superseded, sorted by frame and step.

    Sorted by frame, in the order of writing, a record is superseded if any later one of its frame is not beyond it.
    """
    order = np.argsort(frame, kind='stable')
    frame, step = frame[order], step[order]
    if not len(order):
        return order
    # A running minimum from the end that cannot see beyond its frame: later frames are lifted above all steps.
    lifted = step + frame * (int(step.max()) + 2)
    following = np.minimum.accumulate(lifted[::-1])[::-1]
    return np.asarray(order[np.append(lifted[:-1] < following[1:], True)])


def read_trajectories(header: Source, records: Source, positions: Source) -> Trajectories:
    """Read trajectories from the three files, given as bytes, paths or open binary files.

    :raises TrajectoryError: if the header is not of a known format
    """
    read_header(header)
    table = np.frombuffer(_whole(_bytes(records), RECORD.itemsize), dtype=RECORD)
    rows = np.frombuffer(_whole(_bytes(positions), _ROW_BYTES), dtype='<f8').reshape(-1, 3)
    return Trajectories(table, rows)


def read_directory(directory: Path) -> Trajectories:
    """Read the trajectories in a directory."""
    return read_trajectories(directory / HEADER_FILE, directory / RECORDS_FILE, directory / POSITIONS_FILE)


def read_header(header: Source) -> dict[str, Any]:
    """Return the content of the header.

    :raises TrajectoryError: if it is not of a known format
    """
    try:
        content = json.loads(_bytes(header))
        version = content['format_version']
    except (ValueError, KeyError, TypeError) as exception:
        raise TrajectoryError(f'{HEADER_FILE} is not the header of trajectories: {exception!r}') from None
    if version != FORMAT_VERSION:
        raise TrajectoryError(f'trajectories of format {version}, this version reads {FORMAT_VERSION}: update it')
    return dict(content)


def _bytes(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source
    return Path(source).read_bytes() if isinstance(source, (str, Path)) else source.read()


def _whole(data: bytes, size: int) -> bytes:
    """Return the data without a torn last row."""
    return data[: len(data) - len(data) % size]


class TrajectoryWriter:
    """Appends to the trajectories of a job.

    :param directory: the work directory; what is there of the same job is gone on with
    :param fingerprint: tells the job
    """

    def __init__(self, directory: Path, fingerprint: str) -> None:
        self._directory = directory / TRAJECTORY_DIRECTORY
        if not _belongs(self._directory, fingerprint):
            shutil.rmtree(self._directory, ignore_errors=True)
            places = (run / TRAJECTORY_DIRECTORY for run in earlier_runs(directory))
            earlier = next((place for place in places if _belongs(place, fingerprint)), None)
            if earlier is not None:
                earlier.rename(self._directory)
            else:
                self._create(fingerprint)
        records, positions = self._directory / RECORDS_FILE, self._directory / POSITIONS_FILE
        table = np.frombuffer(_whole(records.read_bytes(), RECORD.itemsize), dtype=RECORD)
        available = positions.stat().st_size // _ROW_BYTES
        complete = table['start'] + table['atoms'] <= available
        number = len(table) if complete.all() else int(np.argmin(complete))
        self._rows = int((table['start'][number - 1] + table['atoms'][number - 1]) if number else 0)
        os.truncate(records, number * RECORD.itemsize)
        os.truncate(positions, self._rows * _ROW_BYTES)
        self._records, self._positions = records.open('ab'), positions.open('ab')

    def _create(self, fingerprint: str) -> None:
        """Make empty files; the header comes last and makes them count."""
        with disk_errors(TRAJECTORY_DIRECTORY):
            self._directory.mkdir(parents=True)
            for name in (RECORDS_FILE, POSITIONS_FILE):
                (self._directory / name).touch()
            header = {'format_version': FORMAT_VERSION, 'fingerprint': fingerprint, 'record': RECORD.descr}
            (self._directory / HEADER_FILE).write_text(json.dumps(header, indent=1))

    def append(
        self, indices: IntArray, steps: IntArray, frames: Frames, energies: FloatArray, max_forces: FloatArray
    ) -> None:
        """Record a step of some frames.

        :param indices: their numbers in the job, ``(n,)``
        :param steps: the step of each, ``(n,)``
        :param frames: their geometries
        :param energies: eV, ``(n,)``
        :param max_forces: eV/angstrom, ``(n,)``
        """
        records = np.zeros(len(indices), dtype=RECORD)
        records['frame'], records['step'], records['atoms'] = indices, steps, frames.counts
        records['start'] = self._rows + frames.offsets[:-1]
        records['energy'], records['max_force'], records['cell'] = energies, max_forces, frames.cells
        with disk_errors(TRAJECTORY_DIRECTORY):
            self._positions.write(np.ascontiguousarray(frames.positions, dtype='<f8').tobytes())
            self._positions.flush()
            self._records.write(records.tobytes())
            self._records.flush()
        self._rows += frames.n_atoms

    def sync(self) -> None:
        """Make sure that what was written survives a crash of the node: the positions first."""
        with disk_errors(TRAJECTORY_DIRECTORY):
            os.fsync(self._positions.fileno())
            os.fsync(self._records.fileno())

    def close(self) -> None:
        """Close the files, both of them, even if a full disk takes no more of what was to be written."""
        with disk_errors(TRAJECTORY_DIRECTORY), self._positions, self._records:
            pass


def _belongs(directory: Path, fingerprint: str) -> bool:
    """Return whether a directory has trajectories of this job."""
    if not all((directory / name).is_file() for name in (RECORDS_FILE, POSITIONS_FILE)):
        return False
    try:
        return bool(read_header(directory / HEADER_FILE).get('fingerprint') == fingerprint)
    except (OSError, TrajectoryError):
        return False
