"""Single point: energies, forces, stress and ensemble statistics of all frames, batch by batch."""

from __future__ import annotations

import numpy as np

from ..backends.base import Evaluation
from ..batching import plan_batches
from ..errors import FrameError, FrameStatus
from ..frames import Frames, IntArray
from ..hessian import Source, hessians
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
    """Store frames with their Hessians, which a frame may lack though its energy is known."""
    frames = context.frames.select(indices)
    source = Source(context.backend, context.evaluator, context.budget)
    matrices, errors, notes = hessians(source, frames)
    context.notes.extend(note for note in notes if note not in context.notes)
    for position, error in errors.items():
        context.fail(indices[[position]], error.status, error.message)
    sound = np.setdiff1d(np.arange(len(frames)), list(errors))
    arrays = {**arrays_of(evaluation, frames), 'hessian': matrices}
    chosen = {name: array[rows_of(name, frames, sound)] for name, array in arrays.items()}
    _write(context, indices[sound], frames.select(sound), chosen)


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
