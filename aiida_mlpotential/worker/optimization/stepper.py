"""What all batched optimizers share: a state for each frame, a limited step, and a way back when the energy runs up."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ..frames import BoolArray, FloatArray, Frames
from .rows import Rows

State = dict[str, npt.NDArray[Any]]

#: A step after which the energy is higher by more than this, eV, and more than this for each atom, is taken back.
MAX_RISE = 1e-2
MAX_RISE_PER_ATOM = 1e-4
#: How much shorter at least and at most the step is that is tried in place of one that was taken back.
SHORTEST, LONGEST = 0.1, 0.5


@dataclasses.dataclass(frozen=True)
class Axis:
    """Which axis of a state array runs over the frames or over the rows, and what newcomers have there."""

    over: Literal['frame', 'row']
    axis: int = 0
    fill: float = 0.0


@dataclasses.dataclass(frozen=True)
class Point:
    """Where the frames of a pool are, and what drives them.

    :ivar rows: where the rows of each frame are
    :ivar x: generalised coordinates, ``(R, 3)``
    :ivar forces: on them, with what is constrained taken out, eV/angstrom, ``(R, 3)``
    :ivar energies: what becomes minimal, eV, ``(n,)``
    :ivar frames: the geometries
    :ivar free: which Cartesian components of the atoms are not fixed, ``(A, 3)``
    :ivar project: takes out of vectors ``(R, 3)`` what is constrained
    """

    rows: Rows
    x: FloatArray
    forces: FloatArray
    energies: FloatArray
    frames: Frames
    free: BoolArray
    project: Callable[[FloatArray], FloatArray]


class Stepper(abc.ABC):
    """An optimizer of many frames at once: it says how far each of them is to go.

    The state is a dictionary of arrays, so that it can be written to a checkpoint as it is; every array has one axis
    over frames or rows, by which frames join and leave.

    :param max_step: longest way of an atom, or of a row of the cell, in one step, angstrom
    """

    #: The arrays of the state.
    AXES: ClassVar[Mapping[str, Axis]] = {}
    #: Those that every optimizer has: the last accepted point, its forces, its energy, and the step tried from there.
    _COMMON: ClassVar[Mapping[str, Axis]] = {
        'last_x': Axis('row'),
        'last_f': Axis('row'),
        'last_e': Axis('frame', fill=np.inf),
        'trial': Axis('row'),
    }

    def __init__(self, max_step: float) -> None:
        self._max_step = max_step
        self.state: State = {}
        self._axes = {**self._COMMON, **self.AXES}
        for name, axis in self._axes.items():
            self.state[name] = np.zeros(self._shape(name, axis))

    def _shape(self, name: str, axis: Axis) -> tuple[int, ...]:
        """Return the shape of an array of the state of a pool without frames."""
        return (0,) if axis.over == 'frame' else (0, 3)

    def join(self, frames: Frames, rows: Rows) -> None:
        """Make room for new frames behind those that are there.

        :param rows: those of the new frames
        """
        for name, axis in self._axes.items():
            array = self.state[name]
            shape = list(array.shape)
            shape[axis.axis] = len(rows) if axis.over == 'frame' else rows.n_rows
            self.state[name] = np.concatenate([array, np.full(shape, axis.fill)], axis=axis.axis)

    def keep(self, frames: BoolArray, rows: BoolArray) -> None:
        """Drop all frames but the given ones."""
        for name, axis in self._axes.items():
            chosen = frames if axis.over == 'frame' else rows
            self.state[name] = np.compress(chosen, self.state[name], axis=axis.axis)

    def restore(self, state: State, frames: Frames, rows: Rows, free: BoolArray) -> None:
        """Take over the state of an earlier run.

        :param frames: the geometries
        :param free: which Cartesian components of the atoms are not fixed, ``(A, 3)``
        """
        self.state = {name: np.array(state[name]) for name in self.state}

    def step(self, point: Point) -> FloatArray:
        """Return how far each row is to go from where it is, ``(R, 3)``.

        A frame whose energy rose by much goes back to where it came from, forgets what it knew of the surface, and
        tries a shorter step.
        """
        state, rows = self.state, point.rows
        known = np.isfinite(state['last_e'])
        accepted = ~(point.energies > state['last_e'] + MAX_RISE + MAX_RISE_PER_ATOM * rows.counts)
        again = None if accepted.all() else self._shorter(rows, point.energies)
        self._learn(rows, point.x - state['last_x'], state['last_f'] - point.forces, known & accepted)
        if again is not None:
            self._forget(rows, ~accepted)
        at = rows.spread(accepted)
        for name, value in (('last_x', point.x), ('last_f', point.forces)):
            state[name] = np.where(at, value, state[name])
        state['last_e'] = np.where(accepted, point.energies, state['last_e'])
        trial = self._limited(rows, point.project(self._direction(point, accepted)))
        state['trial'] = trial if again is None else np.where(at, trial, again)
        return np.asarray(state['last_x'] + state['trial'] - point.x)

    def _shorter(self, rows: Rows, energies: FloatArray) -> FloatArray:
        """Return the last steps, cut to where a parabola through what is known of the energy has its minimum."""
        trial = self.state['trial']
        slope = -rows.dot(self.state['last_f'], trial)
        rise = energies - np.where(np.isfinite(self.state['last_e']), self.state['last_e'], energies)
        bend = rise - slope
        downhill = (slope < 0) & (bend > 0)
        part = np.where(downhill, -slope / (2 * np.where(downhill, bend, 1.0)), LONGEST)
        return np.asarray(rows.spread(np.clip(part, SHORTEST, LONGEST)) * trial)

    def _limited(self, rows: Rows, steps: FloatArray) -> FloatArray:
        """Return the steps, shortened as a whole where a row of a frame would go too far."""
        longest = rows.longest(steps)
        factor = np.minimum(1.0, self._max_step / np.maximum(longest, 1e-300))
        return np.asarray(steps * rows.spread(factor))

    @abc.abstractmethod
    def _learn(self, rows: Rows, moved: FloatArray, change: FloatArray, where: BoolArray) -> None:
        """Take note of the gradient's change over the last step, for the frames that made one.

        :param moved: the steps, ``(R, 3)``
        :param change: how the gradient changed over them, ``(R, 3)``
        """

    @abc.abstractmethod
    def _forget(self, rows: Rows, where: BoolArray) -> None:
        """Forget what is known of some frames."""

    @abc.abstractmethod
    def _direction(self, point: Point, accepted: BoolArray) -> FloatArray:
        """Return the steps to take from the last accepted points, of any length, ``(R, 3)``."""
