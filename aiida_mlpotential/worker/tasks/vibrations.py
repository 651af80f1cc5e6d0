"""Vibrational analysis: Hessians of all frames in one stream of full batches, and the normal modes of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import FrameError, FrameStatus
from ..frames import FloatArray, Frames, IntArray
from ..hessian import NO_FORCES, Finished, HessianStream, Rows, Source
from ..parameters.vibrations import ORDERS
from ..quantities import TASK_QUANTITIES
from ..statistics import sample_std
from ..vibrations import analyse, largest_forces
from .base import Context, Task
from .evaluation import Arrays, arrays_of, rows_of
from .single_point import pending_batches

#: What only an ensemble has, when ``member_frequencies`` is not switched off.
_OF_MEMBERS = ('member_frequencies', 'frequency_std')
#: At most so many structures are named in a note.
_NAMED = 5


class Vibrations(Task):
    """Find the normal modes of every frame."""

    name: ClassVar[str] = 'vibrations'

    @classmethod
    def own(cls, parameters: Mapping[str, Any], ensemble: bool) -> tuple[str, ...]:
        """Return the names of the modes' arrays, and the Hessian that they are of."""
        names = ('hessian', *TASK_QUANTITIES[cls.name])
        members = ensemble and parameters['member_frequencies']
        return names if members else tuple(name for name in names if name not in _OF_MEMBERS)

    def run(self, context: Context) -> None:
        """Analyse all pending frames."""
        begun = context.checkpoints.load()
        batches = list(pending_batches(context))
        if begun is not None:  # the batch of the frame that was under way goes first, so that its rows are used
            batches.sort(key=lambda batch: bool(np.all(batch != begun['frame'])))
        for batch in batches:
            if not self._run_batch(context, batch, begun):
                break
        else:
            context.checkpoints.remove()
        context.notes += _remarks(context)

    def derive(self, context: Context, indices: IntArray, frames: Frames, arrays: Arrays) -> Arrays:
        """Return further arrays of frames whose modes are known, to be stored with them.

        :param indices: the frames, ``(b,)``, all of one size
        :param frames: these frames
        :param arrays: all that is known of them by name, in the shapes of ``QUANTITIES``: ``energies``,
            ``member_energies``, ``frequencies``, ``n_rigid``, ``member_frequencies``, ...
        """
        return {}

    def _run_batch(self, context: Context, indices: IntArray, begun: Arrays | None) -> bool:
        """Evaluate frames where they are, then their Hessians; return whether all was done, and not stopped."""
        batch = _evaluate(context, indices)
        members = 'member_frequencies' in context.store.names
        source = Source(context.backend, context.evaluator, context.budget, members)
        stream = HessianStream(source, batch.frames, _begun_rows(begun, batch.indices))
        for finished in stream.run():
            context.notes += [note for note in stream.notes if note not in context.notes]
            _fail(context, batch.indices, finished.errors)
            self._store(context, batch, finished)
            context.checkpoint()
            stopping = context.stopping()
            if stream.begun is not None and (stopping or context.checkpoints.due()):
                context.checkpoints.save(stream.begun.to_arrays(int(batch.indices[stream.begun.frame])))
            if stopping:
                return False
        return True

    def _store(self, context: Context, batch: _Batch, finished: Finished) -> None:
        """Store the frames that have their Hessians, those of one size together."""
        ready = np.array(sorted(finished.matrices), dtype=np.int64)
        counts = batch.frames.counts[ready]
        for count in np.unique(counts):
            part = ready[counts == count]
            indices, frames = batch.indices[part], batch.frames.select(part)
            arrays = {name: values[rows_of(name, batch.frames, part)] for name, values in batch.arrays.items()}
            arrays |= _modes(context, frames, part, finished)
            status = _judge(context, indices, frames, arrays)
            arrays |= self.derive(context, indices, frames, arrays)
            context.store.write(indices, arrays, status)
            context.progress.advance(len(indices))


@dataclasses.dataclass(frozen=True, eq=False)
class _Batch:
    """Frames that were evaluated where they are: their indices in the job, and their results by name."""

    indices: IntArray
    frames: Frames
    arrays: Arrays


def _evaluate(context: Context, indices: IntArray) -> _Batch:
    """Evaluate frames where they are; those that fail are left out."""
    frames = context.frames.select(indices)
    asked = frozenset(context.parameters['properties']) - {'energy', 'hessian'} | {'forces'}
    evaluation, errors = context.evaluator.evaluate(frames, asked)
    if evaluation.forces is None:
        missing = FrameError(FrameStatus.BACKEND_FAILED, NO_FORCES)
        errors = {index: errors.get(index, missing) for index in range(len(frames))}
    _fail(context, indices, errors)
    sound = np.delete(np.arange(len(indices)), list(errors))
    arrays = {name: values[rows_of(name, frames, sound)] for name, values in arrays_of(evaluation, frames).items()}
    return _Batch(indices[sound], frames.select(sound), arrays)


def _fail(context: Context, indices: IntArray, errors: Mapping[int, FrameError]) -> None:
    for local, error in errors.items():
        context.fail(indices[[local]], error.status, error.message)


def _begun_rows(begun: Arrays | None, indices: IntArray) -> Rows | None:
    """Return the rows of a checkpoint if they are those of a frame of this batch."""
    if begun is None:
        return None
    found = np.flatnonzero(indices == begun['frame'])
    return Rows.from_arrays(int(found[0]), begun) if len(found) else None


def _modes(context: Context, frames: Frames, part: IntArray, finished: Finished) -> Arrays:
    """Return the arrays of the modes of frames that have one size.

    :param part: their indices in ``finished``
    """
    hessians = np.stack([finished.matrices[index] for index in part])
    members = np.stack([finished.members[index] for index in part]) if finished.members else None
    modes = analyse(frames, hessians, members)
    arrays: Arrays = {
        'hessian': hessians.ravel(),
        'frequencies': modes.frequencies.ravel(),
        'normal_modes': modes.modes.ravel(),
        'reduced_masses': modes.reduced_masses.ravel(),
        'n_rigid': modes.n_rigid,
        'n_imaginary': modes.n_imaginary(context.parameters['imaginary_cutoff']),
        'zero_point_energies': modes.zero_point_energies,
    }
    if 'member_frequencies' in context.store.names:
        shape = context.backend.n_members, 3 * frames.n_atoms
        found = modes.member_frequencies
        each = np.full(shape, np.nan) if found is None else np.moveaxis(found, 1, 0).reshape(shape)
        arrays |= {'member_frequencies': each, 'frequency_std': sample_std(each)}
    return arrays


def _judge(context: Context, indices: IntArray, frames: Frames, arrays: Arrays) -> npt.NDArray[np.int8]:
    """Find out which frames are stationary, and whether they are what was expected; return their statuses."""
    parameters = context.parameters
    forces = largest_forces(frames, arrays['forces'])
    stationary = forces <= parameters['force_tolerance']
    arrays['stationary'] = stationary.astype(np.int32)
    status = np.full(len(indices), FrameStatus.OK, dtype=np.int8)
    if parameters['expected'] == 'any':
        return status
    wrong = ~stationary | (arrays['n_imaginary'] != ORDERS[parameters['expected']])
    status[wrong] = FrameStatus.WRONG_CHARACTER
    wanted = parameters['expected'].replace('_', ' ')
    for local in np.flatnonzero(wrong):
        text = _imaginary_text(arrays['frequencies'].reshape(len(indices), -1)[local], arrays['n_imaginary'][local])
        if not stationary[local]:
            text = f'its largest force is {forces[local]:.3g} eV/angstrom: optimize it first'
        context.messages.add(int(indices[local]), f'not a {wanted}: {text}')
    return status


def _imaginary_text(frequencies: FloatArray, number: int) -> str:
    if not number:
        return 'it has no imaginary mode'
    shown = ', '.join(f'{-value:.0f}i' for value in np.sort(frequencies)[: min(number, _NAMED)])
    more, plural = ', ...' if number > _NAMED else '', 's' if number > 1 else ''
    return f'it has {number} imaginary mode{plural} ({shown}{more} cm^-1)'


def _remarks(context: Context) -> list[str]:
    """Return notes on structures whose modes need a second look, also on those of an earlier run."""
    parameters, store = context.parameters, context.store
    moving, noisy = [], []
    for index in map(int, np.flatnonzero(np.isin(store.status, (FrameStatus.OK, FrameStatus.WRONG_CHARACTER)))):
        frequencies = store.read('frequencies', index)
        if not store.read('stationary', index):
            moving.append(index)
        if np.any((frequencies < 0) & (frequencies >= -parameters['imaginary_cutoff'])):
            noisy.append(index)
    notes = []
    if moving:
        notes.append(
            f'not stationary, their modes mean little ({_listed(context, moving)}): a force is larger than '
            f'force_tolerance = {parameters["force_tolerance"]} eV/angstrom; optimize first'
        )
    if noisy:
        notes.append(
            f'imaginary modes below imaginary_cutoff = {parameters["imaginary_cutoff"]} cm^-1 do not count '
            f'({_listed(context, noisy)})'
        )
    return notes


def _listed(context: Context, indices: list[int]) -> str:
    """Return how many structures there are, and the labels of the first."""
    names = ', '.join(context.frames.label(index) for index in indices[:_NAMED])
    more = ', ...' if len(indices) > _NAMED else ''
    return f'{len(indices)} structure{"s" if len(indices) > 1 else ""}: {names}{more}'
