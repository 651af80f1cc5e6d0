"""What the batched optimizers share: limited steps, and a way back when the energy runs up."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization.fire import Fire
from aiida_mlpotential.worker.optimization.lbfgs import LBFGS
from aiida_mlpotential.worker.optimization.rows import Rows
from aiida_mlpotential.worker.optimization.stepper import Point

FRAMES = Frames.from_ase([Atoms('Cu'), Atoms('Cu2', [[0, 0, 0], [9, 0, 0]])])
ROWS = Rows.of(FRAMES.counts, with_cells=False)
FREE = np.ones((3, 3), dtype=bool)

STEPPERS = pytest.mark.parametrize('kind', [LBFGS, Fire])


def point(x, forces, energies, project=lambda vectors: vectors):
    frames = Frames(FRAMES.numbers, x, FRAMES.offsets, FRAMES.cells, FRAMES.pbc)
    return Point(ROWS, x, forces, np.array(energies, dtype=float), frames, FREE, project)


@pytest.fixture
def make():
    def function(kind, max_step=0.2):
        stepper = kind(max_step)
        stepper.join(FRAMES, ROWS)
        return stepper

    return function


@STEPPERS
def test_no_atom_goes_further_than_the_longest_step(make, kind):
    """The step of a frame is shortened as a whole, and its direction kept; the other frame is not."""
    forces = np.array([[0.01, 0, 0], [1e4, 0, 0], [0, 5e3, 0]])
    steps = make(kind, 0.05).step(point(FRAMES.positions, forces, [0, 0]))
    np.testing.assert_allclose(np.linalg.norm(steps[1]), 0.05)
    assert steps[2, 1] == pytest.approx(steps[1, 0] / 2, rel=0.05)
    assert 0 < steps[0, 0] < 0.01


@STEPPERS
def test_a_frame_whose_energy_runs_up_goes_back_and_tries_less(make, kind):
    stepper = make(kind)
    forces = np.array([[1.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]])
    first = stepper.step(point(FRAMES.positions, forces, [0, 0]))
    x = FRAMES.positions + first
    second = stepper.step(point(x, forces / 2, [3.0, -0.1]))
    back = x + second - FRAMES.positions
    assert 0.05 * first[0, 0] < back[0, 0] < 0.51 * first[0, 0]
    assert back[1, 0] > first[1, 0], 'the other frame goes on'
    third = stepper.step(point(x + second, forces, [2.0, -0.2]))
    assert (x + second + third - FRAMES.positions)[0, 0] < 0.51 * back[0, 0], 'and even less when that is no better'


@STEPPERS
def test_a_small_rise_is_borne(make, kind):
    """Near the minimum energies are noise; going back for that would never end."""
    stepper = make(kind)
    forces = np.array([[1.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]])
    x = FRAMES.positions + stepper.step(point(FRAMES.positions, forces, [0, 0]))
    stepper.step(point(x, forces / 2, [0.005, 0.005]))
    np.testing.assert_array_equal(stepper.state['last_x'], x)


@STEPPERS
def test_steps_are_projected(make, kind):
    """What the constraints forbid is in no step, whatever the optimizer makes of the forces."""

    def project(vectors):
        return vectors * [1, 0, 1]

    forces = project(np.random.default_rng(1).normal(size=(3, 3)))
    steps = make(kind).step(point(FRAMES.positions, forces, [0, 0], project))
    assert not steps[:, 1].any() and steps[:, 0].all()


@STEPPERS
def test_steps_are_projected_where_the_frame_is_now(make, kind):
    """A curved constraint forbids something else at each point: what was learnt elsewhere must not lead out of it."""
    stepper, x = make(kind), FRAMES.positions
    for axis in (1, 2, 0, 1):
        allowed = np.ones(3)
        allowed[axis] = 0
        forces = allowed * np.array([[0.3, 0.2, 0.1], [0.5, -0.2, 0.4], [-0.5, 0.2, -0.4]])
        steps = stepper.step(point(x, forces, [0, 0], lambda vectors, allowed=allowed: vectors * allowed))
        assert not steps[:, axis].any() and steps.any()
        x = x + steps


def test_lbfgs_forgets_a_surface_on_which_the_energy_ran_up(make):
    stepper, x = make(LBFGS), FRAMES.positions
    forces = np.array([[1.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]])
    for scale in (1, 0.8, 0.6):
        x = x + stepper.step(point(x, scale * forces, [scale, scale]))
    assert (stepper.state['weight'] > 0).sum(axis=0).tolist() == [2, 2]
    stepper.step(point(x, 0.5 * forces, [9.0, -2.0]))
    assert (stepper.state['weight'] > 0).sum(axis=0).tolist() == [0, 3]


@STEPPERS
def test_a_frame_without_forces_stays(make, kind):
    stepper = make(kind)
    x = FRAMES.positions
    for _ in range(3):
        steps = stepper.step(point(x, np.zeros((3, 3)), [0, 0]))
        np.testing.assert_array_equal(steps, 0)
