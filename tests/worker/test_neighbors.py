"""Neighbour pairs of flat batches against a brute-force search over periodic images and against ASE."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list

from aiida_mlpotential.worker import neighbors
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.neighbors import HalfPairs, find_half_pairs, ragged_triangle

CUTOFF = 5.1


def search(structures, cutoff=CUTOFF) -> HalfPairs:
    frames = Frames.from_ase(structures)
    return find_half_pairs(frames.positions, frames.offsets, frames.cells, frames.pbc, cutoff)


def brute_force(atoms: Atoms, cutoff: float) -> list[tuple[int, int, float]]:
    """All half pairs as (low index, high index, distance), sorted, by trying every image that could matter."""
    reach = [range(-9, 10) if periodic else range(1) for periodic in atoms.pbc]
    found = []
    for shift in itertools.product(*reach):
        translation = np.array(shift) @ atoms.cell.array
        distances = np.linalg.norm(atoms.positions[None] + translation - atoms.positions[:, None], axis=-1)
        for i, j in np.argwhere(distances <= cutoff):
            if i < j or (i == j and shift > (0, 0, 0)):
                found.append((int(i), int(j), round(float(distances[i, j]), 8)))
    return sorted(found)


def as_list(pairs: HalfPairs, begin: int = 0, end: int = 10**9) -> list[tuple[int, int, float]]:
    found = []
    for i, j, distance in zip(pairs.first, pairs.second, pairs.distances, strict=True):
        if begin <= i < end:
            assert begin <= j < end
            low, high = sorted((int(i) - begin, int(j) - begin))
            found.append((low, high, round(float(distance), 8)))
    return sorted(found)


def periodic_cases() -> dict[str, Atoms]:
    random = np.random.default_rng(2)
    skewed = Atoms('H6', cell=[[4.0, 0, 0], [3.1, 3.5, 0], [-2.0, 1.7, 6.5]], pbc=True)
    skewed.set_scaled_positions(random.uniform(size=(6, 3)))
    unwrapped = skewed.copy()
    unwrapped.positions += random.integers(-2, 3, size=(6, 3)) @ unwrapped.cell.array
    slab = fcc111('Al', (2, 2, 3), a=4.05, vacuum=None, periodic=True)
    slab.pbc = (True, True, False)
    no_height = slab.copy()
    no_height.cell[2] = 0
    short_height = slab.copy()
    short_height.cell[2] = [0.3, 0.2, 1.0]
    chain = Atoms('CH2', positions=[[0, 0, 0], [0.5, 0.9, 0.3], [-7.5, -0.9, 0.3]], cell=[0, 1.3, 0], pbc=(0, 1, 0))
    oblique = Atoms('H3', positions=random.uniform(-3, 9, size=(3, 3)), cell=[[3, 1, 0], [0, 0, 9], [1, 2, 4]])
    oblique.pbc = (True, False, True)
    return {
        'self images': bulk('Cu'),
        'skewed': skewed,
        'unwrapped': unwrapped,
        'slab': slab,
        'slab without height': no_height,
        'slab with a height of no meaning': short_height,
        'chain': chain,
        'oblique': oblique,
    }


@pytest.mark.parametrize('case', periodic_cases())
def test_periodic_as_brute_force(case):
    atoms = periodic_cases()[case]
    pairs = search([atoms])
    assert len(pairs) > 0
    assert as_list(pairs) == brute_force(atoms, CUTOFF)


@pytest.mark.parametrize('case', periodic_cases())
def test_vectors_belong_to_shifts(case):
    atoms = periodic_cases()[case]
    pairs = search([atoms])
    expected = atoms.positions[pairs.second] + pairs.shifts @ atoms.cell.array - atoms.positions[pairs.first]
    np.testing.assert_allclose(pairs.vectors, expected, atol=1e-12)
    np.testing.assert_allclose(pairs.distances, np.linalg.norm(expected, axis=1), atol=1e-12)
    assert not pairs.shifts[:, ~atoms.pbc].any()


def test_mixed_batch_as_ase(molecules, crystals):
    structures = [*molecules[:3], crystals[0], *molecules[3:], crystals[1], *periodic_cases().values()]
    pairs = search(structures)
    begin = 0
    for atoms in structures:
        end = begin + len(atoms)
        inside = (pairs.first >= begin) & (pairs.first < end)
        np.testing.assert_array_equal(inside, (pairs.second >= begin) & (pairs.second < end))
        if not (np.linalg.matrix_rank(atoms.cell.array) < 3 and atoms.pbc.any()):
            both_ways = np.sort(neighbor_list('d', atoms, CUTOFF))
            np.testing.assert_allclose(np.sort(np.repeat(pairs.distances[inside], 2)), both_ways, atol=1e-10)
        begin = end


def test_every_pair_once(crystals):
    pairs = search(crystals)
    seen = {(int(i), int(j), *map(int, s)) for i, j, s in zip(pairs.first, pairs.second, pairs.shifts, strict=True)}
    assert len(seen) == len(pairs)
    assert not seen & {(j, i, -a, -b, -c) for i, j, a, b, c in seen}


@pytest.mark.parametrize('count', [40, 700])
def test_molecules_of_all_sizes(count):
    random = np.random.default_rng(3)
    atoms = Atoms(numbers=np.ones(count, int), positions=random.uniform(0, 1.9 * count ** (1 / 3), size=(count, 3)))
    pairs = search([molecule('H2O'), atoms, molecule('H2O')])
    assert as_list(pairs, 3, 3 + count) == brute_force(atoms, CUTOFF)


def test_large_molecules_take_no_square_memory():
    random = np.random.default_rng(4)
    count = 6000
    positions = random.uniform(0, 3.0 * count ** (1 / 3), size=(count, 3))
    tracemalloc.start()
    try:
        pairs = find_half_pairs(positions, np.array([0, count]), np.zeros((1, 3, 3)), np.zeros((1, 3), bool), CUTOFF)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(pairs) > count
    assert peak < 0.2 * 8 * count**2


def test_tree_and_all_pairs_agree(molecules, monkeypatch):
    reference = as_list(search(molecules))
    monkeypatch.setattr(neighbors, 'ALL_PAIRS_LIMIT', 0)
    assert as_list(search(molecules)) == reference


def test_pair_at_the_cutoff_counts():
    atoms = Atoms('H2', positions=[[0, 0, 0], [0, 0, 5.0]])
    assert len(search([atoms], 5.0)) == 1
    assert len(search([atoms], 4.999)) == 0
    periodic = Atoms('H', cell=[5.0, 20, 20], pbc=True)
    assert len(search([periodic], 5.0)) == 1


def test_nothing_to_find():
    pairs = search([Atoms('H'), Atoms('H2', positions=[[0, 0, 0], [9, 0, 0]]), Atoms('O')])
    assert len(pairs) == 0
    assert pairs.vectors.shape == pairs.shifts.shape == (0, 3)


@pytest.mark.parametrize('cell', [np.zeros((3, 3)), [[3, 0, 0], [6, 0, 0], [0, 0, 3]]])
def test_degenerate_cell(cell):
    with pytest.raises(ValueError, match='linearly dependent'):
        search([Atoms('H', cell=cell, pbc=True)])


def test_ragged_triangle():
    first, second = ragged_triangle(np.array([2, 0, 1, 3]))
    assert list(zip(first, second, strict=True)) == [(0, 1), (3, 4), (3, 5), (4, 5)]


def test_a_skewed_cell_gives_the_pairs_of_its_compact_form():
    compact = Atoms('HO', positions=[[0, 0, 0], [1.1, 0.4, 0.2]], cell=[3, 3.2, 3.4], pbc=True)
    skewed = compact.copy()
    skewed.set_cell([[3, 0, 0], [300, 3.2, 0], [0, 320, 3.4]])
    pairs = search([skewed])
    assert as_list(pairs) == as_list(search([compact]))
    expected = skewed.positions[pairs.second] + pairs.shifts @ skewed.cell.array - skewed.positions[pairs.first]
    np.testing.assert_allclose(pairs.vectors, expected, atol=1e-9)
