"""Bonds, angles and dihedrals of many frames agree with ASE frame by frame, in values, derivatives and images."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization.internals import ANGLE, BOND, DIHEDRAL, KINDS, Internals

#: Kind and atoms of the coordinates that are looked at in each frame.
COORDINATES = [(BOND, (0, 1)), (ANGLE, (1, 0, 2)), (DIHEDRAL, (3, 0, 1, 2)), (BOND, (2, 3))]


def _noisy(seed: int, **kwargs) -> Atoms:
    rng = np.random.default_rng(seed)
    return Atoms('CHNO', positions=rng.normal(size=(4, 3)) * 1.5, **kwargs)


def _crystal(seed: int) -> Atoms:
    """Atoms in several images of a skewed cell."""
    rng = np.random.default_rng(seed)
    atoms = _noisy(seed, cell=np.diag([4.0, 5.0, 6.0]) + rng.normal(size=(3, 3)) * 0.4, pbc=True)
    atoms.positions += rng.integers(-3, 4, size=(4, 3)) @ atoms.cell.array
    return atoms


STRUCTURES = [_noisy(1), _crystal(2), _noisy(3), _crystal(4), _noisy(5, cell=[4, 4, 0], pbc=(True, True, False))]


def _internals(frames: Frames) -> Internals:
    kind = np.array([kind for _ in range(len(frames)) for kind, _ in COORDINATES])
    atoms = [
        frames.offsets[i] + np.array((*a, *a[:1] * (4 - len(a)))) for i in range(len(frames)) for _, a in COORDINATES
    ]
    return Internals.of(kind, np.array(atoms), frames)


def _by_ase(atoms: Atoms, kind: int, indices: tuple[int, ...]) -> float:
    if kind == BOND:
        return atoms.get_distance(*indices, mic=True)
    return np.radians((atoms.get_angle if kind == ANGLE else atoms.get_dihedral)(*indices, mic=True))


def test_values_are_those_of_ase():
    values, _ = _internals(Frames.from_ase(STRUCTURES)).evaluate(Frames.from_ase(STRUCTURES).positions)
    expected = [_by_ase(atoms, kind, indices) for atoms in STRUCTURES for kind, indices in COORDINATES]
    np.testing.assert_allclose(values, expected, atol=1e-10)


def test_derivatives_are_finite_differences():
    frames = Frames.from_ase(STRUCTURES)
    internals = _internals(frames)
    rng = np.random.default_rng(0)
    direction, step = rng.normal(size=frames.positions.shape), 1e-5
    plus, minus = (internals.evaluate(frames.positions + sign * step * direction)[0] for sign in (1, -1))
    numeric = internals.differences(plus, minus) / (2 * step)
    analytic = np.einsum('kac,kac->k', internals.evaluate(frames.positions)[1], direction[internals.atoms])
    np.testing.assert_allclose(analytic, numeric, atol=1e-6)


def test_a_coordinate_follows_its_atoms_over_the_border():
    """The image is chosen once: a bond that grows past half the cell goes on growing."""
    atoms = Atoms('H2', positions=[[0.2, 0, 0], [3.8, 0, 0]], cell=[4, 9, 9], pbc=True)
    frames = Frames.from_ase([atoms])
    internals = Internals.of(np.array([BOND]), np.array([[0, 1, 0, 0]]), frames)
    moved = frames.positions + np.array([[1.9, 0, 0], [0, 0, 0]])
    assert internals.evaluate(frames.positions)[0] == pytest.approx([0.4])
    assert internals.evaluate(moved)[0] == pytest.approx([2.3])


def test_backwards_is_the_same_value():
    frames = Frames.from_ase(STRUCTURES)
    internals = _internals(frames)
    reverse = Internals.of(internals.kind, internals.backwards(), frames)
    assert reverse.atoms.tolist() != internals.atoms.tolist()
    np.testing.assert_allclose(reverse.evaluate(frames.positions)[0], internals.evaluate(frames.positions)[0])


@pytest.mark.parametrize(
    ('kind', 'positions'),
    [
        (BOND, [[0, 0, 0], [0, 0, 0], [5, 0, 0], [0, 5, 0]]),
        (ANGLE, [[0, 0, 0], [1, 0, 0], [2, 1e-6, 0], [0, 5, 0]]),
        (ANGLE, [[2, 0, 0], [1, 0, 0], [2, 1e-6, 0], [0, 5, 0]]),
        (DIHEDRAL, [[0, 1, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]]),
        (DIHEDRAL, [[-1, 0, 0], [1, 0, 0], [2, 0, 0], [3, 1, 0]]),
    ],
)
def test_what_is_not_defined_spoils_nothing_else(kind, positions):
    """No warning, no exception: NaN and derivatives of zero for the one, the usual for the other."""
    frames = Frames.from_ase([Atoms('C4', positions=positions), STRUCTURES[0]])
    atoms = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    atoms = np.where(np.arange(4) < list(KINDS.values())[kind].width, atoms, atoms[:, :1])
    internals = Internals.of(np.array([kind, kind]), atoms, frames)
    values, derivatives = internals.evaluate(frames.positions)
    assert internals.defined(frames.positions).tolist() == [False, True]
    assert np.isnan(values[0]) and not derivatives[0].any()
    assert values[1] == pytest.approx(_by_ase(STRUCTURES[0], kind, tuple(range(list(KINDS.values())[kind].width))))


def test_a_straight_angle_does_not_matter_to_a_bond():
    frames = Frames.from_ase([molecule('CO2')])
    internals = Internals.of(np.array([BOND]), np.array([[0, 1, 0, 0]]), frames)
    assert internals.defined(frames.positions).tolist() == [True]


def test_dihedrals_differ_by_the_shorter_way():
    internals = Internals(np.array([DIHEDRAL, ANGLE]), np.zeros((2, 4), dtype=int), np.zeros((2, 3, 3)))
    targets, values = np.radians([-170.0, 10.0]), np.radians([170.0, 170.0])
    np.testing.assert_allclose(np.degrees(internals.differences(targets, values)), [20.0, -160.0])
