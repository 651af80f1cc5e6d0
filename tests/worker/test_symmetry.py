"""What is left of forces, stresses and steps is what ASE leaves of them, for many crystals at once."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.spacegroup import crystal
from ase.spacegroup.symmetrize import prep_symmetry, symmetrize_rank1, symmetrize_rank2

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.symmetry import SpaceGroups, SymmetryError, is_first, is_translation

pytest.importorskip('spglib', reason='the operations of the test crystals come from spglib')


def _triclinic() -> Atoms:
    rng = np.random.default_rng(0)
    return Atoms('CHNO', rng.random((4, 3)) * 4, cell=np.eye(3) * 5 + rng.normal(size=(3, 3)) * 0.3, pbc=True)


QUARTZ = crystal(
    ['Si', 'O'], [(0.47, 0, 0), (0.4135, 0.2669, 0.1191)], spacegroup=154, cellpar=[4.91, 4.91, 5.4, 90, 90, 120]
)
CRYSTALS = {
    'fcc': bulk('Cu'),
    'cubic': bulk('Cu', cubic=True),
    'supercell': bulk('Cu') * (2, 2, 2),
    'rutile': crystal(
        ['Ti', 'O'], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.95, 90, 90, 90]
    ),
    'quartz': QUARTZ,
    'hcp': bulk('Mg'),
    'supercell with free parameters': QUARTZ * (2, 1, 1),
    'none': _triclinic(),
}


def _arrays(structures):
    """The operations as the file has them, found one structure after the other as ASE does."""
    rotations, translations, permutations, sizes = [], [], [], []
    for atoms in structures:
        found = prep_symmetry(atoms, 1e-4) if atoms.pbc.all() else (np.zeros((0, 3, 3)), np.zeros((0, 3)), [])
        rotations.append(found[0])
        translations.append(found[1])
        permutations.append(np.array(found[2], dtype=np.int32).ravel())
        sizes.append(len(found[0]))
    return {
        'rotations': np.concatenate(rotations).astype(np.int32),
        'translations': np.concatenate(translations),
        'permutations': np.concatenate(permutations),
        'operation_offsets': np.concatenate([[0], np.cumsum(sizes)]),
    }


@pytest.fixture(scope='module')
def frames() -> Frames:
    return Frames.from_ase(CRYSTALS.values())


@pytest.fixture(scope='module')
def groups(frames) -> SpaceGroups:
    return SpaceGroups.of(_arrays(CRYSTALS.values()), frames)


def _strained(frames: Frames) -> np.ndarray:
    """Cells that are deformed as their symmetry allows: here all sides by the same factor."""
    return frames.cells * 1.07


def test_forces_as_in_ase(frames, groups):
    forces = np.random.default_rng(1).normal(size=frames.positions.shape)
    result = groups.symmetrize_vectors(forces, _strained(frames))
    for index, atoms in enumerate(frames):
        part = slice(frames.offsets[index], frames.offsets[index + 1])
        cell = atoms.cell.array * 1.07
        expected = symmetrize_rank1(cell, np.linalg.inv(cell), forces[part], *prep_symmetry(atoms, 1e-4))
        np.testing.assert_allclose(result[part], expected, atol=1e-12)
    np.testing.assert_allclose(groups.symmetrize_vectors(result, _strained(frames)), result, atol=1e-12)
    assert np.abs(result[:1]).max() < 1e-12, 'an atom at a centre of symmetry has no force'
    np.testing.assert_allclose(result[-4:], forces[-4:], atol=1e-12, err_msg='without symmetry nothing changes')


def test_stress_as_in_ase(frames, groups):
    stress = np.random.default_rng(2).normal(size=(len(frames), 3, 3))
    result = groups.symmetrize_stress(stress, _strained(frames))
    for index, atoms in enumerate(frames):
        cell = atoms.cell.array * 1.07
        expected = symmetrize_rank2(cell, np.linalg.inv(cell), stress[index], prep_symmetry(atoms, 1e-4)[0])
        np.testing.assert_allclose(result[index], expected, atol=1e-12)
    np.testing.assert_allclose(result[0], np.eye(3) * np.trace(stress[0]) / 3, atol=1e-12)


def test_steps_keep_the_symmetry(frames, groups):
    """Atoms move and the cell grows: what spglib finds afterwards is what it found before."""
    rng = np.random.default_rng(3)
    moved = Frames(
        frames.numbers,
        frames.positions * 1.07 + rng.normal(size=frames.positions.shape) * 0.1,
        frames.offsets,
        _strained(frames),
        frames.pbc,
    )
    positions = groups.symmetrize_step(frames, moved)
    after = Frames(frames.numbers, positions, frames.offsets, moved.cells, frames.pbc)
    for before_atoms, after_atoms in zip(frames, after, strict=True):
        assert len(prep_symmetry(after_atoms, 1e-6)[0]) == len(prep_symmetry(before_atoms, 1e-4)[0])
    quartz = slice(frames.offsets[4], frames.offsets[5])
    assert np.abs(positions[quartz] - 1.07 * frames.positions[quartz]).max() > 0.01, 'free parameters did change'


def test_a_deviation_within_the_tolerance_stays():
    """Without a step nothing moves, however inexact the crystal was."""
    atoms = CRYSTALS['rutile'].copy()
    atoms.rattle(1e-3)
    frames = Frames.from_ase([atoms])
    groups = SpaceGroups.of(_arrays([CRYSTALS['rutile']]), frames)
    np.testing.assert_allclose(groups.symmetrize_step(frames, frames), frames.positions, atol=1e-12)


def test_select(frames, groups):
    forces = np.random.default_rng(4).normal(size=frames.positions.shape)
    whole = groups.symmetrize_vectors(forces, frames.cells)
    for places in ([4], [7, 0, 3, 6], [1, 2], []):
        chosen = np.array(places, dtype=int)
        part, atoms = groups.select(chosen), frames.atom_indices(chosen)
        assert len(part) == len(places)
        np.testing.assert_allclose(
            part.symmetrize_vectors(forces[atoms], frames.cells[chosen]), whole[atoms], atol=1e-14
        )


def test_frames_without_known_operations_are_left_as_they_are():
    structures = [molecule('CH4'), bulk('Cu', cubic=True), Atoms()]
    frames = Frames.from_ase(structures)
    groups = SpaceGroups.of(_arrays(structures), frames)
    assert groups.known.tolist() == [False, True, False]
    forces, stress = np.random.default_rng(5).normal(size=(9, 3)), np.full((3, 3, 3), np.nan)
    stress[1] = np.eye(3)
    result = groups.symmetrize_vectors(forces, frames.cells)
    np.testing.assert_array_equal(result[:5], forces[:5])
    np.testing.assert_allclose(result[5:], 0, atol=1e-14)
    np.testing.assert_allclose(groups.symmetrize_stress(stress, frames.cells), stress, atol=1e-14)
    np.testing.assert_array_equal(groups.symmetrize_step(frames, frames)[:5], frames.positions[:5])


def test_all_operations_or_translations_and_one_for_each_rotation():
    """Files may have either: the mean is the same."""
    atoms = bulk('Si', cubic=True)
    frames, arrays = Frames.from_ase([atoms]), _arrays([atoms])
    rotations = arrays['rotations']
    needed = is_translation(rotations) | is_first(rotations, np.array([len(rotations)]))
    fewer = {
        'rotations': rotations[needed],
        'permutations': arrays['permutations'].reshape(-1, 8)[needed].ravel(),
        'operation_offsets': np.array([0, needed.sum()]),
    }
    assert (len(rotations), needed.sum()) == (192, 4 + 47)
    forces = np.random.default_rng(6).normal(size=(8, 3))
    results = [SpaceGroups.of(item, frames).symmetrize_vectors(forces, frames.cells) for item in (arrays, fewer)]
    np.testing.assert_allclose(*results, atol=1e-14)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'rotations': None}, 'has no rotations'),
        ({'operation_offsets': np.array([0, 1])}, 'does not belong'),
        ({'permutations': np.zeros(3, np.int32)}, 'does not belong'),
        ({'permutations': np.full(48, 9, np.int32)}, 'names atoms that are not there'),
        ({'permutations': np.full(48, -1, np.int32)}, 'names atoms that are not there'),
    ],
)
def test_a_file_of_other_structures(change, words):
    arrays = {**_arrays([bulk('Cu')]), **change}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    with pytest.raises(SymmetryError, match=words):
        SpaceGroups.of(arrays, Frames.from_ase([bulk('Cu')]))
