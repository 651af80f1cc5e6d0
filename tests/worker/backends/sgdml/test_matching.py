"""Finding which atom is which from bonds, with violations, twins and limits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.sgdml import matching
from aiida_mlpotential.worker.backends.sgdml.matching import (
    Pattern,
    SearchLimitError,
    automorphisms,
    fewest_violations,
    find_mapping,
)


def _relation(n_atoms: int, *bonds: tuple[int, int], either: tuple[tuple[int, int], ...] = ()) -> np.ndarray:
    relation = np.full((n_atoms, n_atoms), -1, dtype=np.int8)
    np.fill_diagonal(relation, 0)
    for first, second in bonds:
        relation[first, second] = relation[second, first] = 1
    for first, second in either:
        relation[first, second] = relation[second, first] = 0
    return relation


# C0-C1, C1-O2, O2-H3, C1-H4, C1-H5, C0-H6, C0-H7, C0-H8
ETHANOL = Pattern(
    np.array([6, 6, 8, 1, 1, 1, 1, 1, 1]),
    _relation(9, (0, 1), (1, 2), (2, 3), (1, 4), (1, 5), (0, 6), (0, 7), (0, 8)),
)


def _permuted(pattern: Pattern, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers and states of the structure whose atom i is the atom ``order[i]`` of the pattern."""
    return pattern.numbers[order], pattern.relation[np.ix_(order, order)]


def test_any_order_is_found() -> None:
    """The mapping restores the pattern, whatever the order of the structure."""
    random = np.random.default_rng(3)
    for _ in range(50):
        numbers, states = _permuted(ETHANOL, random.permutation(9))
        mapping = find_mapping(ETHANOL, numbers, states, 1)
        assert mapping is not None
        assert np.array_equal(numbers[mapping], ETHANOL.numbers)
        assert np.array_equal(states[np.ix_(mapping, mapping)], ETHANOL.relation)


@pytest.mark.parametrize('pair', [(3, 6), (3, 8), (5, 7), (4, 8), (0, 1)])
def test_few_atoms_are_moved(pair) -> None:
    """Atoms that are where they belong stay there."""
    order = np.arange(9)
    order[list(pair)] = pair[::-1]
    numbers, states = _permuted(ETHANOL, order)
    mapping = find_mapping(ETHANOL, numbers, states, 12)
    assert mapping is not None
    assert mapping.tolist() == order.tolist()


def test_violations_are_counted_and_minimal() -> None:
    """The best order is as good as the best of all permutations, also for a structure that is broken."""
    pattern = Pattern(np.array([6, 8, 1, 1, 1]), _relation(5, (0, 1), (1, 2), (0, 3), (0, 4), either=((2, 3),)))
    random = np.random.default_rng(5)
    worse = 0
    for _ in range(60):
        upper = np.triu(random.integers(-1, 2, size=(5, 5)), 1)
        states = (upper + upper.T).astype(np.int8)
        orders = [list(order) for order in itertools.permutations(range(5)) if order[0] == 0 and order[1] == 1]
        costs = [int(pattern.violations(states[np.ix_(order, order)][None])[0]) for order in orders]
        given = int(pattern.violations(states[None])[0])
        bound = fewest_violations(pattern, pattern.numbers, states)
        assert bound <= min(costs)
        mapping = find_mapping(pattern, pattern.numbers, states, given)
        if min(costs) == given:
            assert mapping is None
        else:
            worse += 1
            assert mapping is not None
            assert pattern.violations(states[np.ix_(mapping, mapping)][None])[0] == min(costs)
    assert worse > 10


def test_a_stretched_bond_needs_no_search(monkeypatch) -> None:
    """The bonds between each two elements tell that no order mends it."""
    states = ETHANOL.relation.copy()
    states[2, 3] = states[3, 2] = -1
    assert fewest_violations(ETHANOL, ETHANOL.numbers, states) == 1
    monkeypatch.setattr(matching, '_mappings', None)
    assert find_mapping(ETHANOL, ETHANOL.numbers, states, 1) is None


def test_the_bound_counts_pairs_once() -> None:
    """A bond within an element is one violation, not two, and a pair in between is none."""
    pattern = Pattern(np.array([6, 6, 6]), _relation(3, (0, 1), (1, 2)))
    states = _relation(3, (0, 1))
    assert fewest_violations(pattern, pattern.numbers, states) == 1
    assert fewest_violations(pattern, pattern.numbers, _relation(3, (0, 1), either=((1, 2),))) == 0
    assert fewest_violations(pattern, pattern.numbers, _relation(3, (0, 1), (1, 2), (0, 2))) == 1


def test_twins() -> None:
    """Hydrogens of one carbon are twins, those of two are not."""
    twins = ETHANOL.twins
    assert twins[6, 7]
    assert twins[4, 5]
    assert not twins[4, 6]
    assert not twins[3, 4]


def test_automorphisms() -> None:
    """Ethanol has 2 x 6, the identity first; above a limit there are none."""
    found = automorphisms(ETHANOL, 100)
    assert found is not None
    assert len(np.unique(found, axis=0)) == len(found) == 12
    assert found[0].tolist() == list(range(9))
    assert all(np.array_equal(ETHANOL.relation[np.ix_(order, order)], ETHANOL.relation) for order in found)
    assert automorphisms(ETHANOL, 11) is None


def test_limits(monkeypatch) -> None:
    """A search that takes too long is given up, and that is not taken for an answer."""
    monkeypatch.setattr(matching, 'MAX_STEPS', 3)
    numbers, states = _permuted(ETHANOL, np.array([0, 1, 2, 6, 4, 5, 3, 7, 8]))
    with pytest.raises(SearchLimitError):
        find_mapping(ETHANOL, numbers, states, 4)
    monkeypatch.setattr(matching, 'MAX_STEPS', 0)
    assert automorphisms(ETHANOL, 100) is None


def test_a_large_molecule_is_quick() -> None:
    """Many methyl groups do not multiply the work: their hydrogens are twins."""
    bonds, numbers = [], [6] * 20
    bonds += [(index, index + 1) for index in range(19)]
    for carbon in range(20):
        for _ in range(3 if carbon in (0, 19) else 2):
            bonds.append((carbon, len(numbers)))
            numbers.append(1)
    pattern = Pattern(np.array(numbers), _relation(len(numbers), *bonds))
    states = pattern.relation.copy()
    for first, second, value in ((5, 6, -1), (30, 31, 1)):  # broken in a way that no order mends
        states[first, second] = states[second, first] = value
    order = np.random.default_rng(7).permutation(len(numbers))
    mapping = find_mapping(pattern, pattern.numbers[order], states[np.ix_(order, order)], 5)
    assert mapping is not None
    placed = states[np.ix_(order, order)][np.ix_(mapping, mapping)]
    assert pattern.violations(placed[None])[0] == 2
