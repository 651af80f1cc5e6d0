"""What can go wrong, once: the status of one frame, the error of a whole job, and the exit code of the process.

The worker writes these names, the parser maps them back; process specifications and documentation loop over them.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple


class FrameStatus(enum.IntEnum):
    """Outcome for one frame, stored as ``status`` in the results."""

    OK = 0
    PENDING = 1
    UNSUPPORTED_ELEMENT = 2
    NON_FINITE_INPUT = 3
    ATOMS_TOO_CLOSE = 4
    EMPTY = 5
    INVALID_CELL = 6
    OUT_OF_MEMORY = 7
    BACKEND_FAILED = 8
    NON_FINITE_RESULT = 9
    ATOM_ORDER = 10
    NOT_CONVERGED = 11
    EXPLODED = 12
    SPREAD_TOO_LARGE = 13
    BROKE_APART = 14
    WRONG_CHARACTER = 15
    INVALID_CONSTRAINT = 16
    NO_CELL = 17
    NO_SYMMETRY_NUMBER = 18
    NOT_A_MOLECULE = 19

    @property
    def help(self) -> str:
        """Return what the status means and what to do about it, in one sentence."""
        return FRAME_STATUS_HELP[self]


FRAME_STATUS_HELP: dict[FrameStatus, str] = {
    FrameStatus.OK: 'Evaluated.',
    FrameStatus.PENDING: 'Not reached before the job ended: continue it with `parent_folder`.',
    FrameStatus.UNSUPPORTED_ELEMENT: 'Contains an element that the model was not trained for: choose another model.',
    FrameStatus.NON_FINITE_INPUT: 'A coordinate or cell vector is NaN or infinite: check the source of the structure.',
    FrameStatus.ATOMS_TOO_CLOSE: 'Two atoms are closer than `minimum_distance`: the model means nothing there.',
    FrameStatus.EMPTY: 'The structure has no atoms.',
    FrameStatus.INVALID_CELL: 'Periodic, but with cell vectors that are zero, dependent or under 0.5 angstrom.',
    FrameStatus.OUT_OF_MEMORY: 'Too large for the memory of the machine even on its own: use a larger one.',
    FrameStatus.BACKEND_FAILED: 'The backend raised an exception for this structure: see its message.',
    FrameStatus.NON_FINITE_RESULT: 'The backend returned NaN or infinity.',
    FrameStatus.ATOM_ORDER: 'Not the atoms of the model in its order: sort them, or set `reorder_atoms`.',
    FrameStatus.NOT_CONVERGED: 'Not converged within `max_steps`: its last geometry is stored; go on from there.',
    FrameStatus.EXPLODED: 'Energy or geometry left all bounds during the task: its last sound geometry is stored.',
    FrameStatus.SPREAD_TOO_LARGE: 'The spread over the members passed `max_qbc`: the model does not know this.',
    FrameStatus.BROKE_APART: 'The molecule fell into more fragments than it had at the start: its geometry is stored.',
    FrameStatus.WRONG_CHARACTER: 'Not the kind of stationary point that was `expected`: its modes are stored.',
    FrameStatus.INVALID_CONSTRAINT: 'A constraint does not fit this structure: see its message.',
    FrameStatus.NO_CELL: 'Not periodic in three directions: it has no cell to optimize and no space group to keep.',
    FrameStatus.NO_SYMMETRY_NUMBER: 'Its point group was not found: give `symmetry_number`.',
    FrameStatus.NOT_A_MOLECULE: 'Periodic: the formulas of the ideal gas do not apply.',
}

#: Statuses of frames that failed in the end, but have (their last sound) values in the arrays.
HAS_RESULTS: frozenset[FrameStatus] = frozenset(
    {
        FrameStatus.OK,
        FrameStatus.NOT_CONVERGED,
        FrameStatus.EXPLODED,
        FrameStatus.SPREAD_TOO_LARGE,
        FrameStatus.BROKE_APART,
        FrameStatus.WRONG_CHARACTER,
    }
)


class ExitCode(NamedTuple):
    """One exit code of the calculations."""

    status: int
    label: str
    message: str

    @property
    def invalidates_cache(self) -> bool:
        """Return whether the same inputs may end otherwise another time, on another machine or with more memory."""
        return self.label not in _DETERMINISTIC


#: Failures that lie in the inputs alone.
_DETERMINISTIC = frozenset({'ERROR_JOB_INVALID', 'ERROR_MODEL_UNSUPPORTED', 'ERROR_PROPERTY_UNAVAILABLE'})


#: Every exit code of the calculations beside AiiDA's own. ``{...}`` is filled in by the parser.
EXIT_CODES: tuple[ExitCode, ...] = (
    ExitCode(301, 'ERROR_RESULTS_MISSING', 'The worker left no results: {detail}'),
    ExitCode(302, 'ERROR_RESULTS_INVALID', 'The retrieved results cannot be read: {detail}'),
    ExitCode(303, 'ERROR_RESULTS_VERSION', 'The results were written by an incompatible worker: {detail}'),
    ExitCode(304, 'ERROR_WORKER_KILLED', 'The worker was killed before it had evaluated a structure: {detail}'),
    ExitCode(305, 'ERROR_WORKER_EXCEPTION', 'The worker failed unexpectedly: {detail}'),
    ExitCode(310, 'ERROR_JOB_INVALID', 'The job description is not valid: {detail}'),
    ExitCode(311, 'ERROR_STRUCTURES_INVALID', 'The structures file cannot be read: {detail}'),
    ExitCode(320, 'ERROR_MODEL_MISSING', 'A model file is missing: {detail}'),
    ExitCode(321, 'ERROR_MODEL_CORRUPT', 'The model file cannot be read: {detail}'),
    ExitCode(322, 'ERROR_MODEL_HASH', 'The model file is not the one that was sent: {detail}'),
    ExitCode(323, 'ERROR_MODEL_UNSUPPORTED', 'The backend cannot evaluate this model: {detail}'),
    ExitCode(330, 'ERROR_BACKEND_MISSING', 'The backend library is missing on the computer: {detail}'),
    ExitCode(331, 'ERROR_PROPERTY_UNAVAILABLE', 'The backend cannot compute a requested property: {detail}'),
    ExitCode(340, 'ERROR_DEVICE_MISSING', 'The requested device is not there: {detail}'),
    ExitCode(341, 'ERROR_OUT_OF_MEMORY', 'The worker ran out of memory: {detail}'),
    ExitCode(342, 'ERROR_DISK_FULL', 'The disk of the work directory is full: {detail}'),
    ExitCode(343, 'ERROR_DEVICE_FAILED', 'The device broke down while it was computing: {detail}'),
    ExitCode(400, 'ERROR_SOME_STRUCTURES_FAILED', 'Some structures failed, the others are stored: {detail}'),
    ExitCode(401, 'ERROR_ALL_STRUCTURES_FAILED', 'All structures failed: {detail}'),
    ExitCode(402, 'ERROR_INCOMPLETE', 'The job ended early; continue it with `parent_folder`: {detail}'),
    ExitCode(410, 'ERROR_NOT_CONVERGED', 'Not converged; the last geometry is stored: {detail}'),
    ExitCode(411, 'ERROR_WRONG_CHARACTER', 'Not the kind of stationary point that was expected: {detail}'),
)

#: The exit code of a job all of whose failed structures failed in the one way that has a code of its own.
STATUS_LABELS: dict[FrameStatus, str] = {
    FrameStatus.NOT_CONVERGED: 'ERROR_NOT_CONVERGED',
    FrameStatus.WRONG_CHARACTER: 'ERROR_WRONG_CHARACTER',
}

LABELS: frozenset[str] = frozenset(code.label for code in EXIT_CODES)


class WorkerError(Exception):
    """An error that ends the whole job, with the label of the exit code that tells its cause."""

    def __init__(self, label: str, message: str) -> None:
        if label not in LABELS:
            raise ValueError(f'unknown exit code label {label!r}')
        super().__init__(message)
        self.label = label
        self.message = message

    def to_dict(self) -> dict[str, Any]:
        """Return the error as it is written to the results file."""
        return {'label': self.label, 'message': self.message}


class OutOfMemory(Exception):  # noqa: N818 - it is a signal to halve the batch, not always an error
    """A batch did not fit in memory; the caller retries with a smaller one."""


class FrameError(Exception):
    """One frame cannot be evaluated; the others can."""

    def __init__(self, status: FrameStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
