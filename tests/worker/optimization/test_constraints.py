"""Constraints: nothing that is constrained changes in a step, everything else is as free as it was."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.constraints import FixInternals
from ase.optimize import BFGS

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization.constraints import Constraints

#: Atoms of ethanol, CH3CH2OH: C 0, C 1, O 2, H of the hydroxyl group 3, H of C1 4 5, H of C0 6 7 8.
ETHANOL = molecule('CH3CH2OH')
WATER = molecule('H2O')
MIXED = [
    {'kind': 'bond', 'atoms': [0, 1]},
    {'kind': 'angle', 'atoms': [1, 0, 2]},
    {'kind': 'atoms', 'atoms': [2], 'structures': [0, 2]},
    {'kind': 'components', 'atoms': [0], 'components': 'yz', 'structures': [1]},
]


def _noise(shape, size=1.0, seed=0):
    return np.random.default_rng(seed).normal(size=shape) * size


def _make(specs, structures, indices=None):
    frames = Frames.from_ase(structures)
    return frames, Constraints(specs, frames, np.arange(len(frames)) if indices is None else np.array(indices))


def _atoms(frames: Frames, positions, index: int) -> Atoms:
    atoms = frames.to_ase(index)
    atoms.positions = positions[frames.offsets[index] : frames.offsets[index + 1]]
    return atoms


def test_no_constraints_cost_nothing_and_change_nothing():
    frames, constraints = _make([], [ETHANOL, WATER])
    vectors = _noise(frames.positions.shape)
    assert not constraints
    np.testing.assert_array_equal(constraints.project(frames.positions, vectors), vectors)
    positions, failed = constraints.correct(frames.positions)
    np.testing.assert_array_equal(positions, frames.positions)
    assert failed.tolist() == [False, False]


def test_fixed_atoms_and_components():
    frames, constraints = _make(
        [{'kind': 'atoms', 'atoms': [1, 0]}, {'kind': 'components', 'atoms': [2], 'components': 'zx'}], [WATER, WATER]
    )
    vectors = _noise(frames.positions.shape)
    left = constraints.project(frames.positions, vectors)
    expected = vectors.reshape(2, 3, 3).copy()
    expected[:, :2] = 0
    expected[:, 2, [0, 2]] = 0
    np.testing.assert_array_equal(left.reshape(2, 3, 3), expected)
    assert constraints and not constraints.free.all()


def test_a_projected_step_changes_no_constrained_value():
    """To first order; and what the projection takes away is all that does, so that it is as near as can be."""
    frames, constraints = _make(MIXED, [ETHANOL, WATER, ETHANOL])
    vectors = _noise(frames.positions.shape)
    left = constraints.project(frames.positions, vectors)
    np.testing.assert_allclose(constraints.project(frames.positions, left), left, atol=1e-12)
    step = 1e-4
    for index in range(3):
        before, after = (_atoms(frames, frames.positions + s * left, index) for s in (-step, step))
        assert before.get_distance(0, 1) == pytest.approx(after.get_distance(0, 1), abs=1e-9)
        assert before.get_angle(1, 0, 2) == pytest.approx(after.get_angle(1, 0, 2), abs=1e-7)
    # An orthogonal projector of the right rank: the trace is the number of free directions.
    basis = np.eye(frames.positions.size).reshape(-1, *frames.positions.shape)
    matrix = np.array([constraints.project(frames.positions, row).ravel() for row in basis])
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.trace(matrix) == pytest.approx(frames.positions.size - 3 * 2 - 2 * 3 - 2)


def test_projection_as_in_ase():
    """FixInternals takes the same part of the forces away, in each frame of a batch.

    It takes the net force and torque, too: they are left out of the comparison.
    """
    structures = [ETHANOL.copy() for _ in range(3)]
    for number, atoms in enumerate(structures):
        atoms.positions += _noise((9, 3), 0.1, seed=number)
    specs = [
        {'kind': 'bond', 'atoms': [0, 1]},
        {'kind': 'angle', 'atoms': [0, 1, 2]},
        {'kind': 'dihedral', 'atoms': [0, 1, 2, 3]},
    ]
    frames, constraints = _make(specs, structures)
    forces = _noise(frames.positions.shape, seed=9)
    left = constraints.project(frames.positions, forces).reshape(3, 9, 3)
    for index, atoms in enumerate(structures):
        # Without masses ASE weighs by 1/sqrt(m); equal ones make its projection the orthogonal one.
        atoms.set_masses(np.ones(9))
        fix = FixInternals(
            bonds=[[atoms.get_distance(0, 1), [0, 1]]],
            angles_deg=[[atoms.get_angle(0, 1, 2), [0, 1, 2]]],
            dihedrals_deg=[[atoms.get_dihedral(0, 1, 2, 3), [0, 1, 2, 3]]],
        )
        fix.initialize(atoms)
        expected = forces.reshape(3, 9, 3)[index].copy()
        fix.adjust_forces(atoms, expected)
        rigid = np.array(
            [np.tile(axis, 9) for axis in np.eye(3)] + [np.cross(axis, atoms.positions).ravel() for axis in np.eye(3)]
        )
        basis = np.linalg.qr(rigid.T)[0]
        mine = left[index].ravel()
        np.testing.assert_allclose(mine - basis @ (basis.T @ mine), expected.ravel(), atol=1e-8)


def test_many_steps_keep_initial_values():
    frames, constraints = _make(MIXED, [ETHANOL, WATER, ETHANOL])
    positions = frames.positions
    for number in range(20):
        step = constraints.project(positions, _noise(positions.shape, 0.1, seed=number))
        positions, failed = constraints.correct(positions + step)
        assert not failed.any()
    assert np.abs(positions - frames.positions).max() > 0.2
    for index, atoms in enumerate(frames):
        now = _atoms(frames, positions, index)
        assert now.get_distance(0, 1) == pytest.approx(atoms.get_distance(0, 1), abs=1e-7)
        assert now.get_angle(1, 0, 2) == pytest.approx(atoms.get_angle(1, 0, 2), abs=1e-5)
    np.testing.assert_array_equal(positions[[2, 14]], frames.positions[[2, 14]])
    np.testing.assert_array_equal(positions[9, 1:], frames.positions[9, 1:])


def test_values_are_reached_all_together():
    """A scan: each structure is driven to its own dihedral, and all to one bond length and one angle."""
    wanted = [-180.0, -90.0, 0.0, 60.0, 179.0, 300.0]
    specs = [
        {'kind': 'dihedral', 'atoms': [0, 1, 2, 3], 'value': value, 'structures': [number]}
        for number, value in enumerate(wanted)
    ]
    specs += [{'kind': 'bond', 'atoms': [1, 2], 'value': 1.9}, {'kind': 'angle', 'atoms': [0, 1, 2], 'value': 125}]
    frames, constraints = _make(specs, [ETHANOL] * 6)
    positions, failed = constraints.correct(frames.positions)
    assert not failed.any()
    for index, value in enumerate(wanted):
        atoms = _atoms(frames, positions, index)
        assert (atoms.get_dihedral(0, 1, 2, 3) - value + 180) % 360 - 180 == pytest.approx(0, abs=1e-5)
        assert atoms.get_distance(1, 2) == pytest.approx(1.9)
        assert atoms.get_angle(0, 1, 2) == pytest.approx(125)
        assert atoms.get_distance(2, 3) == pytest.approx(ETHANOL.get_distance(2, 3), abs=1e-3), 'O-H went along'


def test_a_ring_is_driven_without_breaking():
    """Nothing hangs on either end: the atoms themselves go there, in small steps."""
    frames, constraints = _make([{'kind': 'dihedral', 'atoms': [0, 1, 2, 3], 'value': 20.0}], [molecule('C6H6')])
    positions, failed = constraints.correct(frames.positions)
    atoms = _atoms(frames, positions, 0)
    assert not failed.any()
    assert atoms.get_dihedral(0, 1, 2, 3) == pytest.approx(20.0)
    assert atoms.get_distance(1, 2) == pytest.approx(1.395, abs=0.1)


def test_redundant_constraints():
    """All distances and angles of water, and the three angles of a planar molecule: more than there is to fix."""
    triangle = [{'kind': 'bond', 'atoms': list(pair)} for pair in ((0, 1), (0, 2), (1, 2))]
    angles = [{'kind': 'angle', 'atoms': list(item)} for item in ((1, 0, 2), (0, 1, 2), (0, 2, 1))]
    frames, constraints = _make(triangle + angles, [WATER, WATER])
    vectors = _noise(frames.positions.shape)
    left = constraints.project(frames.positions, vectors)
    # What remains is rigid: of 9 directions 3 are fixed.
    basis = np.eye(18).reshape(-1, 6, 3)
    assert sum(constraints.project(frames.positions, v).ravel() @ v.ravel() for v in basis) == pytest.approx(12)
    positions, failed = constraints.correct(frames.positions + 0.05 * left)
    assert not failed.any()
    assert _atoms(frames, positions, 1).get_distance(1, 2) == pytest.approx(WATER.get_distance(1, 2))
    planar = molecule('BF3')
    specs = [{'kind': 'angle', 'atoms': list(item)} for item in ((1, 0, 2), (2, 0, 3), (3, 0, 1))]
    frames, constraints = _make(specs, [planar])
    positions, failed = constraints.correct(frames.positions + _noise((4, 3), 0.02))
    assert not failed.any()
    assert _atoms(frames, positions, 0).get_angle(1, 0, 2) == pytest.approx(120, abs=1e-4)


def test_fixed_atoms_stay_when_a_bond_is_corrected():
    specs = [{'kind': 'atoms', 'atoms': [0]}, {'kind': 'bond', 'atoms': [0, 1], 'value': 1.3}]
    frames, constraints = _make(specs, [WATER])
    positions, failed = constraints.correct(frames.positions)
    assert not failed.any()
    np.testing.assert_array_equal(positions[0], frames.positions[0])
    assert _atoms(frames, positions, 0).get_distance(0, 1) == pytest.approx(1.3)


def test_one_impossible_frame_does_not_hold_up_the_others():
    specs = [
        {'kind': 'bond', 'atoms': [0, 1], 'value': 1.0},
        {'kind': 'bond', 'atoms': [0, 2], 'value': 1.0},
        {'kind': 'bond', 'atoms': [1, 2], 'value': 3.0, 'structures': [1]},
    ]
    frames, constraints = _make(specs, [WATER] * 3)
    positions, failed = constraints.correct(frames.positions)
    assert failed.tolist() == [False, True, False]
    assert np.isfinite(positions).all()
    assert _atoms(frames, positions, 2).get_distance(0, 2) == pytest.approx(1.0)


def test_an_angle_that_became_straight_fails_alone():
    frames, constraints = _make([{'kind': 'angle', 'atoms': [1, 0, 2]}], [WATER, WATER])
    positions = frames.positions.copy()
    positions[:3] = [[0, 0, 0], [1, 0, 0], [-1, 0, 0]]
    corrected, failed = constraints.correct(positions)
    assert failed.tolist() == [True, False]
    assert np.isfinite(constraints.project(positions, _noise(positions.shape))).all()
    np.testing.assert_allclose(corrected[3:], frames.positions[3:], atol=1e-12)


def test_in_a_crystal_the_nearest_image_counts():
    """A molecule over the border of a skewed cell, its atoms in far images."""
    cell = np.array([[4.0, 0, 0], [1.0, 4.0, 0], [0, -0.8, 5.0]])
    atoms = Atoms(
        'HF', [[0.3, 0.1, 0.2], [0.3 - 0.5, 0.1, 0.9]] + np.array([[0, 0, 0], [3, -2, 1]]) @ cell, cell=cell, pbc=True
    )
    frames, constraints = _make([{'kind': 'bond', 'atoms': [1, 0], 'value': 1.1}], [atoms])
    positions, failed = constraints.correct(frames.positions)
    assert not failed.any()
    assert _atoms(frames, positions, 0).get_distance(0, 1, mic=True) == pytest.approx(1.1)
    assert np.abs(positions - frames.positions).max() < 0.2


def test_initial_values_are_those_of_the_job():
    """After a restart positions are others, but what is kept is what the job began with."""
    frames, constraints = _make([{'kind': 'bond', 'atoms': [0, 1]}], [WATER])
    positions, _ = constraints.correct(frames.positions * 1.3)
    assert _atoms(frames, positions, 0).get_distance(0, 1) == pytest.approx(WATER.get_distance(0, 1))


def test_select_is_the_same_as_made_anew():
    specs = [
        *MIXED,
        {'kind': 'dihedral', 'atoms': [0, 1, 2, 3], 'value': 100, 'structures': [0, 2, 4]},
        {'kind': 'bond', 'atoms': [0, 2], 'value': 1.1},
    ]
    structures = [ETHANOL, WATER, ETHANOL, WATER, ETHANOL]
    frames, constraints = _make(specs, structures)
    for places in ([4, 1, 2], [3], [], [1, 3, 0, 2, 4]):
        chosen = np.array(places, dtype=int)
        part = frames.select(chosen)
        anew, selected = Constraints(specs, part, chosen), constraints.select(places)
        positions = part.positions + _noise(part.positions.shape, 0.05)
        vectors = _noise(positions.shape, seed=3)
        np.testing.assert_allclose(selected.project(positions, vectors), anew.project(positions, vectors), atol=1e-12)
        for mine, expected in zip(selected.correct(positions), anew.correct(positions), strict=True):
            np.testing.assert_allclose(mine, expected, atol=1e-12)
        again = selected.select(np.arange(len(places))[::-1])
        assert bool(again) == bool(selected) == bool(places)


def test_a_constrained_minimum_is_that_of_ase():
    """Steepest descent with our constraints and BFGS with ASE's end in one place."""
    start = Atoms('Cu4', [[0, 0, 0], [2.4, 0, 0], [1.2, 2.2, 0.1], [1.3, 0.8, 2.0]])
    frames, constraints = _make([{'kind': 'bond', 'atoms': [0, 1], 'value': 2.9}], [start])
    positions, _ = constraints.correct(frames.positions)
    atoms = start.copy()
    atoms.calc = EMT()
    for _ in range(300):
        atoms.positions = positions
        step = 0.05 * constraints.project(positions, atoms.get_forces())
        positions, failed = constraints.correct(positions + step)
        assert not failed.any()
    reference = start.copy()
    reference.set_distance(0, 1, 2.9)
    reference.calc = EMT()
    reference.set_constraint(FixInternals(bonds=[[2.9, [0, 1]]]))
    assert BFGS(reference, logfile=None).run(fmax=1e-4, steps=300)
    assert atoms.get_potential_energy() == pytest.approx(reference.get_potential_energy(), abs=1e-6)
    assert atoms.get_distance(2, 3) == pytest.approx(reference.get_distance(2, 3), abs=1e-3)


def test_problems_by_frame():
    """One sentence for each frame that is not as the constraints need it; the others have none."""
    straight = molecule('CO2')
    nan = WATER.copy()
    nan.positions[0, 0] = np.nan
    structures = [WATER, straight, ETHANOL, nan, Atoms('H2', [[0, 0, 0], [0, 0, 0.7]])]
    specs = [{'kind': 'angle', 'atoms': [1, 0, 2]}]
    found = Constraints.problems(specs, Frames.from_ase(structures))
    assert set(found) == {1, 4}
    assert found[1].startswith('the angle constraint on the atoms 1, 0, 2 is not defined: its atoms lie in a line')
    assert found[4] == 'constraint 0 (angle) names atom 2, but there are only 2, from 0 on'
    assert Constraints.problems([], Frames.from_ase(structures)) == {}


@pytest.mark.parametrize(
    ('first', 'second', 'doubled'),
    [
        ({'kind': 'bond', 'atoms': [0, 1]}, {'kind': 'bond', 'atoms': [1, 0], 'value': 1.0}, True),
        ({'kind': 'angle', 'atoms': [0, 1, 2]}, {'kind': 'angle', 'atoms': [2, 1, 0]}, True),
        ({'kind': 'angle', 'atoms': [0, 1, 2]}, {'kind': 'angle', 'atoms': [1, 0, 2]}, False),
        ({'kind': 'dihedral', 'atoms': [3, 2, 1, 0]}, {'kind': 'dihedral', 'atoms': [0, 1, 2, 3]}, True),
        ({'kind': 'bond', 'atoms': [0, 1]}, {'kind': 'angle', 'atoms': [0, 1, 2]}, False),
        ({'kind': 'bond', 'atoms': [0, 1], 'structures': [1]}, {'kind': 'bond', 'atoms': [0, 1]}, False),
        ({'kind': 'atoms', 'atoms': [0, 1]}, {'kind': 'atoms', 'atoms': [1]}, False),
    ],
)
def test_one_coordinate_constrained_twice(first, second, doubled):
    found = Constraints.problems([first, second], Frames.from_ase([ETHANOL]))
    assert bool(found) == doubled
    if doubled:
        assert 'is there twice' in found[0]


def test_values_that_exclude_each_other():
    bonds = [
        {'kind': 'bond', 'atoms': list(pair), 'value': d} for pair, d in (((0, 1), 1.0), ((0, 2), 1.0), ((1, 2), 3.0))
    ]
    fixed = [{'kind': 'atoms', 'atoms': [0, 1]}, {'kind': 'bond', 'atoms': [0, 1], 'value': 2.0, 'structures': [1]}]
    frames = Frames.from_ase([WATER, WATER])
    assert set(Constraints.problems(bonds, frames)) == {0, 1}
    assert Constraints.problems(fixed, frames) == {
        1: 'the values of the constraints cannot be met together: change or leave out some'
    }
