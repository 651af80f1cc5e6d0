"""Point groups and symmetry numbers of molecules as optimizations leave them: turned, shifted and a little off."""

from __future__ import annotations

import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from scipy.spatial.transform import Rotation

from aiida_mlpotential.symmetry import point_groups, symmetry_numbers
from aiida_mlpotential.symmetry.point_groups import rotational_number
from aiida_mlpotential.worker.frames import Frames

pytest.importorskip('pymatgen', reason='the `symmetry` extra is not installed')


def _ring(symbol: str, number: int, radius: float, height: float = 0.0, turn: float = 0.0) -> Atoms:
    angles = np.arange(number) * 2 * np.pi / number + np.radians(turn)
    positions = np.column_stack([radius * np.cos(angles), radius * np.sin(angles), np.full(number, height)])
    return Atoms([symbol] * number, positions)


def _ethane(turn: float) -> Atoms:
    carbons = Atoms('C2', [[0, 0, 0.765], [0, 0, -0.765]])
    return carbons + _ring('H', 3, 1.02, 1.16) + _ring('H', 3, 1.02, -1.16, turn)


def _ferrocene(turn: float) -> Atoms:
    rings = Atoms('Fe')
    for height, angle in ((1.65, 0.0), (-1.65, turn)):
        rings += _ring('C', 5, 1.22, height, angle) + _ring('H', 5, 2.3, height, angle)
    return rings


def _chair() -> Atoms:
    result = Atoms()
    for number in range(6):
        up, angle = (-1) ** number, np.radians(60 * number)
        for symbol, radius, height in (('C', 1.46, 0.25), ('H', 1.53, 1.35), ('H', 2.48, -0.15)):
            result += Atoms(symbol, [[radius * np.cos(angle), radius * np.sin(angle), height * up]])
    return result


def _octahedron(centre: str, corner: str, distance: float) -> Atoms:
    return Atoms(centre + corner + '6', np.vstack([[0, 0, 0], distance * np.eye(3), -distance * np.eye(3)]))


def _cubane() -> Atoms:
    corners = np.array([[x, y, z] for x in (1, -1) for y in (1, -1) for z in (1, -1)], dtype=float)
    return Atoms('C8H8', np.vstack([0.785 * corners, 1.42 * corners]))


def _icosahedron() -> Atoms:
    golden = (1 + 5**0.5) / 2
    corners = [np.roll([0, s, t * golden], shift) for s in (1, -1) for t in (1, -1) for shift in range(3)]
    return Atoms('B12H12', np.vstack([0.9 * np.array(corners), 1.5 * np.array(corners)]))


def _peroxide(dihedral: float) -> Atoms:
    atoms = Atoms('HOOH', [[0.93, 0, 0.88], [0, 0, 0.73], [0, 0, -0.73], [0.93, 0, -0.88]])
    atoms.set_dihedral(0, 1, 2, 3, dihedral, indices=[3])
    return atoms


def _chain(number: int) -> Atoms:
    """An alkane in its all-trans form, 40 angstrom long for 30 carbon atoms."""
    result = Atoms()
    for index in range(number):
        x, z, up = 1.27 * index, 0.42 * (-1) ** index, (-1) ** index
        result += Atoms('CHH', [[x, 0, z], [x, 0.88, z + 0.62 * up], [x, -0.88, z + 0.62 * up]])
    end = 1.27 * (number - 1)
    return result + Atoms('HH', [[-0.88, 0, -0.2], [end + 0.88, 0, -0.2 * (-1) ** (number - 1)]])


CO2, N2O = molecule('CO2'), Atoms('NNO', [[0, 0, 0], [0, 0, 1.13], [0, 0, 2.32]])
BROMO = Atoms('CHFClBr', [[0, 0, 0], [0.63, 0.63, 0.63], [0.8, -0.8, -0.8], [-1.03, 1.03, -1.03], [-1.12, -1.12, 1.12]])
ALLENE = Atoms('C3', [[0, 0, 0], [0, 0, 1.31], [0, 0, -1.31]]) + Atoms(
    'H4', [[0.93, 0, 1.87], [-0.93, 0, 1.87], [0, 0.93, -1.87], [0, -0.93, -1.87]]
)
#: Molecule, point group, rotational symmetry number.
MOLECULES = {
    'helium': (Atoms('He'), 'Kh', 1),
    'hydrogen': (molecule('H2'), 'Dinfh', 2),
    'hydrogen chloride': (molecule('HCl'), 'Cinfv', 1),
    'carbon dioxide': (CO2, 'Dinfh', 2),
    'nitrous oxide': (N2O, 'Cinfv', 1),
    'acetylene': (molecule('C2H2'), 'Dinfh', 2),
    'butadiyne': (Atoms('HC4H', [[0, 0, z] for z in (-2.9, -1.9, -0.68, 0.68, 1.9, 2.9)]), 'Dinfh', 2),
    'water': (molecule('H2O'), 'C2v', 2),
    'ammonia': (molecule('NH3'), 'C3v', 3),
    'methane': (molecule('CH4'), 'Td', 12),
    'methanol': (molecule('CH3OH'), 'Cs', 1),
    'ethene': (molecule('C2H4'), 'D2h', 4),
    'ethane, staggered': (_ethane(60), 'D3d', 6),
    'ethane, eclipsed': (_ethane(0), 'D3h', 6),
    'ethane, between': (_ethane(25), 'D3', 6),
    'benzene': (molecule('C6H6'), 'D6h', 12),
    'cyclohexane, chair': (_chair(), 'D3d', 6),
    'allene': (ALLENE, 'D2d', 4),
    'boron trifluoride': (molecule('BF3'), 'D3h', 6),
    'sulfur hexafluoride': (_octahedron('S', 'F', 1.56), 'Oh', 24),
    'cubane': (_cubane(), 'Oh', 24),
    'ferrocene, eclipsed': (_ferrocene(0), 'D5h', 10),
    'ferrocene, staggered': (_ferrocene(36), 'D5d', 10),
    'dodecaborate': (_icosahedron(), 'Ih', 60),
    'fullerene': (molecule('C60'), 'Ih', 60),
    'sulfur ring': (_ring('S', 4, 2.35, 0.5) + _ring('S', 4, 2.35, -0.5, 45), 'D4d', 8),
    'peroxide': (_peroxide(112), 'C2', 2),
    'peroxide, trans': (_peroxide(180), 'C2h', 2),
    'chiral': (BROMO, 'C1', 1),
    'ring with turned arms': (_ring('C', 6, 1.4) + _ring('H', 6, 2.2, 0, 20), 'C6h', 6),
    'even chain': (_chain(30), 'C2h', 2),
    'odd chain': (_chain(31), 'C2v', 2),
}


def _as_optimized(atoms: Atoms, seed: int, off: float) -> Atoms:
    """Turned, shifted, each atom off by at most ``off`` angstrom."""
    rng = np.random.default_rng(seed)
    result = atoms.copy()
    errors = rng.normal(size=(len(atoms), 3))
    errors *= off * rng.random((len(atoms), 1)) / np.linalg.norm(errors, axis=1)[:, None]
    result.positions = Rotation.random(random_state=seed).apply(atoms.positions) + errors
    result.translate([1.0, -20.0, 3.0])
    return result


@pytest.mark.parametrize('off', [0.0, 0.005, 0.015])
@pytest.mark.parametrize('name', MOLECULES)
def test_molecules(name, off):
    atoms, symbol, number = MOLECULES[name]
    frames = Frames.from_ase([_as_optimized(atoms, seed, off) for seed in range(4)])
    numbers, symbols = symmetry_numbers(frames)
    assert symbols == (symbol,) * 4
    assert numbers.tolist() == [number] * 4
    assert numbers.dtype == np.int32


def test_the_order_of_atoms_does_not_matter():
    atoms = molecule('C6H6')[np.random.default_rng(0).permutation(12)]
    assert symmetry_numbers(Frames.from_ase([atoms]))[1] == ('D6h',)


def test_a_distortion_is_not_noise():
    """Cyclobutadiene has two long bonds: a rectangle, not a square."""
    atoms = Atoms('C4', [[x, y, 0] for x, y in ((0.675, 0.785), (-0.675, 0.785), (-0.675, -0.785), (0.675, -0.785))])
    atoms += Atoms('H4', [[x, y, 0] for x, y in ((1.44, 1.55), (-1.44, 1.55), (-1.44, -1.55), (1.44, -1.55))])
    assert symmetry_numbers(Frames.from_ase([atoms]))[1] == ('D2h',)


def test_what_has_no_symmetry_number():
    """0, never a silent 1: periodic frames, no atoms, coordinates that are no numbers."""
    nan = molecule('H2O')
    nan.positions[0] = np.nan
    structures = [bulk('Cu'), fcc111('Cu', (1, 1, 2), vacuum=4), Atoms(), nan, molecule('H2O')]
    numbers, symbols = symmetry_numbers(Frames.from_ase(structures))
    assert numbers.tolist() == [0, 0, 0, 0, 2]
    assert symbols == ('', '', 'unknown', 'unknown', 'C2v')
    none = symmetry_numbers(Frames.from_ase([]))
    assert none[0].shape == (0,) and none[1] == ()


class _Wrong:
    """Stands in for the library."""

    def __init__(self, symbol=None):
        self._symbol = symbol

    def __call__(self, molecule, **_):
        if self._symbol is None:
            raise RuntimeError('a bug')
        from pymatgen.symmetry.analyzer import PointGroupAnalyzer

        result = PointGroupAnalyzer(molecule)
        result.sch_symbol = self._symbol
        return result


@pytest.mark.parametrize('wrong', [_Wrong(), _Wrong('C1'), _Wrong('Td'), _Wrong('Dinfh'), _Wrong('nonsense')])
def test_a_library_that_fails_or_contradicts_itself_is_not_believed(monkeypatch, wrong):
    """Its symbol and its operations have to be of one group."""
    monkeypatch.setattr(point_groups, '_analyzer', lambda: wrong)
    numbers, symbols = symmetry_numbers(Frames.from_ase([molecule('H2O')]))
    assert (numbers.tolist(), symbols) == ([0], ('unknown',))


def _large(number: int, seed: int = 0) -> Atoms:
    """Atoms at random on a lattice, as large molecules without symmetry."""
    rng = np.random.default_rng(seed)
    grid = np.array([[i, j, k] for i in range(12) for j in range(12) for k in range(12)]) * 1.5
    positions = grid[rng.permutation(len(grid))[:number]] + rng.normal(size=(number, 3)) * 0.25
    return Atoms(rng.choice(['C', 'H', 'O', 'N'], number), positions)


@pytest.mark.parametrize('number', [60, 200, 900])
def test_large_molecules_do_not_take_long(number):
    start = time.perf_counter()
    assert symmetry_numbers(Frames.from_ase([_large(number)]))[1] == ('C1',)
    assert time.perf_counter() - start < 30


def test_an_end_to_trials(monkeypatch):
    """Sixty like atoms that are too far off for a group: unknown after a while, not after hours."""
    monkeypatch.setattr(point_groups, '_MOST_TRIALS', 200)
    frames = Frames.from_ase([_as_optimized(molecule('C60'), 1, 0.3)])
    assert symmetry_numbers(frames, 0.05)[1][0] in ('unknown', 'C1')
    monkeypatch.setattr(point_groups, '_MOST_TRIALS', 1)
    assert symmetry_numbers(Frames.from_ase([molecule('CH4')]))[1] == ('unknown',)


def test_molecules_that_are_too_large_are_unknown():
    frames = Frames.from_ase([_large(1200)])
    assert symmetry_numbers(frames)[1] == ('unknown',)


@pytest.mark.parametrize(
    ('symbol', 'number'),
    [
        ('C1', 1), ('Ci', 1), ('Cs', 1), ('Cinfv', 1), ('Dinfh', 2), ('Kh', 1), ('C2', 2), ('C3v', 3), ('C12h', 12),
        ('D2', 4), ('D3h', 6), ('D4d', 8), ('S4', 2), ('S6', 3), ('S8', 4), ('T', 12), ('Td', 12), ('Th', 12),
        ('O', 24), ('Oh', 24), ('I', 60), ('Ih', 60), ('unknown', 0), ('', 0), ('X3', 0),
    ],
)  # fmt: skip
def test_rotational_numbers(symbol, number):
    assert rotational_number(symbol) == number
