"""Hessians of any backend, of many frames: analytic where it has them, else from central differences of its forces.

The displaced copies of all frames are one stream of full batches: small molecules share them, a large structure fills
many. No more is held than the rows of the frames of one batch, and those of the one frame that it cuts in two.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .backends.base import Backend, Evaluation
from .batching import MAX_FRAMES, plan_batches
from .errors import FrameError, FrameStatus, WorkerError
from .frames import BoolArray, FloatArray, Frames, IntArray
from .storage import hessian_offsets
from .tasks.evaluation import Evaluator

#: Displacement of an atom, angstrom, by the float type of the forces. In double precision it must be this small: the
#: second derivative of the CELU networks of ANI jumps where an argument changes its sign, and 1e-3 angstrom straddles
#: jumps of 0.5 eV/angstrom^2. In single precision rounding would drown such a difference.
STEPS: dict[str, float] = {'double': 1e-5, 'single': 1e-2}
#: Displacement that tells the float type: in double precision the forces are straight over so short a way.
_PROBE = 1e-7
#: Part of a difference of forces that is not straight, from which on rounding made it.
_STRAIGHT = 0.1
#: So many elements of analytic Hessians are asked for at once; a structure with more is asked for alone.
_MAX_ELEMENTS = 1 << 20

#: By how many lengths of step each atom is moved either way. Steps of single precision are so long that third
#: derivatives show (0.06 eV/angstrom^2 for a bond with hydrogen, 2 to 4 wavenumbers): there each atom is moved half as
#: far as well, and the difference of fourth order taken, which leaves 0.03 wavenumbers of them, rounding included.
_REACH: dict[str, int] = {'double': 1, 'single': 2}
#: How long one of those lengths is, angstrom.
_LENGTH: dict[int, float] = {_REACH[name]: STEPS[name] / _REACH[name] for name in STEPS}
_NOTES: dict[int, str] = {
    1: 'hessians: central differences of forces in double precision, 1e-05 angstrom either way',
    2: 'hessians: differences of fourth order of forces in single precision, 0.005 and 0.01 angstrom either way',
}
NO_FORCES = 'the backend gave no forces for the hessian'
ANALYTIC = 'hessians: analytic second derivatives of the backend'
NOT_ANALYTIC = 'the analytic second derivatives of the backend failed, differences of forces took their place'
NO_MEMBERS = 'the backend gives no forces of single members: member_frequencies are missing'


@dataclasses.dataclass(frozen=True)
class Source:
    """Where second derivatives come from.

    :ivar budget: atoms in a batch
    :ivar members: whether to make the Hessian of each member of the ensemble, too
    """

    backend: Backend
    evaluator: Evaluator
    budget: int
    members: bool = False

    @property
    def request(self) -> frozenset[str]:
        """Return what to ask of each batch of displaced frames."""
        return frozenset({'forces', 'member_forces'} if self.members else {'forces'})


@dataclasses.dataclass(eq=False)
class Rows:
    """The Hessian of a frame that is under way, for a checkpoint.

    :ivar frame: index of the frame in the stream
    :ivar reach: by how many steps its atoms are moved either way
    :ivar values: minus the change of the forces with each coordinate, ``(1 + m, 3 N, 3 N)``, eV/angstrom^2: of the
        mean, and of each member where they are asked for
    :ivar done: number of rows that are known
    """

    frame: int
    reach: int
    values: FloatArray
    done: int = 0

    def to_arrays(self, index: int) -> dict[str, npt.NDArray[Any]]:
        """Return the known rows for a checkpoint.

        :param index: index of the frame in the job
        """
        return {'frame': np.array(index), 'reach': np.array(self.reach), 'values': self.values[:, : self.done]}

    @classmethod
    def from_arrays(cls, frame: int, arrays: Mapping[str, npt.NDArray[Any]]) -> Rows:
        """Return the rows of a checkpoint.

        :param frame: index of the frame in the stream
        """
        known = arrays['values']
        rows = cls(frame, int(arrays['reach']), np.empty((len(known), known.shape[2], known.shape[2])))
        rows.add(known)
        return rows

    def add(self, values: FloatArray) -> bool:
        """Take the next rows, ``(1 + m, k, 3 N)``, and return whether these were the last ones."""
        self.values[:, self.done : self.done + values.shape[1]] = values
        self.done += values.shape[1]
        return bool(self.done == self.values.shape[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Finished:
    """What a batch brought to its end, by index of the frame in the stream.

    :ivar matrices: Hessians, each ``(3 N, 3 N)``, symmetric, eV/angstrom^2
    :ivar members: those of the members of each frame, ``(m, 3 N, 3 N)``; empty where they are not asked for
    :ivar errors: why frames have no Hessian
    """

    matrices: dict[int, FloatArray] = dataclasses.field(default_factory=dict)
    members: dict[int, FloatArray] = dataclasses.field(default_factory=dict)
    errors: dict[int, FrameError] = dataclasses.field(default_factory=dict)


class HessianStream:
    """The Hessians of some frames, under way.

    Each atom is moved both ways along each axis; in a crystal all its images move with it. The matrices are made
    symmetric, which halves what error there is.

    :param frames: none of them empty
    :param begun: the first rows of one of them, of an earlier run
    """

    def __init__(self, source: Source, frames: Frames, begun: Rows | None = None) -> None:
        self._source, self._frames = source, frames
        #: The rows of the frame that the last batch cut in two.
        self.begun = begun
        #: How Hessians were made, one sentence each.
        self.notes: list[str] = []
        self._reach = np.zeros(len(frames), dtype=np.int64)
        self._alive = np.ones(len(frames), dtype=bool)

    def run(self) -> Iterator[Finished]:
        """Yield after each batch what it brought to its end, often nothing."""
        yield from self._analytic()
        yield self._probe()
        todo = self._coordinates()
        while len(todo):
            batch = todo[: self._fitting(todo)]
            finished = self._differences(batch)
            todo = todo[len(batch) :]
            if finished.errors:
                todo = todo[self._alive[todo[:, 0]]]
            yield finished

    def _analytic(self) -> Iterator[Finished]:
        """Yield what the backend has of itself, but for a frame that was begun with differences."""
        backend = self._source.backend
        derivatives = backend.member_hessians if self._source.members else backend.hessians
        indices = np.delete(np.arange(len(self._frames)), [] if self.begun is None else [self.begun.frame])
        sizes = np.square(3 * self._frames.counts[indices])
        pending = list(plan_batches(indices, sizes, _MAX_ELEMENTS))[::-1]
        while pending:
            part = pending.pop()
            frames = self._frames.select(part)
            try:
                flat = derivatives(frames)
            except WorkerError:
                raise
            except Exception as exception:  # whatever it is, differences need less memory and tell which frame fails
                middle = len(part) // 2
                pending += [part[middle:], part[:middle]] if middle else []
                if not middle:
                    self._note(f'{NOT_ANALYTIC}: {type(exception).__name__}: {exception}')
                continue
            if flat is None:
                return
            yield self._split(part, frames, np.atleast_2d(flat))

    def _split(self, part: IntArray, frames: Frames, flat: FloatArray) -> Finished:
        """Return the analytic Hessians of frames; what is not finite is left to the differences.

        :param flat: of the mean, or of each member where these are asked for, ``(1 or m, sum of (3 N)^2)``
        """
        finished, edges = Finished(), hessian_offsets(frames.offsets)
        for index, count, (start, stop) in zip(part, frames.counts, itertools.pairwise(edges), strict=True):
            matrices = flat[:, start:stop].reshape(-1, 3 * count, 3 * count)
            if np.isfinite(matrices).all():
                finished.matrices[int(index)] = matrices.mean(axis=0)
                if self._source.members:
                    finished.members[int(index)] = matrices
                self._alive[index] = False
                self._note(ANALYTIC)
        return finished

    def _probe(self) -> Finished:
        """Find the float type of the forces: a calculator of ASE does not say when it computes in single precision.

        Nor does the type of its forces tell once they were averaged over a committee or converted from other units.
        """
        finished = Finished()
        self._reach[:] = _REACH[self._source.backend.precision]
        if self.begun is not None:
            self._reach[self.begun.frame] = self.begun.reach
        asked = self._alive & (self._reach == _REACH['double'])
        if self.begun is not None:
            asked[self.begun.frame] = False
        indices = np.flatnonzero(asked)
        for part in plan_batches(indices, self._frames.counts[indices], self._source.budget):
            frames = self._frames.select(part)
            rounded, errors = self._rounded(frames)
            self._reach[part[rounded]] = _REACH['single']
            for local, error in errors.items():
                self._drop(int(part[local]), error, finished)
        return finished

    def _rounded(self, frames: Frames) -> tuple[BoolArray, dict[int, FrameError]]:
        """Return which frames have forces of single precision, and which have none."""
        way = np.random.default_rng(1).normal(scale=_PROBE, size=(int(frames.counts.max()), 3))
        way = way[np.arange(frames.n_atoms) - frames.offsets[frames.frame_of_atom]]
        forces, errors = [], {}
        for sign in (-1, 0, 1):
            moved = dataclasses.replace(frames, positions=frames.positions + sign * way)
            evaluation, failed = self._source.evaluator.evaluate(moved, frozenset({'forces'}))
            errors.update(_with_forces(evaluation, frames, failed))
            forces.append(np.zeros_like(way) if evaluation.forces is None else evaluation.forces)
        before, here, after = forces

        def total(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.bincount(frames.frame_of_atom, values.sum(axis=1), len(frames))

        felt = total((before != 0) | (here != 0) | (after != 0)) > 0
        single = (total(here != here.astype(np.float32)) == 0) & (total(here != 0) > 0)
        bent = felt & (total((after - 2 * here + before) ** 2) >= _STRAIGHT**2 * total((after - before) ** 2))
        return single | bent, errors

    def _coordinates(self) -> IntArray:
        """Return frame and coordinate of all rows to make, ``(number, 2)``, the frame that was begun first."""
        order = np.flatnonzero(self._alive)
        done = np.zeros(len(self._frames), dtype=np.int64)
        if self.begun is not None:
            order = np.concatenate([[self.begun.frame], order[order != self.begun.frame]])
            done[self.begun.frame] = self.begun.done
        left = 3 * self._frames.counts[order] - done[order]
        ends = np.cumsum(left)
        frames = np.repeat(order, left)
        coordinates = np.arange(len(frames)) - np.repeat(ends - left - done[order], left)
        return np.stack([frames, coordinates], axis=1).astype(np.int64)

    def _fitting(self, todo: IntArray) -> int:
        """Return how many of the next rows make a full batch, one at least."""
        frames = todo[:MAX_FRAMES, 0]
        copies = 2 * self._reach[frames]
        atoms = np.cumsum(copies * self._frames.counts[frames])
        fitting = np.searchsorted(atoms, self._source.budget, side='right')
        return max(1, min(int(fitting), int(np.searchsorted(np.cumsum(copies), MAX_FRAMES, side='right'))))

    def _differences(self, batch: IntArray) -> Finished:
        """Evaluate the displaced frames of some rows, and put the rows where they belong."""
        displaced, owners = self._displaced(batch)
        evaluation, failed = self._source.evaluator.evaluate(displaced, self._source.request)
        finished = Finished()
        for local, error in _with_forces(evaluation, displaced, failed).items():
            self._drop(int(batch[owners[local], 0]), error, finished)
        forces = self._of_mean_and_members(evaluation)
        start = 0
        for rows in np.split(batch[:, 0], np.flatnonzero(np.diff(batch[:, 0])) + 1):
            frame, count = int(rows[0]), int(self._frames.counts[rows[0]])
            stop = start + 2 * int(self._reach[frame]) * len(rows) * count
            if self._alive[frame]:
                values = _slopes(forces[:, start:stop].reshape(len(forces), len(rows), -1, 2, 3 * count))
                self._add(frame, values, finished)
            start = stop
        return finished

    def _of_mean_and_members(self, evaluation: Evaluation) -> FloatArray:
        """Return the forces of the mean, followed by those of the members where they are wanted, ``(1 + m, A, 3)``."""
        if evaluation.forces is None:
            return np.zeros((1, 0, 3))
        if not self._source.members:
            return evaluation.forces[None]
        if evaluation.member_forces is None:
            self._note(NO_MEMBERS)
            return evaluation.forces[None]
        return np.concatenate([evaluation.forces[None], evaluation.member_forces])

    def _displaced(self, batch: IntArray) -> tuple[Frames, IntArray]:
        """Return copies in which a coordinate is larger and smaller by 1 .. reach steps, and the row of each copy."""
        reach = self._reach[batch[:, 0]]
        owners = np.repeat(np.arange(len(batch)), 2 * reach)
        number = np.arange(len(owners)) - np.repeat(np.cumsum(2 * reach) - 2 * reach, 2 * reach)
        steps = np.array([_LENGTH[size] for size in reach])[owners]
        frames = self._frames.select(batch[owners, 0])
        positions = frames.positions.ravel().copy()
        positions[3 * frames.offsets[:-1] + batch[owners, 1]] += (number // 2 + 1) * (1 - 2 * (number % 2)) * steps
        return dataclasses.replace(frames, positions=positions.reshape(-1, 3)), owners

    def _add(self, frame: int, values: FloatArray, finished: Finished) -> None:
        """Join rows to those of an earlier batch; a matrix with all its rows is finished."""
        reach, width = int(self._reach[frame]), values.shape[2]
        self._note(_NOTES[reach])
        if self.begun is None:
            self.begun = Rows(frame, reach, np.empty((len(values), width, width)))
        if self.begun.add(values):
            matrices = (self.begun.values + np.swapaxes(self.begun.values, 1, 2)) / 2
            finished.matrices[frame] = matrices[0]
            if len(matrices) > 1:
                finished.members[frame] = matrices[1:]
            self.begun = None

    def _drop(self, frame: int, error: FrameError, finished: Finished) -> None:
        self._alive[frame] = False
        finished.errors.setdefault(frame, error)
        if self.begun is not None and self.begun.frame == frame:
            self.begun = None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _slopes(forces: FloatArray) -> FloatArray:
    """Return minus the slope of forces at 1 .. reach steps either way: ``(..., reach, 2, w)`` to ``(..., w)``."""
    reach = forces.shape[-3]
    changes = forces[..., 1, :] - forces[..., 0, :]
    near, far = changes[..., 0, :], changes[..., -1, :]
    return np.asarray(near / (2 * _LENGTH[1]) if reach == 1 else (8 * near - far) / (12 * _LENGTH[reach]))


def _with_forces(evaluation: Evaluation, frames: Frames, errors: dict[int, FrameError]) -> dict[int, FrameError]:
    """Return the errors of a batch; where there are no forces at all, that is the error of every frame."""
    if evaluation.forces is not None:
        return errors
    missing = FrameError(FrameStatus.BACKEND_FAILED, NO_FORCES)
    return {index: errors.get(index, missing) for index in range(len(frames))}


def hessians(source: Source, frames: Frames) -> tuple[FloatArray, dict[int, FrameError], list[str]]:
    """Return the Hessians of frames, flat and one after the other, ``(sum of (3 N)^2,)``, eV/angstrom^2.

    :return: the matrices, NaN of frames that failed; the errors by index; how the matrices were made
    """
    stream, edges = HessianStream(source, frames), hessian_offsets(frames.offsets)
    flat, errors = np.full(int(edges[-1]), np.nan), {}
    for finished in stream.run():
        errors.update(finished.errors)
        for index, matrix in finished.matrices.items():
            flat[edges[index] : edges[index + 1]] = matrix.ravel()
    return flat, errors, stream.notes
