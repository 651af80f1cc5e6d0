"""Finds which atom of a structure is which atom of a model, from the pairs that are bonded.

A pattern says of each pair of the model's atoms whether it is always bonded (1), never (-1), or now so, now so (0); a
structure says of its own pairs whether they are bonded (1), not (-1), or in between (0). A pair where the two
contradict each other is a violation. The search is a depth-first one in the manner of VF2 (Cordella et al., IEEE
Trans. Pattern Anal. Mach. Intell. 26 (2004) 1367, doi:10.1109/TPAMI.2004.75) that may leave a number of violations.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ...frames import BoolArray, IntArray

States = npt.NDArray[np.int8]

#: Bonds up to which the surroundings of atoms are compared, to try the likely ones first.
_SHELLS = 4
#: Steps after which a search is given up; each takes about 20 microseconds.
MAX_STEPS = 20000


class SearchLimitError(Exception):
    """The search took too many steps."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pattern:
    """Elements and bonds of a model: atomic numbers ``(N,)``, relation of each pair ``(N, N)``, zero with itself."""

    numbers: IntArray
    relation: States

    @functools.cached_property
    def twins(self) -> BoolArray:
        """Return which atoms can stand for each other without any other being moved, as hydrogens of a methyl group."""
        atoms = np.arange(len(self.numbers))
        result: BoolArray = self.numbers[:, None] == self.numbers
        for atom in atoms:
            different = self.relation != self.relation[atom]
            different[:, atom] = different[atoms, atoms] = False
            result[atom] &= ~different.any(axis=1)
        return result

    @functools.cached_property
    def sequence(self) -> IntArray:
        """Return the atoms in an order in which each is bonded to one before it where that is possible."""
        bonded = self.relation == 1
        rarity = np.array([np.sum(self.numbers == number) for number in self.numbers])
        degrees = bonded.sum(axis=1)
        chosen: list[int] = []
        left = set(range(len(self.numbers)))
        while left:
            following = min(left, key=lambda v: (-int(bonded[v, chosen].sum()), -int(degrees[v]), int(rarity[v]), v))
            chosen.append(following)
            left.remove(following)
        return np.array(chosen, dtype=np.int64)

    def violations(self, states: States) -> IntArray:
        """Return the number of pairs that contradict the pattern, ``(n,)``, for states ``(n, N, N)`` in its order."""
        found: IntArray = np.sum(self.relation * states == -1, axis=(-2, -1)) // 2
        return found


def find_mapping(pattern: Pattern, numbers: IntArray, states: States, below: int) -> IntArray | None:
    """Return the order of a structure's atoms with the fewest violations, ``(N,)``, if these are fewer than ``below``.

    :param numbers: atomic numbers of the structure, those of the pattern in any order, ``(N,)``
    :param states: of its pairs, ``(N, N)``
    :return: the index in the structure of each atom of the pattern
    :raises SearchLimitError: if that cannot be found out in a reasonable time
    """
    for budget in range(fewest_violations(pattern, numbers, states), below):
        for mapping in _mappings(pattern, numbers, states, budget):
            return _settle(pattern, mapping)
    return None


def _settle(pattern: Pattern, mapping: IntArray) -> IntArray:
    """Return the mapping with twins exchanged so that as many atoms as possible stay where they are."""
    settled: IntArray = mapping.copy()
    for atom in range(len(mapping)):
        group = np.flatnonzero(pattern.twins[atom])
        if group[0] == atom:
            images = mapping[group]
            stays = np.isin(group, images)
            settled[group[stays]] = group[stays]
            settled[group[~stays]] = images[~np.isin(images, group)]
    return settled


def fewest_violations(pattern: Pattern, numbers: IntArray, states: States) -> int:
    """Return a lower bound on the violations in any order, from the bonds between each two elements.

    A stretched bond is what it says: no order of the atoms mends it, and no search is needed to know that.
    """
    elements = np.unique(pattern.numbers)
    total = 0
    for index, first in enumerate(elements):
        for second in elements[: index + 1]:
            wanted = pattern.relation[np.ix_(pattern.numbers == first, pattern.numbers == second)]
            present = states[np.ix_(numbers == first, numbers == second)]
            # Pairs within an element are counted from both ends, as is the diagonal, which is zero.
            each = 2 if first == second else 1
            diagonal = int(np.sum(numbers == first)) if first == second else 0
            always, either = int(np.sum(wanted == 1)), int(np.sum(wanted == 0)) - diagonal
            bonded, between = int(np.sum(present == 1)), int(np.sum(present == 0)) - diagonal
            total += (max(0, always - bonded - between) + max(0, bonded - always - either)) // each
    return total


def automorphisms(pattern: Pattern, limit: int) -> IntArray | None:
    """Return all orders that leave the pattern as it is, the identity first, ``(G, N)``; ``None`` above the limit."""
    found: list[IntArray] = []
    try:
        for mapping in _mappings(pattern, pattern.numbers, pattern.relation, 0, exact=True):
            if len(found) == limit:
                return None
            found.append(mapping)
    except SearchLimitError:
        return None
    return np.array(found)


def _mappings(
    pattern: Pattern, numbers: IntArray, states: States, budget: int, exact: bool = False
) -> Iterator[IntArray]:
    """Yield orders of the atoms with at most so many violations, those first that leave atoms where they are.

    Of orders that differ by an exchange of twins only that is given in which these keep their sequence; ``exact`` gives
    all of them, and asks that the states are the relation rather than that they do not contradict it.
    """
    n_atoms = len(numbers)
    mapping = np.full(n_atoms, -1, dtype=np.int64)
    used = np.zeros(n_atoms, dtype=bool)
    sequence = pattern.sequence
    surroundings = _surroundings(pattern.numbers, pattern.relation), _surroundings(numbers, states)
    unlike = np.abs(surroundings[0][:, None] - surroundings[1]).sum(axis=2)

    def candidates(depth: int, cost: int) -> Iterator[tuple[int, int]]:
        atom, placed = sequence[depth], sequence[:depth]
        free = (numbers == pattern.numbers[atom]) & ~used
        if not exact:
            twins = placed[pattern.twins[atom, placed]]
            free[: max(mapping[twins[twins < atom]], default=-1) + 1] = False
            free[min(mapping[twins[twins > atom]], default=n_atoms) :] = False
        choices = np.flatnonzero(free)
        relation, present = pattern.relation[atom, placed], states[choices][:, mapping[placed]]
        wrong = relation != present if exact else relation * present == -1
        costs = cost + wrong.sum(axis=1)
        ranked = np.lexsort((choices, choices != atom, unlike[atom, choices], costs))
        return iter([(int(choices[i]), int(costs[i])) for i in ranked if costs[i] <= budget])

    stack = [candidates(0, 0)]
    steps = 0
    while stack:
        steps += 1
        if steps > (MAX_STEPS * 10 if exact else MAX_STEPS):
            raise SearchLimitError
        atom = sequence[len(stack) - 1]
        if mapping[atom] >= 0:
            used[mapping[atom]] = False
            mapping[atom] = -1
        following = next(stack[-1], None)
        if following is None:
            stack.pop()
            continue
        mapping[atom] = following[0]
        used[following[0]] = True
        if len(stack) == n_atoms:
            yield mapping.copy()
        else:
            stack.append(candidates(len(stack), following[1]))


def _surroundings(numbers: IntArray, states: States) -> IntArray:
    """Return how many atoms of each element are one, two ... bonds away from each atom, ``(N, shells * elements)``."""
    bonded = (states == 1).astype(np.int64)
    kinds = (numbers[:, None] == np.unique(numbers)).astype(np.int64)
    reached = shell = np.eye(len(numbers), dtype=np.int64)
    counts = []
    for _ in range(_SHELLS):
        shell = ((shell @ bonded > 0) & (reached == 0)).astype(np.int64)
        reached = reached + shell
        counts.append(shell @ kinds)
    return np.concatenate(counts, axis=1)
