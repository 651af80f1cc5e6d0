"""Evaluate batches on a backend; a batch that fails is halved until the frames at fault stand alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends.base import Backend, Evaluation
from ..devices import check_device
from ..errors import FrameError, FrameStatus, OutOfMemory, WorkerError
from ..frames import BoolArray, Frames, IntArray
from ..quantities import QUANTITIES
from ..statistics import query_by_committee, sample_std
from ..storage import hessian_offsets

Arrays = dict[str, npt.NDArray[Any]]

#: What an evaluation may hold beside the energies, and along which axis the frames or atoms are.
_FIELDS = tuple(field.name for field in dataclasses.fields(Evaluation) if field.name != 'energies')
#: The forces of each member are for the tasks to work with; results do not hold them.
_NOT_STORED = ('member_forces',)
NON_FINITE = 'the backend returned NaN or infinity'


class Evaluator:
    """Evaluates frames in batches that fit into memory, and finds the frames that cannot be evaluated.

    :param notes: remarks for the results
    """

    def __init__(self, backend: Backend, notes: list[str]) -> None:
        self._backend, self._notes = backend, notes
        self._max_atoms: int | None = None

    def parts(self, frames: Frames, request: frozenset[str]) -> Iterator[tuple[IntArray, Evaluation | FrameError]]:
        """Yield the results of parts of a batch, nearly always of all at once, and why single frames have none.

        :param request: property names, as :meth:`Backend.evaluate` takes them
        :return: indices of frames of the batch, and their results or their error
        """
        waiting = [np.arange(len(frames))]
        while waiting:
            part = waiting.pop()
            outcome = self._attempt(frames if len(part) == len(frames) else frames.select(part), request)
            if len(part) > 1 and isinstance(outcome, FrameError):
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
            elif len(part):
                yield part, outcome

    def evaluate(self, frames: Frames, request: frozenset[str]) -> tuple[Evaluation, dict[int, FrameError]]:
        """Return the results of a whole batch; the rows of frames that failed are NaN.

        :return: the results, and the errors by index of the frame in the batch
        """
        parts, errors = [], {}
        for part, outcome in self.parts(frames, request):
            if isinstance(outcome, FrameError):
                errors[int(part[0])] = outcome
                continue
            parts.append((part, outcome))
            chosen = frames if len(part) == len(frames) else frames.select(part)
            bad = ~finite_frames(arrays_of(outcome, chosen), chosen)
            errors.update((int(index), FrameError(FrameStatus.NON_FINITE_RESULT, NON_FINITE)) for index in part[bad])
        if len(parts) == 1 and len(parts[0][0]) == len(frames):
            return parts[0][1], errors
        return self._merge(frames, request, parts), errors

    def _attempt(self, frames: Frames, request: frozenset[str]) -> Evaluation | FrameError:
        """Return the results, or why there are none."""
        if self._max_atoms is not None and len(frames) > 1 and frames.n_atoms > self._max_atoms:
            return FrameError(FrameStatus.OUT_OF_MEMORY, '')
        try:
            return self._backend.evaluate(frames, request)
        except (OutOfMemory, MemoryError) as exception:
            self._note_memory(frames)
            message = f'{frames.n_atoms} atoms do not fit in memory: {exception}'
            return FrameError(FrameStatus.OUT_OF_MEMORY, message)
        except FrameError as exception:
            check_device(exception)
            return exception
        except WorkerError:
            raise
        except Exception as exception:  # whatever a calculator raises is the failure of this frame, not of the job
            check_device(exception)
            return FrameError(FrameStatus.BACKEND_FAILED, f'{type(exception).__name__}: {exception}')

    def _note_memory(self, frames: Frames) -> None:
        """Remember the size that was too large, so that later batches are halved without trying."""
        if len(frames) > 1:
            if self._max_atoms is None:
                self._notes.append(f'out of memory with batches of {frames.n_atoms} atoms: went on with smaller ones')
            self._max_atoms = frames.n_atoms // 2

    def _merge(self, frames: Frames, request: frozenset[str], parts: list[tuple[IntArray, Evaluation]]) -> Evaluation:
        """Return the results of parts as those of the batch."""
        members = self._backend.n_members
        names = [*request, *(['member_energies'] if members > 1 else [])]
        arrays = {name: np.full(_shape(name, frames, members), np.nan) for name in ('energies', *names)}
        for part, evaluation in parts:
            for name, array in arrays.items():
                value = getattr(evaluation, name)
                if value is not None:
                    array[rows_of(name, frames, part)] = value
        return Evaluation(**arrays)


def _shape(name: str, frames: Frames, members: int) -> tuple[int, ...]:
    if name == 'member_forces':
        return members, frames.n_atoms, 3
    return {
        'frame': (len(frames),),
        'frame33': (len(frames), 3, 3),
        'member': (members, len(frames)),
        'atom': (frames.n_atoms,),
        'atom3': (frames.n_atoms, 3),
        'hessian': (int(hessian_offsets(frames.offsets)[-1]),),
    }[QUANTITIES[name].shape]


def rows_of(name: str, frames: Frames, part: IntArray) -> Any:
    """Return the index of the rows of some frames in the array of a quantity."""
    if name == 'member_forces':
        return np.s_[:, frames.atom_indices(part)]
    shape = QUANTITIES[name].shape
    if shape == 'member':
        return np.s_[:, part]
    if shape in ('frame', 'frame33'):
        return part
    if shape == 'hessian':
        return np.isin(_frame_of_row(name, frames), part)
    return frames.atom_indices(part)


def arrays_of(evaluation: Evaluation, frames: Frames) -> Arrays:
    """Return all arrays that can be had from an evaluation, with the statistics over its members."""
    arrays: Arrays = {'energies': evaluation.energies}
    for name in _FIELDS:
        value = getattr(evaluation, name)
        if value is not None and name not in _NOT_STORED:
            arrays[name] = value
    if evaluation.member_energies is not None and len(evaluation.member_energies) > 1:
        arrays['energy_std'] = sample_std(evaluation.member_energies)
        arrays['qbc'] = query_by_committee(arrays['energy_std'], frames.counts)
    return arrays


def finite_frames(arrays: Arrays, frames: Frames) -> BoolArray:
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


def blank(arrays: Arrays, frames: Frames, bad: BoolArray) -> None:
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
