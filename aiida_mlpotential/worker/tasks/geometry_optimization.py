"""Geometry optimization: all pending frames, as many at once as make a batch, each until it is converged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..backends.base import Evaluation
from ..batching import MAX_FRAMES
from ..errors import FrameError, FrameStatus, WorkerError
from ..frames import BoolArray, FloatArray, Frames, IntArray
from ..hessian import Source, hessians
from ..optimization.ase_optimizers import drive
from ..optimization.constraints import Constraints, validate_structures
from ..optimization.guards import Limits, find_broken, find_trouble
from ..optimization.pool import STEPPERS, Look, Pool, Settings
from ..parameters.geometry_optimization import SINGLE_PRECISION_FORCES
from ..request import asked_properties
from ..schema import ARRAYS_DIRECTORY, FINGERPRINT_FILE
from ..symmetry import SpaceGroups, SymmetryError
from ..trajectory import TrajectoryWriter
from .base import Context, Task
from .evaluation import Arrays, arrays_of, rows_of

#: Steps between two looks for molecules that fell apart.
_FRAGMENTS_EVERY = 20
_NO_CELL = 'not periodic in three directions: it has no cell to optimize; optimize it in a job without optimize_cell'
_NO_GROUP = (
    'not periodic in three directions: it has no space group to keep; optimize it in a job without keep_symmetry'
)
_STUCK = 'its constraints could not be kept: their values exclude each other, or an angle became straight'


class GeometryOptimization(Task):
    """Move the atoms, and where asked for the cell, of each frame to the nearest minimum of the energy."""

    name: ClassVar[str] = 'geometry_optimization'
    retried: ClassVar[tuple[FrameStatus, ...]] = (FrameStatus.NOT_CONVERGED,)

    @classmethod
    def own(cls, parameters: Mapping[str, Any], ensemble: bool) -> tuple[str, ...]:
        """Return the names of the arrays beside what may be requested of any task."""
        names = super().own(parameters, ensemble)
        return names if parameters['optimize_cell'] else tuple(name for name in names if name != 'cells')

    def run(self, context: Context) -> None:
        """Optimize all frames whose status is ``PENDING``."""
        Optimization(context).run()


class Optimization:
    """One run of the task: frames wait in a queue, join the pool where there is room, and leave it when they end."""

    def __init__(self, context: Context) -> None:
        self._context = context
        parameters = context.parameters
        self._settings = Settings.of(parameters)
        self._limits = Limits.of(parameters)
        self._max_steps = int(parameters['max_steps'])
        self._step_request = frozenset({'forces', 'stress'} if self._settings.rules else {'forces'})
        self._full_request = self._step_request | (frozenset(asked_properties(parameters)) - {'energy', 'hessian'})
        self._rounds = 0
        self._pool = Pool(self._settings, _symmetry(context))
        self._trajectory: TrajectoryWriter | None = None
        #: The frames that wait, and the steps that each frame of the job took in earlier runs; -1 for none.
        self._queue: IntArray = np.zeros(0, dtype=np.int64)
        self._steps_before: npt.NDArray[np.int32] = np.zeros(0, dtype=np.int32)

    def run(self) -> None:
        """Do it."""
        self._check_backend()
        self._refuse()
        if self._context.parameters['trajectory'] is not None:
            directory = self._context.directory
            fingerprint = (directory / ARRAYS_DIRECTORY / FINGERPRINT_FILE).read_text()
            self._trajectory = TrajectoryWriter(directory, fingerprint)
        try:
            self._restore()
            if self._settings.optimizer in STEPPERS:
                self._run_batched()
            else:
                self._run_single()
        finally:
            if self._trajectory is not None:
                self._trajectory.close()

    def _run_batched(self) -> None:
        """Make steps until all frames are at their end, or somebody asks to stop."""
        while len(self._pool) or len(self._queue):
            if self._stop():
                return
            self._fill()
            self._round()
            if len(self._pool):
                self._pool.go()
        self._context.checkpoints.remove()

    def _run_single(self) -> None:
        """Let an optimizer of ASE move the only structure."""
        context = self._context
        if len(context.frames) > 1:
            raise WorkerError(
                'ERROR_JOB_INVALID',
                f'the optimizer {self._settings.optimizer} is for a single structure and there are '
                f'{len(context.frames)}: choose {" or ".join(STEPPERS)}',
            )
        self._fill()
        if not len(self._pool):
            return
        text = 'the optimizer gave up'
        try:
            drive(self._settings.optimizer, self._pool, self._round_or_stop, self._settings.max_step)
        except (RuntimeError, ValueError, ArithmeticError, np.linalg.LinAlgError) as exception:
            text = f'the optimizer gave up: {type(exception).__name__}: {exception}'
        if context.stopping():
            return
        if len(self._pool):
            self._end_before(0, FrameError(FrameStatus.NOT_CONVERGED, f'{text}; choose LBFGS or FIRE'))
        context.checkpoints.remove()

    def _round_or_stop(self) -> bool:
        """Evaluate the only structure; return whether it has to go on."""
        if self._stop():
            return False
        self._round()
        return bool(len(self._pool))

    def _stop(self) -> bool:
        """Save what is under way where it is time to; return whether somebody asked to stop."""
        context = self._context
        stopping = context.stopping()
        if stopping or context.checkpoints.due():
            if self._trajectory is not None:
                self._trajectory.sync()
            context.checkpoints.save(self._pool.arrays())
        return stopping

    def _check_backend(self) -> None:
        context = self._context
        if context.backend.n_members == 1 and context.parameters['max_qbc'] is not None:
            raise WorkerError(
                'ERROR_PROPERTY_UNAVAILABLE', 'max_qbc needs an ensemble; this model has one member: leave it out'
            )
        missing = sorted(self._step_request - context.backend.properties)
        if missing:
            raise WorkerError(
                'ERROR_PROPERTY_UNAVAILABLE',
                f'the model gives no {", ".join(missing)}, without which nothing can be optimized: choose another',
            )
        if context.backend.precision == 'single' and self._settings.criteria.force < SINGLE_PRECISION_FORCES:
            context.notes.append(
                f'force_tolerance = {self._settings.criteria.force} is below what forces in single precision resolve '
                f'({SINGLE_PRECISION_FORCES} eV/angstrom): structures may not converge'
            )

    def _refuse(self) -> None:
        """Give the frames that cannot be optimized as asked their status."""
        context = self._context
        for asked, text in (
            (self._settings.rules is not None, _NO_CELL),
            (context.parameters['keep_symmetry'], _NO_GROUP),
        ):
            molecules = np.flatnonzero(self._pending() & ~context.frames.pbc.all(axis=1))
            if asked and len(molecules):
                context.fail(molecules, FrameStatus.NO_CELL, text)
        if not self._settings.constraints:
            return
        message = validate_structures(self._settings.constraints, len(context.frames))
        if message:
            raise WorkerError('ERROR_JOB_INVALID', f'parameters: constraints: {message}')
        pending = np.flatnonzero(self._pending())
        for index, text in Constraints.problems(self._settings.constraints, context.frames).items():
            if index in pending:
                context.fail(np.array([index]), FrameStatus.INVALID_CONSTRAINT, text)

    def _pending(self) -> BoolArray:
        return np.asarray(self._context.store.status == FrameStatus.PENDING)

    def _restore(self) -> None:
        """Go on with what an earlier run had under way, and queue the others: like frames together, large ones first.

        A frame that did not converge in an earlier run begins where it ended.
        """
        context = self._context
        pending = self._pending()
        self._steps_before = self._steps_of_earlier_runs()
        arrays = context.checkpoints.load()
        if arrays is not None:
            self._pool.restore(arrays, context.frames)
            # A checkpoint may be older than the results: then these are where to go on.
            further = self._pool.steps > self._steps_before[self._pool.indices]
            self._pool.keep(pending[self._pool.indices] & further)
            if len(self._pool):
                context.notes.append(f'went on with {len(self._pool)} optimizations that an earlier run had under way')
            pending[self._pool.indices] = False
        waiting = np.flatnonzero(pending)
        keys = context.backend.batch_key(context.frames)
        counts = context.frames.counts[waiting]
        order = np.lexsort((waiting, -counts) if keys is None else (waiting, -counts, keys[waiting]))
        self._queue = waiting[order]

    def _steps_of_earlier_runs(self) -> npt.NDArray[np.int32]:
        """Return the steps of frames that have an end, -1 for others; also where a kill came while it was written."""
        context, directory = self._context, self._context.directory / ARRAYS_DIRECTORY
        steps = np.load(directory / 'steps.npy', allow_pickle=False)
        whole = np.isfinite(np.load(directory / 'initial_energies.npy', allow_pickle=False))
        for name, owners in (('positions', context.frames.frame_of_atom), ('cells', np.arange(len(context.frames)))):
            if name in context.store.names:
                values = np.load(directory / f'{name}.npy', allow_pickle=False).reshape(len(owners), -1)
                whole[owners[~np.isfinite(values).all(axis=1)]] = False
        return np.where(whole, steps, -1)

    def _fill(self) -> None:
        """Let waiting frames join while there is room."""
        context = self._context
        counts = context.frames.counts[self._queue[:MAX_FRAMES]]
        room = context.budget - self._pool.frames.n_atoms
        number = int(np.searchsorted(np.cumsum(counts), room, side='right'))
        number = min(max(number, 0 if len(self._pool) else 1), MAX_FRAMES - len(self._pool))
        if number <= 0:
            return
        chosen, self._queue = self._queue[:number], self._queue[number:]
        if not len(chosen):
            return
        start = dataclasses.replace(context.frames.select(chosen), labels=())
        self._pool.join(chosen, start, *self._continued(chosen, start))

    def _continued(self, indices: IntArray, start: Frames) -> tuple[Frames, dict[str, FloatArray]]:
        """Return where frames begin: as the job got them, or where an earlier run that did not converge left them."""
        store = self._context.store
        positions, cells = start.positions.copy(), start.cells.copy()
        steps, energies = np.zeros(len(indices)), np.full(len(indices), np.nan)
        done = self._steps_before[indices]
        for place in np.flatnonzero(done >= 0):
            index = int(indices[place])
            positions[start.offsets[place] : start.offsets[place + 1]] = store.read('positions', index)
            if self._settings.rules is not None:
                cells[place] = store.read('cells', index)
            steps[place], energies[place] = done[place], float(store.read('initial_energies', index))
        now = dataclasses.replace(start, positions=positions, cells=cells)
        return now, {'steps': steps, 'base': steps.copy(), 'initial_energy': energies}

    def _round(self) -> None:
        """Evaluate the pool once, and let the frames leave that are at their end."""
        context, pool = self._context, self._pool
        for place in np.flatnonzero(pool.stuck):
            context.fail(pool.indices[[place]], FrameStatus.INVALID_CONSTRAINT, _STUCK)
        pool.keep(~pool.stuck)
        if not len(pool):
            return
        self._rounds += 1
        evaluation, errors = context.evaluator.evaluate(pool.frames, self._step_request)
        evaluation = self._drop_failed(evaluation, errors)
        if not len(pool):
            return
        look = pool.look(evaluation)
        ended, status, texts = self._ended(look)
        self._record(evaluation.energies, look, ended)
        places = np.flatnonzero(ended)
        if len(places):
            self._finish(places, status[places], texts, evaluation)
            pool.keep(~ended)
        context.checkpoint()

    def _drop_failed(self, evaluation: Evaluation, errors: Mapping[int, FrameError]) -> Evaluation:
        """Let frames leave that could not be evaluated or are in trouble; return the evaluation of the others."""
        pool = self._pool
        trouble = find_trouble(pool.start, pool.frames, evaluation, self._limits, pool.counters['floor'])
        for place, error in errors.items():
            if error.status != FrameStatus.NON_FINITE_RESULT or pool.steps[place] == 0:
                trouble[place] = error
        if not trouble:
            return evaluation
        for place, error in trouble.items():
            self._end_before(place, error, evaluation)
        bad = np.isin(np.arange(len(pool)), list(trouble))
        kept = part_of(evaluation, pool.frames, np.flatnonzero(~bad))
        pool.keep(~bad)
        return kept

    def _end_before(self, place: int, error: FrameError, evaluation: Evaluation | None = None) -> None:
        """End a frame for a reason other than convergence, with the values that are left of it, if any.

        One that exploded is stored as it was before its last step. The frame stays in the pool.
        """
        pool = self._pool
        places, texts = np.array([place]), {place: error.message}
        status = np.array([error.status])
        if error.status == FrameStatus.SPREAD_TOO_LARGE:
            self._finish(places, status, texts, evaluation)
        elif error.status in (FrameStatus.EXPLODED, FrameStatus.NOT_CONVERGED) and pool.steps[place] > 0:
            self._finish(places, status, texts, None)
        else:
            self._context.fail(pool.indices[places], error.status, error.message)

    def _ended(self, look: Look) -> tuple[BoolArray, npt.NDArray[np.int64], dict[int, str]]:
        """Return which frames are at their end, with which status, and what is to be said of some."""
        pool = self._pool
        exhausted = pool.further_steps >= self._max_steps
        ended = look.converged | exhausted
        status = np.where(look.converged, FrameStatus.OK, FrameStatus.NOT_CONVERGED).astype(np.int64)
        texts: dict[int, str] = {}
        for place in np.flatnonzero(exhausted & ~look.converged):
            texts[int(place)] = (
                f'not converged after {pool.steps[place]} steps: the largest force is '
                f'{look.largest_forces[place]:.3g} eV/angstrom; go on from it with `parent_folder`'
            )
        judged = np.flatnonzero(ended) if self._rounds % _FRAGMENTS_EVERY else np.arange(len(pool))
        if self._context.parameters['check_fragments'] and len(judged):
            for local, error in find_broken(pool.start.select(judged), pool.frames.select(judged)).items():
                place = judged[local]
                ended[place], status[place], texts[int(place)] = True, error.status, error.message
        return ended, status, texts

    def _record(self, energies: FloatArray, look: Look, ended: BoolArray) -> None:
        """Append to the trajectories where it is their turn, or a frame's last step."""
        pool = self._pool
        if self._trajectory is None:
            return
        places = np.flatnonzero(ended | (pool.steps % int(self._context.parameters['trajectory']) == 0))
        if len(places):
            self._trajectory.append(
                pool.indices[places],
                pool.steps[places],
                pool.frames.select(places),
                energies[places],
                look.largest_forces[places],
            )

    def _finish(
        self, places: IntArray, status: npt.NDArray[np.int64], texts: Mapping[int, str], evaluation: Evaluation | None
    ) -> None:
        """Store the end of some frames of the pool.

        :param texts: why it is no good one, by place in the pool
        :param evaluation: of the whole pool; ``None`` for frames that end where they were before their last step
        """
        context, pool = self._context, self._pool
        frames = (pool.before if evaluation is None else pool.frames).select(places)
        steps = pool.steps[places] - (1 if evaluation is None else 0)
        if evaluation is None or self._full_request != self._step_request:
            part, errors = context.evaluator.evaluate(frames, self._full_request)
        else:
            part, errors = part_of(evaluation, pool.frames, places), {}
        for local, error in errors.items():
            context.fail(pool.indices[places[[local]]], error.status, error.message)
        good = np.setdiff1d(np.arange(len(places)), list(errors))
        if not len(good):
            return
        frames, part = (frames.select(good), part_of(part, frames, good)) if errors else (frames, part)
        places, status, steps = places[good], status[good], steps[good]
        arrays: Arrays = {
            **arrays_of(part, frames),
            'steps': steps,
            'initial_energies': pool.counters['initial_energy'][places],
            'positions': frames.positions,
            'cells': frames.cells,
        }
        if 'hessian' in context.parameters['properties']:
            arrays['hessian'] = self._hessians(frames)
        for place in set(texts) & set(places.tolist()):
            context.messages.add(int(pool.indices[place]), texts[place])
        context.store.write(pool.indices[places], arrays, status)
        context.progress.advance(len(places))

    def _hessians(self, frames: Frames) -> FloatArray:
        """Return the Hessians of frames at their end; NaN, and a note, where there is none."""
        context = self._context
        source = Source(context.backend, context.evaluator, context.budget)
        matrices, errors, notes = hessians(source, frames)
        notes += [f'a structure of {frames.counts[place]} atoms has no hessian: {errors[place]}' for place in errors]
        context.notes += [note for note in notes if note not in context.notes]
        return matrices


def _symmetry(context: Context) -> SpaceGroups | None:
    """Return the symmetry that is to be kept, if any."""
    if not context.parameters['keep_symmetry']:
        return None
    try:
        return SpaceGroups.of(context.symmetry or {}, context.frames)
    except SymmetryError as exception:
        raise WorkerError('ERROR_STRUCTURES_INVALID', f'keep_symmetry: {exception}') from exception


def part_of(evaluation: Evaluation, frames: Frames, places: IntArray) -> Evaluation:
    """Return what belongs to some frames of a batch."""
    arrays: dict[str, Any] = {field.name: getattr(evaluation, field.name) for field in dataclasses.fields(evaluation)}
    chosen = {name: value[rows_of(name, frames, places)] for name, value in arrays.items() if value is not None}
    return Evaluation(**chosen)
