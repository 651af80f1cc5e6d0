"""Single point: energies, forces, stress and ensemble statistics of all frames, batch by batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends.base import Evaluation
from ..batching import plan_batches
from ..errors import FrameError, FrameStatus, OutOfMemory, WorkerError
from ..frames import FloatArray, Frames, IntArray
from ..hessian import hessian
from ..schema import QUANTITIES
from ..statistics import query_by_committee, sample_std
from ..storage import hessian_offsets
from .base import Context, Task

Arrays = dict[str, npt.NDArray[Any]]

#: What an evaluation may hold beside the energies.
_COMPUTED = tuple(field.name for field in dataclasses.fields(Evaluation) if field.name != 'energies')


class SinglePoint(Task):
    """Evaluate every frame once."""

    def run(self, context: Context) -> None:
        """Evaluate all pending frames; a batch that fails is halved until the frame at fault stands alone."""
        pending = np.flatnonzero(context.store.status == FrameStatus.PENDING)
        frames, backend = context.frames, context.backend
        budget = context.parameters['batch_atoms'] or backend.batch_atoms()
        keys = backend.batch_key(frames)
        keys = None if keys is None else keys[pending]
        evaluator = _Evaluator(context)
        for batch in plan_batches(pending, frames.counts[pending], budget, keys):
            evaluator.evaluate(batch)
            context.checkpoint()
            if context.stopping():
                break


class _Evaluator:
    """Evaluates batches and stores what comes of them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        asked = frozenset(context.parameters['properties'])
        self._request = asked - {'energy', 'hessian'}
        self._hessian = 'hessian' in asked
        self._max_atoms: int | None = None

    def evaluate(self, batch: IntArray) -> None:
        """Evaluate a batch, in parts where it has to be."""
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            outcome = self._attempt(part)
            if isinstance(outcome, Evaluation):
                self._store(part, outcome)
            elif len(part) == 1:
                status, message = outcome
                self._context.fail(part, status, message)
            else:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]

    def _attempt(self, part: IntArray) -> Evaluation | tuple[FrameStatus, str]:
        """Return the results, or why there are none."""
        frames = self._context.frames.select(part)
        if self._max_atoms is not None and len(part) > 1 and frames.n_atoms > self._max_atoms:
            return FrameStatus.OUT_OF_MEMORY, ''
        try:
            evaluation = self._context.backend.evaluate(frames, self._request)
            if self._hessian:
                evaluation = dataclasses.replace(evaluation, hessian=self._hessians(frames))
        except (OutOfMemory, MemoryError) as exception:
            self._note_memory(frames)
            return FrameStatus.OUT_OF_MEMORY, f'{frames.n_atoms} atoms do not fit in memory: {exception}'
        except FrameError as exception:
            return exception.status, exception.message
        except WorkerError:
            raise
        except Exception as exception:  # whatever a calculator raises is the failure of this frame, not of the job
            return FrameStatus.BACKEND_FAILED, f'{type(exception).__name__}: {exception}'
        return evaluation

    def _hessians(self, frames: Frames) -> FloatArray:
        """Return the Hessians of a batch, one after the other: a structure alone makes full batches."""
        backend = self._context.backend
        budget = self._context.parameters['batch_atoms'] or backend.batch_atoms()
        return np.concatenate([hessian(backend, frames.select([index]), budget) for index in range(len(frames))])

    def _note_memory(self, frames: Frames) -> None:
        """Remember the size that was too large, so that later batches are halved without trying."""
        if len(frames) > 1:
            if self._max_atoms is None:
                self._context.notes.append(
                    f'out of memory with batches of {frames.n_atoms} atoms: went on with smaller ones'
                )
            self._max_atoms = frames.n_atoms // 2

    def _store(self, part: IntArray, evaluation: Evaluation) -> None:
        frames = self._context.frames.select(part)
        arrays = arrays_of(evaluation, frames)
        finite = finite_frames(arrays, frames)
        status = np.where(finite, FrameStatus.OK, FrameStatus.NON_FINITE_RESULT).astype(np.int8)
        if not finite.all():
            blank(arrays, frames, ~finite)
            for index in part[~finite]:
                self._context.messages.add(index, 'the backend returned NaN or infinity')
        self._context.store.write(part, arrays, status)
        self._context.progress.advance(len(part))


def arrays_of(evaluation: Evaluation, frames: Frames) -> Arrays:
    """Return all arrays that can be had from an evaluation, with the statistics over its members."""
    arrays: Arrays = {'energies': evaluation.energies}
    for name in _COMPUTED:
        value = getattr(evaluation, name)
        if value is not None:
            arrays[name] = value
    if evaluation.member_energies is not None and len(evaluation.member_energies) > 1:
        arrays['energy_std'] = sample_std(evaluation.member_energies)
        arrays['qbc'] = query_by_committee(arrays['energy_std'], frames.counts)
    return arrays


def finite_frames(arrays: Arrays, frames: Frames) -> npt.NDArray[np.bool_]:
    """Return for each frame whether all its results are finite; the stress counts only where a frame is a crystal."""
    finite = np.ones(len(frames), dtype=bool)
    for name, values in arrays.items():
        shape = QUANTITIES[name].shape
        bad = ~np.isfinite(values)
        if shape == 'member':
            finite &= ~bad.any(axis=0)
            continue
        rows = np.any(bad.reshape(len(bad), -1), axis=1)
        if name == 'stress':
            finite &= ~rows | ~frames.pbc.all(axis=1)
        elif shape in ('frame', 'frame33'):
            finite &= ~rows
        else:
            finite[_frame_of_row(name, frames)[rows]] = False
    return finite


def blank(arrays: Arrays, frames: Frames, bad: npt.NDArray[np.bool_]) -> None:
    """Put NaN in place of the results of bad frames, so that nobody takes them for numbers."""
    for name, values in arrays.items():
        values = arrays[name] = np.array(values, dtype=np.float64)
        if QUANTITIES[name].shape == 'member':
            values[:, bad] = np.nan
        elif QUANTITIES[name].shape in ('frame', 'frame33'):
            values[bad] = np.nan
        else:
            values[bad[_frame_of_row(name, frames)]] = np.nan


def _frame_of_row(name: str, frames: Frames) -> IntArray:
    """Return the frame of each row of an array that has rows for atoms, or for elements of Hessians."""
    if QUANTITIES[name].shape != 'hessian':
        return frames.frame_of_atom
    return np.repeat(np.arange(len(frames)), np.diff(hessian_offsets(frames.offsets)))
