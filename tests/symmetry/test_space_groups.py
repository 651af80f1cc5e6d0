"""Operations of crystals are those of spglib, with the atoms that they exchange."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.spacegroup import crystal
from ase.spacegroup.symmetrize import prep_symmetry

from aiida_mlpotential.symmetry import space_groups, symmetry_arrays
from aiida_mlpotential.symmetry.space_groups import TooManyOperationsError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.symmetry import SpaceGroups

pytest.importorskip('spglib', reason='the `symmetry` extra is not installed')

QUARTZ = crystal(
    ['Si', 'O'], [(0.47, 0, 0), (0.4135, 0.2669, 0.1191)], spacegroup=154, cellpar=[4.91, 4.91, 5.4, 90, 90, 120]
)


def _far_away(atoms: Atoms) -> Atoms:
    """The same crystal with its atoms in other cells, and just outside their own."""
    result = atoms.copy()
    rng = np.random.default_rng(0)
    result.positions += rng.integers(-3, 4, size=(len(atoms), 3)) @ atoms.cell.array - 1e-9
    return result


STRUCTURES = {
    'fcc': (bulk('Cu'), 48),
    'cubic': (bulk('Cu', cubic=True), 4 + 47),
    'rock salt': (bulk('NaCl', 'rocksalt', a=5.6), 48),
    'diamond': (bulk('Si', cubic=True), 4 + 47),
    'supercell': (bulk('Cu') * (2, 2, 2), 8 + 47),
    'hcp': (bulk('Mg'), 24),
    'quartz': (QUARTZ, 6),
    'quartz elsewhere': (_far_away(QUARTZ), 6),
    'skewed': (Atoms('Cu', cell=[[2.5, 0, 0], [7.5, 2.5, 0], [2.5, 5.0, 2.5]], pbc=True), 48),
    'none': (Atoms('CHNO', np.random.default_rng(1).random((4, 3)) * 4, cell=[5, 6, 7], pbc=True), 1),
    'molecule': (molecule('CH4'), 0),
    'slab': (fcc111('Cu', (2, 2, 2), vacuum=5), 0),
    'atoms in one place': (Atoms('Cu2', np.zeros((2, 3)), cell=[4, 4, 4], pbc=True), 0),
    'nan': (Atoms('Cu', [[np.nan, 0, 0]], cell=[4, 4, 4], pbc=True), 0),
    'flat cell': (Atoms('Cu', cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=True), 0),
    'empty': (Atoms(cell=[4, 4, 4], pbc=True), 0),
}
FRAMES = Frames.from_ase([atoms for atoms, _ in STRUCTURES.values()])


def test_numbers_of_operations():
    """Translations and rotations; none where there is no space group, and no exception for the others' sake."""
    offsets = symmetry_arrays(FRAMES)['operation_offsets']
    assert dict(zip(STRUCTURES, np.diff(offsets).tolist(), strict=True)) == {
        name: number for name, (_, number) in STRUCTURES.items()
    }


def test_shapes_and_types():
    arrays = symmetry_arrays(FRAMES)
    total = int(arrays['operation_offsets'][-1])
    assert arrays['rotations'].shape == (total, 3, 3) and arrays['rotations'].dtype == np.int32
    assert arrays['translations'].shape == (total, 3)
    assert arrays['permutations'].dtype == np.int32
    nothing = symmetry_arrays(Frames.from_ase([]))
    assert nothing['operation_offsets'].tolist() == [0] and nothing['rotations'].shape == (0, 3, 3)


def test_atoms_are_where_operations_take_them():
    arrays = symmetry_arrays(FRAMES)
    start = 0
    for index, atoms in enumerate(FRAMES):
        for number in range(arrays['operation_offsets'][index], arrays['operation_offsets'][index + 1]):
            fractional = np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T
            mapped = fractional @ arrays['rotations'][number].T + arrays['translations'][number]
            partners = arrays['permutations'][start : start + len(atoms)]
            start += len(atoms)
            away = mapped - fractional[partners]
            np.testing.assert_allclose(away - np.round(away), 0, atol=1e-6)
            assert (atoms.numbers[partners] == atoms.numbers).all()
    assert start == len(arrays['permutations'])


def test_as_in_ase():
    arrays = symmetry_arrays(Frames.from_ase([QUARTZ]))
    rotations, _, permutations = prep_symmetry(QUARTZ, 1e-3)
    np.testing.assert_array_equal(arrays['rotations'], rotations)
    np.testing.assert_array_equal(arrays['permutations'], np.ravel(permutations))


def test_the_tolerance_decides():
    noisy = QUARTZ.copy()
    noisy.rattle(3e-3, seed=1)
    frames = Frames.from_ase([noisy])
    assert len(symmetry_arrays(frames, 1e-4)['rotations']) == 1
    assert len(symmetry_arrays(frames, 3e-2)['rotations']) == 6


def test_the_worker_reads_them():
    groups = SpaceGroups.of(symmetry_arrays(FRAMES), FRAMES)
    assert groups.known.tolist() == [number > 0 for _, number in STRUCTURES.values()]


def test_large_supercells_are_refused(monkeypatch):
    monkeypatch.setattr(space_groups, '_MAX_ENTRIES', 1000)
    with pytest.raises(TooManyOperationsError, match='structure big has 79 symmetry operations on 64 atoms: optimize'):
        symmetry_arrays(Frames.from_ase([bulk('Cu', cubic=True) * (2, 2, 4)], ['big']))
