"""The frames that are under way: they join and leave between steps, and every step is one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..backends.base import Evaluation
from ..errors import WorkerError
from ..frames import BoolArray, FloatArray, Frames, IntArray
from ..symmetry import SpaceGroups
from .cells import CellRules
from .constraints import Constraints
from .convergence import Criteria
from .coordinates import Coordinates, at, concatenate
from .fire import Fire
from .guards import energy_floors
from .lbfgs import LBFGS
from .stepper import Point, State, Stepper

#: The optimizers that take many frames at once.
STEPPERS: dict[str, type[Stepper]] = {'LBFGS': LBFGS, 'FIRE': Fire}

#: What a pool knows of each frame beside its geometry, and where it begins.
_COUNTERS: dict[str, float] = {
    'steps': 0,  # steps taken, in all runs together
    'base': 0,  # those that do not count against the limit of this job
    'initial_energy': np.nan,  # eV, before the first step
    'floor': np.nan,  # eV, the energy below which something is wrong
    'last_enthalpy': np.nan,  # eV, in the last evaluation
    'way': 0.0,  # angstrom, the longest one of an atom in the last step
}
#: Prefix of the stepper's arrays in a checkpoint, and the array with the name of the optimizer whose they are.
_STEPPER = 'stepper_'
_OPTIMIZER = 'optimizer'


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a pool moves.

    :ivar optimizer: key of ``STEPPERS``
    :ivar max_step: angstrom
    :ivar rules: what of the cells is free; ``None`` where they are kept
    :ivar constraints: as the parameters have them
    """

    criteria: Criteria
    optimizer: str = 'LBFGS'
    max_step: float = 0.2
    rules: CellRules | None = None
    constraints: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Settings:
        """Return the settings that the parameters of a job ask for."""
        return cls(
            Criteria.of(parameters),
            parameters['optimizer'],
            float(parameters['max_step']),
            CellRules.of(parameters),
            tuple(parameters['constraints']),
        )


@dataclasses.dataclass(frozen=True)
class Look:
    """What an evaluation says of the frames of a pool.

    :ivar largest_forces: those that count for convergence, eV/angstrom, ``(n,)``
    :ivar converged: ``(n,)``
    """

    largest_forces: FloatArray
    converged: BoolArray


class Pool:
    """Frames that are optimized together.

    The order of calls is: :meth:`join`, then again and again an evaluation of :attr:`frames`, :meth:`look` at it,
    :meth:`keep` those that go on, and :meth:`go`. Frames may join after :meth:`keep` and after :meth:`go`, but not
    between :meth:`look` and :meth:`go`.
    """

    def __init__(self, settings: Settings, symmetry: SpaceGroups | None = None) -> None:
        nothing = Frames.from_ase([])
        self._settings = settings
        #: The symmetry that is kept: that of all frames of the job, and that of those here.
        self._all_groups, self._groups = symmetry, None if symmetry is None else symmetry.select(np.zeros(0, np.int64))
        #: The numbers of the frames in the job.
        self.indices = np.zeros(0, dtype=np.int64)
        #: Which frames could not be brought (back) to their constraints.
        self.stuck = np.zeros(0, dtype=bool)
        #: The frames as the job got them.
        self.start = nothing
        self._here = Coordinates(nothing, settings.rules, nothing.cells, nothing.cells)
        #: The geometries before the last step.
        self._before = nothing
        self.counters: dict[str, FloatArray] = {name: np.zeros(0) for name in _COUNTERS}
        self._stepper = STEPPERS.get(settings.optimizer, Fire)(settings.max_step)
        self._constraints = Constraints(settings.constraints, nothing, self.indices)
        self._forces: FloatArray = np.zeros((0, 3))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def frames(self) -> Frames:
        """Return the geometries now."""
        return self._here.frames

    @property
    def before(self) -> Frames:
        """Return the geometries before the last step."""
        return self._before

    @property
    def steps(self) -> IntArray:
        """Return the steps that each frame has taken, ``(n,)``."""
        return self.counters['steps'].astype(np.int64)

    @property
    def further_steps(self) -> IntArray:
        """Return the steps that count against the limit of this job, ``(n,)``."""
        return (self.counters['steps'] - self.counters['base']).astype(np.int64)

    def join(self, indices: IntArray, start: Frames, now: Frames, counters: Mapping[str, FloatArray]) -> None:
        """Let frames join, driven to the values of their constraints.

        :param indices: their numbers in the job, ``(b,)``
        :param start: the frames as the job got them
        :param now: where they are to begin
        :param counters: what is known of them from an earlier run
        """
        constraints = Constraints(self._settings.constraints, start, indices)
        positions, failed = constraints.correct(now.positions)
        now = at(now, positions)
        here = Coordinates.of(now, self._settings.rules, start.cells)
        self._stepper.join(now, here.rows)
        self._here, self._before = self._here.joined(here), concatenate(self._before, now)
        self.start = concatenate(self.start, start)
        self.indices = np.concatenate([self.indices, indices])
        for name, begin in _COUNTERS.items():
            new = counters.get(name, np.full(len(indices), float(begin)))
            self.counters[name] = np.concatenate([self.counters[name], new])
        self._restrict()
        self.stuck = np.concatenate([self.stuck, failed])

    def keep(self, frames: BoolArray) -> None:
        """Drop all frames but the given ones."""
        if frames.all():
            return
        places, rows = np.flatnonzero(frames), self._here.rows.where(frames)
        self._stepper.keep(frames, rows)
        if len(self._forces):
            self._forces = self._forces[rows]
        self._here, self._before = self._here.select(places), self._before.select(places)
        self.start, self.indices, self.stuck = self.start.select(places), self.indices[places], self.stuck[places]
        self.counters = {name: values[places] for name, values in self.counters.items()}
        self._constraints = self._constraints.select(places)
        self._groups = None if self._groups is None else self._groups.select(places)

    def _restrict(self) -> None:
        """Find out what keeps the frames that are here."""
        self._constraints = Constraints(self._settings.constraints, self.start, self.indices)
        self._groups = None if self._all_groups is None else self._all_groups.select(self.indices)

    def look(self, evaluation: Evaluation) -> Look:
        """Take note of an evaluation of the frames, all of which are sound, and say which are converged."""
        here, criteria = self._here, self._settings.criteria
        forces, stress = evaluation.forces, evaluation.stress
        if forces is None or (stress is None and here.rules is not None):
            raise WorkerError('ERROR_PROPERTY_UNAVAILABLE', 'the backend left out forces or stress: choose another')
        if self._groups is not None:
            forces = self._groups.symmetrize_vectors(forces, here.frames.cells)
            stress = None if stress is None else self._groups.symmetrize_stress(stress, here.frames.cells)
        forces = self._constraints.project(here.frames.positions, forces)
        self._forces = here.forces(forces, stress)
        largest = criteria.largest_forces(here.rows, self._forces)
        enthalpies, counters = here.enthalpies(evaluation.energies), self.counters
        if np.isnan(counters['floor']).any():  # newcomers
            known = {'initial_energy': evaluation.energies, 'floor': energy_floors(here.frames, evaluation)}
            for name, values in known.items():
                counters[name] = np.where(np.isnan(counters[name]), values, counters[name])
        first = counters['steps'] == 0
        gains = np.where(first, 0.0, (enthalpies - counters['last_enthalpy']) / here.frames.counts)
        # A frame that goes on from its end in an earlier run has made no step here that could be judged.
        unknown = ~first & ~np.isfinite(counters['last_enthalpy'])
        left = None if stress is None or here.rules is None else here.rules.pressed(stress)
        ways = np.where(unknown, np.inf, counters['way'])
        converged = criteria.met(largest, np.where(unknown, np.inf, gains), ways, left)
        counters['last_enthalpy'] = enthalpies
        return Look(largest, converged)

    def point(self) -> Point:
        """Return where the frames are and what drives them, after :meth:`look`."""
        here = self._here
        return Point(
            here.rows,
            here.values(),
            self._forces,
            self.counters['last_enthalpy'],
            here.frames,
            self._constraints.free,
            self.project,
        )

    def values(self) -> FloatArray:
        """Return the generalised coordinates, ``(R, 3)``."""
        return self._here.values()

    def go(self, steps: FloatArray | None = None) -> None:
        """Make a step.

        :param steps: of the generalised coordinates, ``(R, 3)``; by default those of the optimizer
        """
        before = self._here
        if steps is None:
            steps = self._stepper.step(self.point())
        moved = before.moved(steps)
        positions, failed = self._constraints.correct(moved.frames.positions)
        if self._groups is not None:
            positions = self._groups.symmetrize_step(before.frames, moved.frames)
        self._before, self._here = before.frames, moved.placed(positions)
        ways = np.linalg.norm(positions - before.frames.positions, axis=1)
        self.counters['way'] = np.maximum.reduceat(ways, before.frames.offsets[:-1])
        self.counters['steps'] = self.counters['steps'] + 1
        self._forces = np.zeros((0, 3))
        self.stuck = failed

    def project(self, vectors: FloatArray) -> FloatArray:
        """Take what is constrained out of steps ``(R, 3)``."""
        here, rows = self._here, self._here.rows
        if not self._constraints:
            return vectors
        steps = vectors[rows.atoms] if here.rules is None else here.real_steps(vectors[rows.atoms])
        steps = self._constraints.project(here.frames.positions, steps)
        result = np.array(vectors)
        result[rows.atoms] = steps if here.rules is None else here.coordinate_steps(steps)
        return result

    def arrays(self) -> State:
        """Return all that :meth:`restore` needs, between :meth:`go` and the next evaluation."""
        return {
            'indices': self.indices,
            'stuck': self.stuck,
            'positions': self.frames.positions,
            'cells': self.frames.cells,
            'logs': self._here.logs,
            'before_positions': self._before.positions,
            'before_cells': self._before.cells,
            _OPTIMIZER: np.array(self._settings.optimizer),
            **self.counters,
            **{f'{_STEPPER}{name}': array for name, array in self._stepper.state.items()},
        }

    def restore(self, arrays: State, start: Frames) -> None:
        """Take over the frames of an earlier run; of one with another optimizer the geometries and the counters alone.

        :param arrays: what :meth:`arrays` returned
        :param start: all frames as the job got them
        """
        self.indices, self.stuck = arrays['indices'], arrays['stuck']
        self.start = dataclasses.replace(start.select(self.indices), labels=())
        self._before = at(self.start, arrays['before_positions'], arrays['before_cells'])
        now = at(self.start, arrays['positions'], arrays['cells'])
        self._here = Coordinates(now, self._settings.rules, self.start.cells, arrays['logs'])
        self.counters = {name: arrays[name] for name in _COUNTERS}
        self._restrict()
        if str(arrays[_OPTIMIZER]) != self._settings.optimizer:
            self._stepper.join(now, self._here.rows)
            return
        state = {name: arrays[f'{_STEPPER}{name}'] for name in self._stepper.state}
        self._stepper.restore(state, now, self._here.rows, self._constraints.free)
