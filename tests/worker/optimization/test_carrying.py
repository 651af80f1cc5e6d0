"""Far targets: what hangs on the end of a coordinate goes along as a rigid part."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization.carrying import carry
from aiida_mlpotential.worker.optimization.internals import ANGLE, BOND, DIHEDRAL, Internals

BUTANE = molecule('trans-butane')
ETHANOL = molecule('CH3CH2OH')


def _carry(structures, kinds, atoms, change, movable=None):
    frames = Frames.from_ase(structures)
    flat = np.array([[*item, *item[:1] * (4 - len(item))] for item in atoms]) + frames.offsets[:-1, None]
    internals = Internals.of(np.array(kinds), flat, frames)
    free = np.ones(frames.n_atoms, dtype=bool) if movable is None else np.asarray(movable)
    before = internals.evaluate(frames.positions)[0]
    positions = carry(frames, frames.positions, internals, np.array(change), free)
    after = internals.evaluate(positions)[0]
    return frames, positions, internals.differences(after, before)


@pytest.mark.parametrize(
    ('kind', 'atoms', 'change'),
    [
        (BOND, [0, 1], 0.8),
        (BOND, [1, 0], -0.3),
        (ANGLE, [0, 1, 2], 0.5),
        (ANGLE, [2, 1, 0], -0.6),
        (DIHEDRAL, [0, 1, 2, 3], 1.0),
        (DIHEDRAL, [3, 2, 1, 0], -2.0),
        (DIHEDRAL, [6, 0, 1, 2], 0.7),
    ],
)
def test_the_coordinate_changes_as_asked_and_no_bond_does(kind, atoms, change):
    """In each of several molecules at once; both signs; ethanol's methyl, hydroxyl and ethyl groups."""
    _, positions, changed = _carry([ETHANOL] * 2, [kind] * 2, [atoms] * 2, [change, change / 2])
    np.testing.assert_allclose(changed, [change, change / 2], atol=1e-10)
    bonds = [(a, b) for a in range(9) for b in range(a) if ETHANOL.get_distance(a, b) < 1.6]
    moved = ETHANOL.copy()
    moved.positions = positions[:9]
    stretched = [pair for pair in bonds if abs(moved.get_distance(*pair) - ETHANOL.get_distance(*pair)) > 1e-9]
    assert stretched == ([(1, 0)] if kind == BOND else [])


def test_hydrogen_atoms_go_along():
    """Butane about its middle bond: half of the molecule turns, the other half stays where it is."""
    carbons = [i for i, z in enumerate(BUTANE.numbers) if z == 6]
    ends = [i for i in carbons if sum(BUTANE.get_distance(i, j) < 1.6 for j in carbons if j != i) == 1]
    middle = [next(j for j in carbons if j not in ends and BUTANE.get_distance(i, j) < 1.6) for i in ends]
    chain = [ends[0], middle[0], middle[1], ends[1]]
    _, positions, changed = _carry([BUTANE], [DIHEDRAL], [chain], [np.radians(120)])
    assert np.degrees(changed) == pytest.approx([120])
    turned = np.linalg.norm(positions - BUTANE.positions, axis=1) > 1e-9
    assert turned.sum() == 6  # CH3 and the two hydrogen atoms of its neighbour, which lies on the axis itself


def test_the_side_without_fixed_atoms_moves():
    movable = np.ones(9, dtype=bool)
    movable[3] = False  # the hydrogen atom of the hydroxyl group
    frames, positions, changed = _carry([ETHANOL], [DIHEDRAL], [[0, 1, 2, 3]], [0.9], movable)
    assert changed == pytest.approx([0.9])
    np.testing.assert_array_equal(positions[[1, 2, 3]], frames.positions[[1, 2, 3]])


def test_nothing_moves_between_fixed_atoms_or_in_a_ring_or_without_a_value():
    movable = np.ones(9 + 12 + 9, dtype=bool)
    movable[[0, 3]] = False
    frames, positions, _ = _carry(
        [ETHANOL, molecule('C6H6'), ETHANOL], [DIHEDRAL] * 3, [[0, 1, 2, 3]] * 3, [0.9, 0.9, np.nan], movable
    )
    np.testing.assert_array_equal(positions, frames.positions)


def test_two_molecules_are_moved_apart():
    """A distance between molecules: the whole second one goes."""
    pair = molecule('H2O') + molecule('H2O')
    pair.positions[3:, 2] += 3.5
    _, positions, changed = _carry([pair], [BOND], [[0, 3]], [2.0])
    assert changed == pytest.approx([2.0])
    np.testing.assert_allclose(positions - pair.positions, np.repeat([[0, 0, 0], [0, 0, 2.0]], 3, axis=0), atol=1e-12)
