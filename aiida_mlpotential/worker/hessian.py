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
#: Displacement that tells the float type: in double precision the forces are straight over so short a way.
_PROBE = 1e-7
#: Part of a difference of forces that is not straight, from which on rounding made it.
_STRAIGHT = 0.1


def hessian(backend: Backend, frame: Frames, budget: int) -> FloatArray:
    """Return the matrix of second derivatives of the energy of one frame, flat, ``((3 N)^2,)``, eV/angstrom^2.

    Each atom is moved both ways along each axis; in a crystal all its images move with it. The matrix is made
    symmetric, which halves what error there is. Steps of single precision are so long that third derivatives show
    (0.06 eV/angstrom^2 for a bond with hydrogen, 2 to 4 wavenumbers): there each atom is moved half as far as well,
    and the difference of fourth order taken, which leaves 0.03 wavenumbers of them, rounding included.

    :param frame: a single frame
    :param budget: atoms in a batch
    """
    n = frame.n_atoms
    precision = _precision(backend, frame)
    reach = 1 if precision == 'double' else 2
    step = STEPS[precision] / reach
    matrix = np.empty((3 * n, 3 * n))
    at_once = max(1, budget // (2 * reach * n))
    for start in range(0, 3 * n, at_once):
        columns = np.arange(start, min(start + at_once, 3 * n))
        forces = _forces(backend, _displaced(frame, columns, step, reach))
        plus, minus = np.moveaxis(forces.reshape(len(columns), reach, 2, 3 * n), (2, 1), (0, 1))
        near, far = (minus - plus)[[0, -1]]
        matrix[columns] = near / (2 * step) if reach == 1 else (8 * near - far) / (12 * step)
    return np.ravel((matrix + matrix.T) / 2)


def _precision(backend: Backend, frame: Frames) -> str:
    """Return the float type of the forces: a calculator of ASE does not say when it computes in single precision.

    Nor does the type of its forces tell once they were averaged over a committee or converted from other units.
    """
    if backend.precision == 'single':
        return 'single'
    way = np.random.default_rng(1).normal(scale=_PROBE, size=frame.positions.shape)
    before, here, after = (
        _forces(backend, dataclasses.replace(frame, positions=frame.positions + sign * way)) for sign in (-1, 0, 1)
    )
    rounded = np.array_equal(here, here.astype(np.float32)) and bool(np.any(here))
    bent = np.linalg.norm(after - 2 * here + before) > _STRAIGHT * np.linalg.norm(after - before)
    return 'single' if rounded or bent else backend.precision


def _forces(backend: Backend, frames: Frames) -> FloatArray:
    forces = backend.evaluate(frames, frozenset({'forces'})).forces
    if forces is None:
        raise FrameError(FrameStatus.BACKEND_FAILED, 'the backend gave no forces for the hessian')
    return forces


def _displaced(frame: Frames, columns: IntArray, step: float, reach: int) -> Frames:
    """Return copies of a frame in which a coordinate is larger and smaller by 1 .. reach steps, for each coordinate."""
    frames = frame.select(np.zeros(len(columns) * reach * 2, dtype=np.int64))
    positions = frames.positions.reshape(len(columns), reach, 2, -1).copy()
    rows = np.arange(len(columns))
    for steps in range(reach):
        positions[rows, steps, 0, columns] += (steps + 1) * step
        positions[rows, steps, 1, columns] -= (steps + 1) * step
    return dataclasses.replace(frames, positions=positions.reshape(-1, 3))
