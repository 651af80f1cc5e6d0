"""Hessians of any backend, from central differences of its forces, many displaced structures in one batch."""

from __future__ import annotations

import dataclasses

import numpy as np

from .backends.base import Backend
from .errors import FrameError, FrameStatus
from .frames import FloatArray, Frames, IntArray

#: Displacement of an atom, angstrom, by the float type of the forces. In double precision it must be this small: the
#: second derivative of the CELU networks of ANI jumps where an argument changes its sign, and 1e-3 angstrom straddles
#: jumps of 0.5 eV/angstrom^2. In single precision rounding would drown such a difference.
STEPS: dict[str, float] = {'double': 1e-5, 'single': 1e-2}


def hessian(backend: Backend, frame: Frames, budget: int) -> FloatArray:
    """Return the matrix of second derivatives of the energy of one frame, flat, ``((3 N)^2,)``, eV/angstrom^2.

    Each atom is moved both ways along each axis; in a crystal all its images move with it. The matrix is made
    symmetric, which halves what error there is.

    :param frame: a single frame
    :param budget: atoms in a batch
    """
    n = frame.n_atoms
    step = STEPS[_precision(backend, frame)]
    matrix = np.empty((3 * n, 3 * n))
    at_once = max(1, budget // (2 * n))
    for start in range(0, 3 * n, at_once):
        columns = np.arange(start, min(start + at_once, 3 * n))
        forces = _forces(backend, _displaced(frame, columns, step))
        plus, minus = forces.reshape(len(columns), 2, 3 * n).swapaxes(0, 1)
        matrix[columns] = (minus - plus) / (2 * step)
    return np.ravel((matrix + matrix.T) / 2)


def _precision(backend: Backend, frame: Frames) -> str:
    """Return the float type of the forces: a calculator of ASE does not say when it computes in single precision."""
    forces = _forces(backend, frame)
    rounded = np.array_equal(forces, forces.astype(np.float32)) and bool(np.any(forces))
    return 'single' if rounded else backend.precision


def _forces(backend: Backend, frames: Frames) -> FloatArray:
    forces = backend.evaluate(frames, frozenset({'forces'})).forces
    if forces is None:
        raise FrameError(FrameStatus.BACKEND_FAILED, 'the backend gave no forces for the hessian')
    return forces


def _displaced(frame: Frames, columns: IntArray, step: float) -> Frames:
    """Return for each coordinate two copies of a frame, in which it is larger and smaller by a step."""
    copies = 2 * len(columns)
    frames = frame.select(np.zeros(copies, dtype=np.int64))
    positions = frames.positions.reshape(len(columns), 2, -1).copy()
    rows = np.arange(len(columns))
    positions[rows, 0, columns] += step
    positions[rows, 1, columns] -= step
    return dataclasses.replace(frames, positions=positions.reshape(-1, 3))
