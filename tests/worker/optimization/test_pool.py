"""The pool: frames join and leave, keep what they are kept by, and can be put away and taken up again."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_mlpotential.worker.backends import get_backend
from aiida_mlpotential.worker.backends.base import Evaluation
from aiida_mlpotential.worker.backends.base import Settings as BackendSettings
from aiida_mlpotential.worker.errors import WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization.cells import CellRules
from aiida_mlpotential.worker.optimization.convergence import Criteria
from aiida_mlpotential.worker.optimization.pool import STEPPERS, Pool, Settings
from aiida_mlpotential.worker.parameters import with_defaults
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.symmetry import SpaceGroups

BACKEND = get_backend('ase').load(
    ModelSpec('EMT', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'}),
    Path(),
    BackendSettings(device='cpu'),
)
REQUEST = frozenset({'forces', 'stress'})
CELLS = pytest.mark.parametrize('rules', [None, CellRules()], ids=['positions', 'cell'])


def crystals(number=4):
    """Return rattled cells of copper of two sizes."""
    random = np.random.default_rng(11)
    structures = []
    for index in range(number):
        atoms = bulk('Cu', cubic=True) * (1 + index % 2, 1, 1)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * random.normal(size=(3, 3))), scale_atoms=True)
        atoms.positions += random.normal(scale=0.08, size=atoms.positions.shape)
        structures.append(atoms)
    return Frames.from_ase(structures)


def join(pool, frames, indices, **counters):
    chosen = frames.select(indices)
    pool.join(np.asarray(indices), chosen, chosen, counters)


def step(pool, number=1):
    for _ in range(number):
        look = pool.look(BACKEND.evaluate(pool.frames, REQUEST))
        pool.go()
    return look


def make(rules=None, **settings):
    return Pool(Settings(Criteria(0.01), rules=rules, **settings))


@pytest.mark.parametrize('optimizer', STEPPERS)
@CELLS
def test_frames_that_leave_and_join_disturb_nobody(optimizer, rules):
    frames, pool, alone = crystals(), make(rules, optimizer=optimizer), make(rules, optimizer=optimizer)
    join(pool, frames, [0, 1, 2])
    step(pool, 4)
    pool.look(BACKEND.evaluate(pool.frames, REQUEST))
    pool.keep(np.array([False, True, True]))
    pool.go()
    join(pool, frames, [3])
    step(pool, 3)
    assert pool.indices.tolist() == [1, 2, 3] and pool.steps.tolist() == [8, 8, 3]
    join(alone, frames, [1, 2])
    step(alone, 8)
    both = pool.frames.select([0, 1])
    np.testing.assert_allclose(both.positions, alone.frames.positions, atol=1e-8)
    np.testing.assert_allclose(both.cells, alone.frames.cells, atol=1e-8)


@pytest.mark.parametrize('optimizer', STEPPERS)
@CELLS
def test_a_pool_that_was_put_away_goes_on_as_if_nothing_had_happened(optimizer, rules):
    constraints = ({'kind': 'atoms', 'atoms': [1]},)
    pools = [make(rules, optimizer=optimizer, constraints=constraints) for _ in range(2)]
    frames = crystals()
    join(pools[0], frames, [2, 0])
    step(pools[0], 5)
    arrays = {name: np.array(array) for name, array in pools[0].arrays().items()}
    pools[1].restore(arrays, frames)
    for pool in pools:
        step(pool, 5)
    np.testing.assert_array_equal(pools[0].frames.positions, pools[1].frames.positions)
    np.testing.assert_array_equal(pools[0].frames.cells, pools[1].frames.cells)
    assert pools[1].steps.tolist() == [10, 10]


def test_the_geometry_before_the_last_step_is_known():
    pool = make()
    join(pool, crystals(), [0, 1])
    step(pool, 2)
    before = pool.frames.positions
    step(pool)
    np.testing.assert_array_equal(pool.before.positions, before)
    assert np.abs(pool.frames.positions - before).max() > 1e-3


def test_the_longest_way_and_the_gain_count_in_the_criteria():
    frames = crystals()
    pool = Pool(Settings(Criteria(100.0, energy=1e-9, step=1e-6)))
    join(pool, frames, [0])
    evaluation = BACKEND.evaluate(pool.frames, REQUEST)
    assert pool.look(evaluation).converged[0], 'before the first step there is nothing to judge'
    pool.go()
    moved = np.linalg.norm(pool.frames.positions - pool.before.positions, axis=1).max()
    assert pool.counters['way'][0] == pytest.approx(moved)
    assert not pool.look(BACKEND.evaluate(pool.frames, REQUEST)).converged[0]
    again = Pool(Settings(Criteria(100.0, step=1e-6)))
    join(again, frames, [0], steps=np.array([7.0]))
    assert not again.look(evaluation).converged[0], 'nor is it known what an earlier run did last'


def test_the_energy_at_the_start_is_kept():
    pool = make()
    join(pool, crystals(), [0])
    first = BACKEND.evaluate(pool.frames, REQUEST).energies[0]
    step(pool, 3)
    assert pool.counters['initial_energy'][0] == first
    again = make()
    join(again, crystals(), [0], initial_energy=np.array([-99.0]))
    step(again, 2)
    assert again.counters['initial_energy'][0] == -99.0


def test_fixed_atoms_stay_where_they_are_in_the_cell():
    """With a cell that changes they keep their place in it, as in ASE."""
    frames = crystals()
    pool = make(CellRules(), constraints=({'kind': 'atoms', 'atoms': [0, 2]},))
    join(pool, frames, [0, 1])
    step(pool, 6)
    for index in range(2):
        start, end = frames.to_ase(index), pool.frames.to_ase(index)
        np.testing.assert_allclose(
            end.get_scaled_positions(wrap=False)[[0, 2]], start.get_scaled_positions(wrap=False)[[0, 2]], atol=1e-10
        )
        assert np.abs(end.cell.array - start.cell.array).max() > 0.01


def test_bonds_are_kept_and_driven():
    cluster = crystals().to_ase(1)
    cluster.pbc = False
    frames = Frames.from_ase([cluster])
    pool = make(constraints=({'kind': 'bond', 'atoms': [0, 1]}, {'kind': 'bond', 'atoms': [2, 3], 'value': 2.7}))
    join(pool, frames, [0])
    assert pool.frames.to_ase(0).get_distance(2, 3) == pytest.approx(2.7, abs=1e-6), 'from the start'
    step(pool, 6)
    after = pool.frames.to_ase(0)
    assert after.get_distance(0, 1) == pytest.approx(frames.to_ase(0).get_distance(0, 1), abs=1e-6)
    assert after.get_distance(2, 3) == pytest.approx(2.7, abs=1e-6)


def test_constraints_that_cannot_be_met_are_told():
    line = Frames.from_ase([Atoms('Cu3', [[0, 0, 0], [2.5, 0, 0], [5, 0, 0.1]]), Atoms('Cu3', np.eye(3) * 3)])
    bonds = [([0, 1], 2.0), ([1, 2], 2.0), ([0, 2], 9.0)]
    constraints = tuple({'kind': 'bond', 'atoms': atoms, 'value': value, 'structures': [0]} for atoms, value in bonds)
    pool = make(constraints=constraints)
    join(pool, line, [0, 1])
    assert pool.stuck.tolist() == [True, False]
    pool.keep(~pool.stuck)
    assert pool.stuck.tolist() == [False]


def operations(atoms):
    """Return all rotations and permutations that map a crystal onto itself, by trying."""
    metric = atoms.cell.array @ atoms.cell.array.T
    scaled = atoms.get_scaled_positions(wrap=False)
    rotations, permutations = [], []
    for entries in itertools.product((-1, 0, 1), repeat=9):
        rotation = np.array(entries).reshape(3, 3)
        if np.abs(rotation.T @ metric @ rotation - metric).max() > 1e-4:
            continue
        for target in scaled:
            images = scaled @ rotation.T + target - rotation @ scaled[0]
            apart = np.abs((scaled[None] - images[:, None] + 0.5) % 1 - 0.5).max(axis=2)
            if apart.min(axis=1).max() < 1e-5:
                rotations.append(rotation)
                permutations.append(np.argmin(apart, axis=1))
    return np.array(rotations), np.array(permutations)


def test_symmetry_is_kept_and_lost_without():
    """A hexagonal close-packed metal with a push that is not symmetric: only the operations keep its space group."""
    atoms = bulk('Cu', 'hcp', a=2.5, c=4.3)
    frames = Frames.from_ase([atoms])
    rotations, permutations = operations(atoms)
    assert len(rotations) == 24
    arrays = {'rotations': rotations, 'permutations': permutations.ravel(), 'operation_offsets': np.array([0, 24])}
    push = 0.3 * np.random.default_rng(1).normal(size=(2, 3))
    numbers = []
    for groups in (SpaceGroups.of(arrays, frames), None):
        pool = Pool(Settings(Criteria(0.01), rules=CellRules()), groups)
        join(pool, frames, [0])
        for _ in range(5):
            result = BACKEND.evaluate(pool.frames, REQUEST)
            pool.look(Evaluation(result.energies, forces=result.forces + push, stress=result.stress))
            pool.go()
        assert np.abs(pool.frames.cells - frames.cells).max() > 0.01
        numbers.append(len(operations(pool.frames.to_ase(0))[0]))
    assert numbers[0] == 24 > numbers[1]


def test_symmetry_is_kept_in_any_step_and_breaks_no_convergence():
    atoms = bulk('Cu', 'hcp', a=2.5, c=4.3)
    frames = Frames.from_ase([atoms])
    rotations, permutations = operations(atoms)
    arrays = {'rotations': rotations, 'permutations': permutations.ravel(), 'operation_offsets': np.array([0, 24])}
    pool = Pool(Settings(Criteria(0.01)), SpaceGroups.of(arrays, frames))
    join(pool, frames, [0])
    push = np.random.default_rng(1).normal(size=(2, 3))
    assert pool.look(Evaluation(np.zeros(1), forces=push)).converged[0], 'nothing of it has the symmetry'
    pool.go(0.1 * push)
    assert len(operations(pool.frames.to_ase(0))[0]) == 24


def test_a_backend_that_leaves_out_what_is_needed():
    pool = make(CellRules())
    join(pool, crystals(), [0])
    with pytest.raises(WorkerError, match='left out forces or stress'):
        pool.look(Evaluation(np.zeros(1), forces=np.zeros((4, 3))))


def test_settings_of_parameters():
    parameters = with_defaults({'optimizer': 'FIRE', 'max_step': 0.1, 'optimize_cell': True}, 'geometry_optimization')
    settings = Settings.of(parameters)
    assert (settings.optimizer, settings.max_step) == ('FIRE', 0.1)
    assert settings.rules is not None and settings.criteria.force == 0.01


def test_rounding_decides_nothing():
    """Far from their minima the first steps are cut to the largest length; noise of rounding stays what it is.

    So the way of a frame does not depend on what else is in the batch, which changes the order of sums.
    """
    random = np.random.default_rng(1)
    structures = [molecule('CH3CH2OH') for _ in range(8)]
    for atoms in structures:
        atoms.positions += random.normal(scale=0.3, size=atoms.positions.shape)
    ends = []
    for noise in (0.0, 1e-14):
        frames = Frames.from_ase(structures)
        moved = frames.positions + noise * random.normal(size=frames.positions.shape)
        frames = dataclasses.replace(frames, positions=moved)
        pool = make()
        join(pool, frames, np.arange(len(frames)))
        step(pool, 5)
        ends.append(pool.frames.positions)
    assert np.abs(ends[0] - frames.positions).max() > 0.3
    np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=1e-10)
