"""FIRE, the fast inertial relaxation engine, for many frames at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ..frames import BoolArray, FloatArray
from .rows import Rows
from .stepper import Axis, Point, Stepper

#: Steps downhill before the time step grows, and the factors of time step and mixing: those of the paper and of ASE.
N_MIN = 5
GROW, SHRINK, MIX_START, MIX_SHRINK = 1.1, 0.5, 0.1, 0.99
TIME_STEP, LARGEST_TIME_STEP = 0.1, 1.0


class Fire(Stepper):
    """Dynamics with masses of 1 that turn the velocity to the force, and stop when it goes uphill.

    :source: Bitzek et al., Phys. Rev. Lett. 97 (2006) 170201
    """

    AXES: ClassVar[Mapping[str, Axis]] = {
        'velocity': Axis('row'),
        'time_step': Axis('frame', fill=TIME_STEP),
        'mix': Axis('frame', fill=MIX_START),
        'downhill': Axis('frame'),
    }

    def _learn(self, rows: Rows, moved: FloatArray, change: FloatArray, where: BoolArray) -> None:
        """Nothing: all is in the velocity."""

    def _forget(self, rows: Rows, where: BoolArray) -> None:
        self._stop(rows, where)

    def _stop(self, rows: Rows, where: BoolArray) -> None:
        state = self.state
        state['velocity'][rows.where(where)] = 0.0
        state['time_step'] = np.where(where, SHRINK * state['time_step'], state['time_step'])
        state['mix'] = np.where(where, MIX_START, state['mix'])
        state['downhill'] = np.where(where, 0.0, state['downhill'])

    def _direction(self, point: Point, accepted: BoolArray) -> FloatArray:
        state, rows = self.state, point.rows
        f = state['last_f']
        velocity, mix = state['velocity'], state['mix']
        power, speed, force = rows.dot(f, velocity), rows.dot(velocity, velocity), rows.dot(f, f)
        running = speed > 0
        down = running & (power > 0) & accepted
        turn = mix * np.sqrt(speed / np.where(force > 0, force, 1.0))
        turned = rows.spread(1 - mix) * velocity + rows.spread(turn) * f
        state['velocity'] = np.where(rows.spread(down), turned, velocity)
        faster = down & (state['downhill'] > N_MIN)
        state['time_step'] = np.where(
            faster, np.minimum(GROW * state['time_step'], LARGEST_TIME_STEP), state['time_step']
        )
        state['mix'] = np.where(faster, MIX_SHRINK * mix, mix)
        state['downhill'] = np.where(down, state['downhill'] + 1, state['downhill'])
        self._stop(rows, running & ~down & accepted)
        state['velocity'] = np.where(
            rows.spread(accepted), state['velocity'] + rows.spread(state['time_step']) * f, state['velocity']
        )
        return np.asarray(rows.spread(state['time_step']) * state['velocity'])
