"""Which structures are worth a reference calculation: uncertain ones, and no two alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from ase.build import bulk, molecule

from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.workflows.screening import diversity
from aiida_mlpotential.workflows.screening.diversity import choose, describe, farthest_points, select_structures


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


def test_distances_in_blocks_are_distances():
    points = np.random.default_rng(3).normal(size=(2 * diversity._BLOCK_POINTS + 5, 7))
    np.testing.assert_allclose(
        diversity._distances(points, points[3]), np.linalg.norm(points - points[3], axis=1), rtol=1e-13
    )


def flags(number, *indices):
    flagged = np.zeros(number, bool)
    flagged[list(indices)] = True
    return flagged


def test_those_chosen_before_count_as_chosen():
    points = np.array([[0.0], [1.0], [10.0], [5.0]])
    assert farthest_points(points, 2, np.array([[10.0]])).tolist() == [0, 3]
    assert farthest_points(points, 4, np.array([[10.0], [5.0]])).tolist() == [0, 1]


def test_of_equally_uncertain_structures_the_first_begins():
    frames = Frames.from_ase(ethanols(60))
    assert choose(frames, np.tile([1.0, 2.0, 2.0], 20), 1).tolist() == [1]
    assert choose(frames, np.ones(60), 1).tolist() == [0]


def test_fewer_than_wanted_are_all_chosen():
    frames = Frames.from_ase(ethanols(4))
    assert sorted(choose(frames, np.array([1.0, np.nan, 3.0, 2.0]), 10).tolist()) == [0, 2, 3]


def test_all_flagged_ones_come_before_others_that_are_farther_away():
    """Benzene is unlike all ethanols, but nobody asked for it; it comes once the flagged ones are chosen."""
    frames = Frames.from_ase([*ethanols(4), molecule('C6H6')])
    uncertainty, flagged = np.array([5.0, 4.0, 3.0, 2.0, 1.0]), flags(5, 0, 1, 2)
    assert choose(frames, uncertainty, 2)[1] == 4
    assert 4 not in choose(frames, uncertainty, 2, flagged)
    assert sorted(choose(frames, uncertainty, 3, flagged).tolist()) == [0, 1, 2]
    more = choose(frames, uncertainty, 4, flagged).tolist()
    assert sorted(more[:3]) == [0, 1, 2]
    assert more[3] == 4


def test_copies_of_flagged_ones_leave_room_for_others():
    """Three flags on one structure and its copies: the two others that are wanted come from those without a flag."""
    atoms = ethanols(4)
    frames = Frames.from_ase([atoms[0], atoms[0], atoms[0], atoms[1], atoms[2], atoms[3]])
    chosen = choose(frames, np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), 3, flags(6, 0, 1, 2)).tolist()
    assert chosen[0] == 0
    assert len(chosen) == 3
    assert set(chosen[1:]) < {3, 4, 5}


def test_a_first_pool_of_copies_is_not_the_end():
    number = 2 * diversity.POOL_FACTOR + 3
    atoms = ethanols(2)
    frames = Frames.from_ase([*[atoms[0]] * number, atoms[1]])
    assert choose(frames, np.linspace(2, 1, number + 1), 2).tolist() == [0, number]


def test_pools_of_other_elements_are_compared():
    """Sulfur where oxygen was, in the same place: another molecule, though it is the only element but hydrogen."""
    number, sulfide = 2 * diversity.POOL_FACTOR, molecule('H2O')
    sulfide.numbers[sulfide.numbers == 8] = 16
    frames = Frames.from_ase([*[molecule('H2O')] * number, sulfide])
    assert choose(frames, np.linspace(2, 1, number + 1), 2).tolist() == [0, number]


@pytest.fixture
def make_ranking(aiida_profile):
    def function(uncertainty, flagged):
        node = orm.ArrayData()
        node.set_array('uncertainty', np.array(uncertainty))
        node.set_array('flagged', flagged)
        return node.store()

    return function


def test_the_chosen_ones_are_a_set_that_tells_where_they_come_from(make_ranking):
    structures = StructureSetData.from_ase(ethanols(4), labels=['a', '', 'c', 'd']).store()
    ranking = make_ranking([1.0, 4.0, np.nan, 2.0], flags(4, 1, 3))
    selected = select_structures(structures, ranking, orm.Int(2))
    assert selected.labels == ('#1', 'd #3')
    np.testing.assert_array_equal(selected.get_ase(1).positions, structures.get_ase(3).positions)
    inputs = selected.creator.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
    assert (inputs['structures'].pk, inputs['ranking'].pk) == (structures.pk, ranking.pk)


def test_sets_without_labels_get_numbers(make_ranking):
    structures = StructureSetData.from_ase(ethanols(2)).store()
    selected = select_structures(structures, make_ranking([1.0, 2.0], flags(2)), orm.Int(5))
    assert sorted(selected.labels) == ['#0', '#1']


def test_choosing_where_nothing_is_known_says_so(make_ranking):
    structures = StructureSetData.from_ase(ethanols(2)).store()
    with pytest.raises(ValueError, match='no structure has a spread to go by'):
        select_structures(structures, make_ranking([np.nan, np.nan], flags(2)), orm.Int(1))
