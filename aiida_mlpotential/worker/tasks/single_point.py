"""Single point: energies, forces, stress and ensemble statistics of all frames, batch by batch."""

from __future__ import annotations

import numpy as np

from ..backends.base import Evaluation
from ..batching import plan_batches
from ..errors import FrameError, FrameStatus, OutOfMemory
from ..frames import FloatArray, Frames, IntArray
from ..hessian import hessian
from .base import Context, Task
from .evaluation import NON_FINITE, Arrays, arrays_of, blank, finite_frames, rows_of


class SinglePoint(Task):
    """Evaluate every frame once."""

    name = 'single_point'

    def run(self, context: Context) -> None:
        """Evaluate all pending frames."""
        for batch in pending_batches(context):
            _evaluate(context, batch)
            context.checkpoint()
            if context.stopping():
                break


def pending_batches(context: Context) -> list[IntArray]:
    """Return the frames that are still to be evaluated, in batches of like frames."""
    pending = np.flatnonzero(context.store.status == FrameStatus.PENDING)
    keys = context.backend.batch_key(context.frames)
    keys = None if keys is None else keys[pending]
    return list(plan_batches(pending, context.frames.counts[pending], context.budget, keys))


def _evaluate(context: Context, batch: IntArray) -> None:
    """Evaluate a batch and store what comes of it."""
    asked = frozenset(context.parameters['properties'])
    frames = context.frames.select(batch)
    for part, outcome in context.evaluator.parts(frames, asked - {'energy', 'hessian'}):
        indices = batch[part]
        if isinstance(outcome, FrameError):
            context.fail(indices, outcome.status, outcome.message)
        elif 'hessian' in asked:
            _store_with_hessians(context, indices, outcome)
        else:
            _store(context, indices, outcome)


def _store_with_hessians(context: Context, indices: IntArray, evaluation: Evaluation) -> None:
    """Store the frames of a batch one by one, as each has its Hessian: a structure alone makes full batches."""
    whole = context.frames.select(indices)
    arrays = arrays_of(evaluation, whole)
    for position in range(len(indices)):
        here, frame = indices[[position]], whole.select([position])
        outcome = _hessian(context, frame)
        if isinstance(outcome, FrameError):
            context.fail(here, outcome.status, outcome.message)
            continue
        rows = {name: array[rows_of(name, whole, np.array([position]))] for name, array in arrays.items()}
        _write(context, here, frame, {**rows, 'hessian': outcome})


def _hessian(context: Context, frame: Frames) -> FloatArray | FrameError:
    try:
        return hessian(context.backend, frame, context.budget)
    except FrameError as exception:
        return exception
    except (OutOfMemory, MemoryError) as exception:
        return FrameError(FrameStatus.OUT_OF_MEMORY, f'{frame.n_atoms} atoms do not fit in memory: {exception}')


def _store(context: Context, indices: IntArray, evaluation: Evaluation) -> None:
    frames = context.frames.select(indices)
    _write(context, indices, frames, arrays_of(evaluation, frames))


def _write(context: Context, indices: IntArray, frames: Frames, arrays: Arrays) -> None:
    """Write the results of frames; those that are not finite become failures."""
    finite = finite_frames(arrays, frames)
    status = np.where(finite, FrameStatus.OK, FrameStatus.NON_FINITE_RESULT).astype(np.int8)
    if not finite.all():
        blank(arrays, frames, ~finite)
        for index in indices[~finite]:
            context.messages.add(index, NON_FINITE)
    context.store.write(indices, arrays, status)
    context.progress.advance(len(indices))
