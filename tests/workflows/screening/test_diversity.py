"""Which structures are worth a reference calculation: uncertain ones, and no two alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase.build import bulk, molecule

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.workflows.screening import diversity
from aiida_mlpotential.workflows.screening.diversity import choose, describe, farthest_points


def ethanols(number, seed=1):
    random = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        atoms = molecule('CH3CH2OH')
        atoms.positions += random.normal(scale=0.1, size=atoms.positions.shape)
        found.append(atoms)
    return found


def test_turned_and_renumbered_molecules_are_the_same():
    atoms = ethanols(1)[0]
    turned = atoms.copy()
    turned.rotate(71, (1, 2, 3))
    turned.translate((4, 5, 6))
    renumbered = turned[np.random.default_rng(2).permutation(len(atoms))]
    first, second, third = describe(Frames.from_ase([atoms, turned, renumbered]))
    np.testing.assert_allclose(second, first, atol=1e-10)
    np.testing.assert_allclose(third, first, atol=1e-10)


def test_other_geometries_and_other_elements_are_not():
    water, bent, sulfide = molecule('H2O'), molecule('H2O'), molecule('H2O')
    bent.set_distance(0, 1, 1.3, fix=0)
    sulfide.numbers[sulfide.numbers == 8] = 16
    points = describe(Frames.from_ase([water, bent, sulfide]))
    assert np.linalg.norm(points[0] - points[1]) > 0.1
    assert np.linalg.norm(points[0] - points[2]) > 0.1


def test_it_matters_which_elements_are_how_far_apart():
    """N-C-O and C-N-O with equal distances have the same set of all distances, and other ones for each pair."""
    first = molecule('CO2')
    first.symbols[:] = 'NCO'
    first.positions = [[0, 0, 0], [0, 0, 1.2], [0, 0, 2.4]]
    second = first.copy()
    second.symbols[:] = 'CNO'
    points = describe(Frames.from_ase([first, second]))
    assert np.linalg.norm(points[0] - points[1]) > 0.1


def test_a_supercell_is_the_same_crystal():
    points = describe(Frames.from_ase([bulk('Cu', cubic=True), bulk('Cu', cubic=True) * (2, 1, 1), bulk('Cu', a=3.9)]))
    np.testing.assert_allclose(points[1], points[0], atol=1e-10)
    assert np.linalg.norm(points[0] - points[2]) > 0.1


def test_a_small_motion_is_a_small_change():
    atoms = ethanols(1)[0]
    moved = [atoms.copy() for _ in range(2)]
    moved[0].positions[0] += 1e-4
    moved[1].positions[0] += 2e-4
    points = describe(Frames.from_ase([atoms, *moved]))
    assert np.linalg.norm(points[1] - points[0]) < 1e-2
    assert np.linalg.norm(points[2] - points[0]) < 2e-2


def test_batches_change_nothing(monkeypatch):
    frames = Frames.from_ase([*ethanols(20), bulk('Cu'), molecule('H2O')])
    whole = describe(frames)
    monkeypatch.setattr(diversity, '_BATCH_ATOMS', 25)
    assert len(diversity._batches(frames)) > 5
    np.testing.assert_allclose(describe(frames), whole, atol=1e-12)


def test_farthest_points_of_a_line():
    points = np.array([[0.0], [1.0], [10.0], [5.0], [5.1]])
    assert farthest_points(points, 3).tolist() == [0, 2, 3]


def test_equal_points_are_chosen_once():
    assert farthest_points(np.zeros((4, 2)), 3).tolist() == [0]


def test_the_most_uncertain_one_is_the_first():
    uncertainty = np.linspace(0.1, 1.0, 10)
    chosen = choose(Frames.from_ase(ethanols(10)), uncertainty, 4)
    assert chosen[0] == 9
    assert len(set(chosen.tolist())) == 4


def test_copies_and_unknown_ones_are_not_chosen():
    atoms = ethanols(3)
    frames = Frames.from_ase([atoms[0], atoms[0], atoms[1], atoms[2]])
    chosen = choose(frames, np.array([3.0, 3.0, 2.0, np.nan]), 4)
    assert sorted(chosen.tolist()) == [0, 2]


def test_nothing_is_known_of_any():
    assert len(choose(Frames.from_ase(ethanols(2)), np.full(2, np.nan), 1)) == 0


def test_only_the_most_uncertain_are_looked_at():
    """One that is most unlike all others is not chosen when the models are sure of it."""
    number = diversity.POOL_FACTOR + 1
    frames = Frames.from_ase([*ethanols(number - 1), molecule('C6H6')])
    uncertainty = np.array([*np.linspace(1, 2, number - 1), 0.01])
    assert number - 1 not in choose(frames, uncertainty, 1)
    assert number - 1 in choose(dataclasses.replace(frames), uncertainty, 2)


@pytest.mark.parametrize('number', [3000])
def test_many_structures_take_seconds(number):
    import time

    base = Frames.from_ase(ethanols(100))
    frames = base.select(np.arange(number) % 100)
    begin = time.process_time()
    assert describe(frames).shape[0] == number
    assert time.process_time() - begin < 20


def test_a_molecule_that_is_only_turned_is_not_chosen_again():
    """Rounding makes descriptions differ by 1e-15: the farthest of all others must not be taken for another one."""
    random = np.random.default_rng(5)
    atoms = ethanols(1)[0]
    turned = [atoms.copy() for _ in range(6)]
    for item in turned:
        item.rotate(random.uniform(0, 360), random.normal(size=3))
        item.translate(random.normal(scale=100, size=3))
    stretched = atoms.copy()
    stretched.positions[0] += 0.05
    chosen = choose(Frames.from_ase([*turned, stretched]), np.linspace(2, 1, 7), 7)
    assert chosen.tolist() == [0, 6]
