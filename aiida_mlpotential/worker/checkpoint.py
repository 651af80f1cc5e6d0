"""What a task has under way, on disk, so that a killed job goes on from there."""

from __future__ import annotations

import os
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .frames import write_npz
from .parents import earlier_runs
from .schema import CHECKPOINT_DIRECTORY
from .storage import disk_errors

Arrays = dict[str, npt.NDArray[Any]]

_FILE = 'state.npz'
#: The array with the fingerprint of the job, followed by the names of the others.
_FINGERPRINT = 'fingerprint'
#: What damaged archives raise; a flipped bit may ask for a compression or encryption that there is not (RuntimeError).
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


class CheckpointFile:
    """The state of a task between two batches, replaced as a whole: a kill leaves the old one or the new one.

    Frames that are finished stand in the results already; only what is under way belongs here.

    :param directory: the work directory
    :param fingerprint: tells the job from all that would give other results
    :param interval: seconds between two checkpoints
    """

    def __init__(
        self, directory: Path, fingerprint: str, interval: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = directory / CHECKPOINT_DIRECTORY / _FILE
        self._directory = directory
        self._fingerprint, self._interval, self._clock = fingerprint, interval, clock
        self._last = clock()
        with disk_errors(CHECKPOINT_DIRECTORY):
            self._path.parent.mkdir(parents=True, exist_ok=True)  # a job that goes on from here copies it

    def due(self) -> bool:
        """Return whether it is time for a checkpoint."""
        return self._clock() - self._last >= self._interval

    def save(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace the checkpoint; it is on the disk when this returns."""
        temporary = self._path.with_suffix('.tmp')
        with disk_errors(self._path.name):
            try:
                with temporary.open('wb') as handle:
                    write_npz(handle, {**arrays, _FINGERPRINT: self._label(arrays)}, compress=False)
                    handle.flush()
                    os.fsync(handle.fileno())
                temporary.replace(self._path)
            finally:
                temporary.unlink(missing_ok=True)
        self._last = self._clock()

    def _label(self, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.str_]:
        """Return what tells that arrays are a whole checkpoint of this job."""
        return np.array([self._fingerprint, *sorted(arrays)])

    def load(self) -> Arrays | None:
        """Return the checkpoint of an earlier run of the very same job: the one here, else that of the parent.

        That of the parent becomes the one here: if this run is killed before its first checkpoint, the next one goes
        on from it.
        """
        earlier = [run / CHECKPOINT_DIRECTORY / _FILE for run in earlier_runs(self._directory)]
        for path in (self._path, *earlier):
            try:
                with np.load(path, allow_pickle=False) as file:
                    arrays = {name: file[name] for name in file.files}
            except _UNREADABLE:
                continue  # none, or one that a full disk or a broken copy cut short: the task begins anew
            if np.array_equal(arrays.pop(_FINGERPRINT, np.array('')), self._label(arrays)):
                path.replace(self._path)
                return arrays
        return None

    def remove(self) -> None:
        """Remove the checkpoint: nothing is under way."""
        self._path.unlink(missing_ok=True)
