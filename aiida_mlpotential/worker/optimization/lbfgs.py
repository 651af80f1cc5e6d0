"""Limited-memory BFGS for many frames at once, each with a memory of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ..frames import BoolArray, FloatArray, Frames
from .model_hessian import STALE, ModelHessian
from .rows import Rows
from .stepper import Axis, Point, State, Stepper

#: Pairs of steps and changes of the gradient that are remembered.
MEMORY = 50
#: First guess of the curvature where there is no better one, eV/angstrom^2: the one of ASE.
CURVATURE = 70.0
#: The same for the rows of a cell, times the number of atoms: stiff in metals and soft in molecular crystals.
CELL_CURVATURE = 30.0
#: A pair counts if the cosine between step and change of the gradient is above this: the curvature is positive.
_MIN_COSINE = 1e-6


class LBFGS(Stepper):
    """The two-loop recursion over all frames together, from a model of the second derivatives.

    All frames share one ring of slots. The weight of a pair that a frame does not have (it joined later, its step was
    taken back, the curvature was not positive) is zero, and the pair falls out of all sums.

    :source: Nocedal, Math. Comp. 35 (1980) 773; Nocedal and Wright, Numerical Optimization (2006), alg. 7.4
    """

    AXES: ClassVar[Mapping[str, Axis]] = {
        's': Axis('row', 1),
        'y': Axis('row', 1),
        'weight': Axis('frame', 1),
        # Where the model of the second derivatives was made: positions of the atoms, vectors of a free cell.
        'model_at': Axis('row', fill=np.inf),
    }

    def __init__(self, max_step: float) -> None:
        super().__init__(max_step)
        self.state['newest'] = np.array(0)
        self._model = ModelHessian()

    def _shape(self, name: str, axis: Axis) -> tuple[int, ...]:
        return {'s': (MEMORY, 0, 3), 'y': (MEMORY, 0, 3), 'weight': (MEMORY, 0)}.get(name) or super()._shape(name, axis)

    def join(self, frames: Frames, rows: Rows) -> None:
        """Make room for new frames behind those that are there."""
        super().join(frames, rows)
        self._model.join(rows.counts)

    def keep(self, frames: BoolArray, rows: BoolArray) -> None:
        """Drop all frames but the given ones."""
        super().keep(frames, rows)
        self._model.keep(frames)

    def restore(self, state: State, frames: Frames, rows: Rows, free: BoolArray) -> None:
        """Take over a state, and make the model of the second derivatives where it was made before."""
        super().restore(state, frames, rows, free)
        self._model = ModelHessian()
        self._model.join(rows.counts)
        made_at = self.state['model_at']
        made = np.asarray(np.isfinite(made_at[rows.starts]).all(axis=1))
        positions = np.where(rows.spread(made), made_at, 0.0)[rows.atoms]
        cells = np.where(made[:, None, None], made_at[rows.cells], frames.cells) if rows.with_cells else frames.cells
        self._model.update(dataclasses.replace(frames, positions=positions, cells=cells), made, ~free)

    def _learn(self, rows: Rows, moved: FloatArray, change: FloatArray, where: BoolArray) -> None:
        state = self.state
        slot = (int(state['newest']) + 1) % MEMORY
        state['newest'] = np.array(slot)
        product, steps, changes = rows.dot(moved, change), rows.dot(moved, moved), rows.dot(change, change)
        good = where & (product > _MIN_COSINE * np.sqrt(steps * changes))
        state['s'][slot], state['y'][slot] = moved, change
        state['weight'][slot] = np.where(good, 1 / np.where(good, product, 1.0), 0.0)

    def _forget(self, rows: Rows, where: BoolArray) -> None:
        self.state['weight'][:, where] = 0.0

    def _direction(self, point: Point, accepted: BoolArray) -> FloatArray:
        rows, state = point.rows, self.state
        s, y, weight = state['s'], state['y'], state['weight']
        slots = (int(state['newest']) - np.arange(MEMORY)) % MEMORY
        slots = slots[weight[slots].any(axis=1)]
        parts = {}
        result = state['last_f'].copy()
        for slot in slots:
            parts[slot] = weight[slot] * rows.dot(s[slot], result)
            result -= rows.spread(parts[slot]) * y[slot]
        result = self._precondition(point, accepted, result)
        for slot in slots[::-1]:
            part = parts[slot] - weight[slot] * rows.dot(y[slot], result)
            result += rows.spread(part) * s[slot]
        return result

    def _precondition(self, point: Point, accepted: BoolArray, vectors: FloatArray) -> FloatArray:
        """Return vectors divided by the first guess of the second derivatives."""
        rows, made_at, here = point.rows, self.state['model_at'], _geometries(point.frames, point.rows)
        stale = np.asarray(accepted & (rows.longest(here - made_at) > STALE))
        if stale.any():
            self._model.update(point.frames, stale, ~point.free)
            self.state['model_at'] = np.where(rows.spread(stale), here, made_at)
        result = vectors / CURVATURE
        if rows.with_cells:
            result[rows.cells] = vectors[rows.cells] * (rows.counts[:, None, None] / CELL_CURVATURE)
        self._model.apply(rows, vectors, result)
        return result


def _geometries(frames: Frames, rows: Rows) -> FloatArray:
    """Return positions, and where they are free cell vectors, as rows ``(R, 3)``."""
    if not rows.with_cells:
        return frames.positions
    result = np.empty((rows.n_rows, 3))
    result[rows.atoms], result[rows.cells] = frames.positions, frames.cells
    return result
