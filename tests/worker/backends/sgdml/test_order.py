"""The order of the atoms: wrong ones are found, right ones left alone, and any is mended where that is asked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.sgdml import matching, order
from aiida_mlpotential.worker.backends.sgdml.files import descriptor_orders, read_model
from aiida_mlpotential.worker.backends.sgdml.order import AtomOrder, OrderError
from aiida_mlpotential.worker.units import BOHR

NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
SWAPS = [pair for pair in itertools.combinations(range(9), 2) if NUMBERS[pair[0]] == NUMBERS[pair[1]]]


def _swap(first: int, second: int) -> np.ndarray:
    order = np.arange(9)
    order[[first, second]] = second, first
    return order


@pytest.fixture
def atom_order(folder, variant) -> AtomOrder:
    """Return the order of a model, from training points in either unit."""
    angstrom = 1.0 if variant == 'ethanol_kcal_ang' else BOHR
    return AtomOrder(read_model(folder / f'{variant}.npz'), angstrom)


@pytest.fixture
def positions(ethanol) -> np.ndarray:
    """Return geometries in the order of the model, ``(4, 9, 3)``, angstrom."""
    return np.array([atoms.positions for atoms in ethanol])


@pytest.fixture
def shaken(positions) -> np.ndarray:
    """Return many strongly shaken geometries, ``(200, 9, 3)``."""
    random = np.random.default_rng(6)
    return np.tile(positions, (50, 1, 1)) + random.normal(scale=0.1, size=(200, 9, 3))


def test_pattern(atom_order) -> None:
    """The bonds of ethanol are learned from the training points."""
    bonds = {tuple(sorted(map(int, pair))) for pair in np.argwhere(atom_order.pattern.relation == 1)}
    assert bonds == {(0, 1), (1, 2), (2, 3), (1, 4), (1, 5), (0, 6), (0, 7), (0, 8)}


def test_right_orders_pass(atom_order, shaken) -> None:
    """Neither shaking nor a mirror nor what the model takes for equal is taken for a wrong order."""
    atom_order.check(shaken)
    atom_order.check(shaken * np.array([-1, 1, 1]))
    for permutation in atom_order._permutations:
        atom_order.check(shaken[:, permutation])


@pytest.mark.parametrize('pair', SWAPS, ids=str)
def test_every_swap_is_found(atom_order, shaken, pair) -> None:
    """No exchange of two equal atoms passes, not even of two hydrogens on one carbon, in any shaken geometry."""
    for geometry in shaken:
        with pytest.raises(OrderError) as caught:
            atom_order.check(geometry[_swap(*pair)][None])
        assert caught.value.index == 0
    assert 'set `reorder_atoms`' in caught.value.message


def test_messages(atom_order, positions) -> None:
    """The message names the atoms to exchange, and the structure where there are several."""
    wrong = positions.copy()
    wrong[2] = wrong[2][_swap(3, 6)]
    with pytest.raises(
        OrderError, match=r'the atoms 3 6 \(counted from 0\) are bonded as others .* put 6 3 in'
    ) as caught:
        atom_order.check(wrong)
    assert caught.value.index == 2
    with pytest.raises(OrderError, match=r'the atoms 4 and 5 .* on each other.s side'):
        atom_order.check(positions[:1, _swap(4, 5)])


def test_a_stretched_bond_passes(atom_order, positions) -> None:
    """A dissociating hydrogen is in the right order still, and so is a reaction that no order undoes."""
    far = positions[:1].copy()
    far[0, 3] += 1.5 * (far[0, 3] - far[0, 2])
    atom_order.check(far)
    assert atom_order.assign(NUMBERS[None], far).tolist() == [list(range(9))]


def test_a_stretched_bond_hides_no_swap(atom_order, positions) -> None:
    """Broken and in the wrong order is in the wrong order."""
    far = positions[:1].copy()
    far[0, 8] += 1.5 * (far[0, 8] - far[0, 0])
    atom_order.check(far)
    with pytest.raises(OrderError, match='the atoms 3 6'):
        atom_order.check(far[:, _swap(3, 6)])


def test_any_order_is_mended(atom_order, shaken) -> None:
    """Shuffled atoms are given the order of the model, up to what it takes for equal."""
    random = np.random.default_rng(8)
    shuffles = np.array([random.permutation(9) for _ in shaken])
    numbers = NUMBERS[shuffles]
    orders = atom_order.assign(numbers, np.take_along_axis(shaken, shuffles[..., None], axis=1))
    equal = {tuple(permutation) for permutation in atom_order._permutations}
    for shuffle, found in zip(shuffles, orders, strict=True):
        assert tuple(shuffle[found]) in equal


def test_given_orders_are_kept(atom_order, shaken) -> None:
    """Where the order is right already, nothing is moved."""
    orders = atom_order.assign(np.tile(NUMBERS, (len(shaken), 1)), shaken)
    assert np.array_equal(orders, np.tile(np.arange(9), (len(shaken), 1)))


def test_the_nearest_training_point_decides(folder, positions) -> None:
    """Of methyl hydrogens that the model does not take for equal, each goes where a training point has it."""
    model = read_model(folder / 'ethanol_kcal_ang.npz')
    model.__dict__['permutations'] = model.permutations[:1]  # the library found that they are equal: forget it
    atom_order = AtomOrder(model, 1.0)
    assert len(atom_order._equivalents) == 12
    points = order_positions(model, [3, 50, 100])
    for turn in ([6, 7, 8], [7, 8, 6], [8, 6, 7], [7, 6, 8]):
        shuffle = np.array([0, 1, 2, 3, 4, 5, *turn])
        found = atom_order.assign(np.tile(NUMBERS, (3, 1)), points[:, shuffle])
        assert np.array_equal(shuffle[found], np.tile(np.arange(9), (3, 1)))


def order_positions(model, chosen: list[int]) -> np.ndarray:
    """Return positions of some training points."""
    from aiida_mlpotential.worker.backends.sgdml.handedness import embed

    return embed(model.descriptors[chosen])


def test_distances_to_training_points(atom_order, monkeypatch) -> None:
    """Found in pieces or at once, they are those of all permuted training points."""
    training = atom_order._training
    queries = training[:7] + np.linspace(0, 0.1, 36)
    permuted = np.concatenate([training[:, entries] for entries in descriptor_orders(atom_order._permutations)])
    expected = np.linalg.norm(queries[:, None] - permuted[None], axis=2).min(axis=1)
    assert np.allclose(atom_order._to_training(queries), expected, atol=1e-7)
    monkeypatch.setattr(order, '_CHUNK', 1)
    assert np.allclose(atom_order._to_training(queries), expected, atol=1e-7)


def test_pieces(atom_order, shaken, monkeypatch) -> None:
    """A batch that is worked through in pieces gives the same."""
    numbers = np.tile(NUMBERS, (len(shaken), 1))
    swapped = shaken[:, _swap(4, 5)]
    whole = atom_order.assign(numbers, swapped)
    monkeypatch.setattr(order, '_CHUNK', 1)
    assert np.array_equal(atom_order.assign(numbers, swapped), whole)


def test_another_molecule_cannot_be_ordered(atom_order, positions) -> None:
    """Where the elements are not in order and no order fits the bonds, that is said."""
    scattered = np.random.default_rng(9).uniform(-20, 20, size=(1, 9, 3))
    with pytest.raises(OrderError, match='the bonds are not those of the training set'):
        atom_order.assign(NUMBERS[None, ::-1], scattered)
    assert atom_order.assign(NUMBERS[None], scattered).tolist() == [list(range(9))]


def test_searches_are_remembered(atom_order, positions, monkeypatch) -> None:
    """A thousand structures of one kind cost one search; what is remembered is bounded."""
    calls = []
    find = order.find_mapping
    monkeypatch.setattr(order, 'find_mapping', lambda *arguments: calls.append(1) or find(*arguments))
    swapped = np.repeat(positions[:1, _swap(3, 6)], 1000, axis=0)
    found = atom_order.assign(np.tile(NUMBERS, (1000, 1)), swapped)
    assert len(calls) == 1
    assert np.array_equal(found, np.tile(found[0], (1000, 1)))
    monkeypatch.setattr(order, '_MAX_KEPT', 1)
    atom_order.assign(NUMBERS[None], positions[:1, _swap(3, 7)])
    assert len(atom_order._kept) == 1


def test_what_cannot_be_found_out_is_not_accepted(atom_order, positions, monkeypatch) -> None:
    """A search that is given up is an error, not a yes."""
    monkeypatch.setattr(matching, 'MAX_STEPS', 2)
    with pytest.raises(OrderError, match='could not be found out in a reasonable time'):
        atom_order.check(positions[:1, _swap(3, 6)])


def test_too_many_equal_orders(atom_order, positions, monkeypatch) -> None:
    """Where there are too many to choose from, right orders pass and others are refused."""
    monkeypatch.setattr(order, '_MAX_ORDERS', 3)
    assert atom_order.assign(NUMBERS[None], positions[:1]).tolist() == [list(range(9))]
    with pytest.raises(OrderError, match='too many to choose from'):
        atom_order.assign(NUMBERS[None], positions[:1, _swap(3, 6)])
    with pytest.raises(OrderError, match='the atoms 4 and 5'):
        atom_order.assign(NUMBERS[None], positions[:1, _swap(4, 5)])


def test_wrong_units(folder) -> None:
    """Training points read in the wrong unit are impossible molecules; those of noble gases prove nothing."""
    in_angstrom = read_model(folder / 'ethanol_kcal_ang.npz')
    in_bohr = read_model(folder / 'ethanol_hartree_bohr.npz')
    assert AtomOrder(in_angstrom, 1.0).wrong_unit() is None
    assert AtomOrder(in_bohr, BOHR).wrong_unit() is None
    assert AtomOrder(in_angstrom, BOHR).wrong_unit() == pytest.approx(0.53, abs=0.05)
    assert AtomOrder(in_bohr, 1.0).wrong_unit() == pytest.approx(1.9, abs=0.1)
    in_bohr.numbers[:] = 18
    assert AtomOrder(in_bohr, 1.0).wrong_unit() is None


def test_what_is_remembered_is_of_the_same_elements(atom_order) -> None:
    """Equal bonds between other elements are another structure."""
    between = np.zeros((9, 9), dtype=np.int8)
    assert atom_order._find(0, NUMBERS, between) is None
    mapping = atom_order._find(0, NUMBERS[::-1], between)
    assert mapping is not None
    assert np.array_equal(NUMBERS[::-1][mapping], NUMBERS)
