"""Sees to it that the atoms of a structure stand where an sGDML model expects them; it does not look itself.

The bonds of the training points tell which atom is which, the handedness of tetrahedral centres tells apart atoms that
have the same bonds, and what is left (such as the hydrogens of a methyl group that the model does not take for equal)
is decided by the nearest training point, measured as the model measures it: by inverse distances.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from ...frames import FloatArray, IntArray
from .files import SgdmlModel, descriptor_orders, pairs
from .handedness import Handedness
from .matching import Pattern, SearchLimitError, States, automorphisms, find_mapping

#: Distance over the sum of the covalent radii up to which training points count as bonded, and up to (from) which a
#: structure does (does not): a pair in between contradicts nothing, so that vibrations rarely do.
_BONDED, _SURELY_BONDED, _SURELY_APART = 1.3, 1.2, 1.4
#: Violations that are accepted where the order of the elements already has to be changed.
_MAX_VIOLATIONS = 6
#: Orders with the same bonds among which a choice is made, and numbers in one array while it is.
_MAX_ORDERS, _CHUNK = 5000, 4 << 20
#: Atoms may coincide, angstrom.
_TINY = 1e-6
#: Results of searches that are kept.
_MAX_KEPT = 10000
#: Shortest distance over the sum of the covalent radii that a molecule has in the right unit.
_UNIT_RANGE = (0.65, 1.5)
_NOBLE_GASES = (2, 10, 18, 36, 54, 86)


class OrderError(Exception):
    """A structure whose atoms are in an order that the model cannot be used with."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index
        self.message = message


class AtomOrder:
    """The order of the atoms of a model."""

    def __init__(self, model: SgdmlModel, angstrom: float) -> None:
        """Learn the bonds and the handedness of the training points.

        :param angstrom: the model's unit of distance in angstrom
        """
        self.numbers = model.numbers
        self._permutations = model.permutations
        self._first, self._second = pairs(len(self.numbers))
        self._radii = _radii(self.numbers)
        self._training = model.descriptors / angstrom
        self.pattern = Pattern(self.numbers, self._learn_relation())
        self._kept: dict[bytes, IntArray | None] = {}

    def check(self, positions: FloatArray) -> None:
        """Make sure that the atoms of structures with the model's elements in its order are not in each other's places.

        What no other order fits better is left as it is: a stretched bond, a reaction, another stereoisomer.

        :param positions: angstrom, ``(n, N, 3)``
        :raises OrderError: for the first structure that another order fits better
        """
        states = self._states(np.broadcast_to(self.numbers, positions.shape[:2]), positions)
        for index in np.flatnonzero(self.pattern.violations(states)):
            mapping = self._find(int(index), self.numbers, states[index])
            if mapping is not None:
                moved = np.flatnonzero(mapping != np.arange(len(mapping)))
                raise OrderError(
                    int(index),
                    f'the elements are in the order of the model, but the atoms {_listed(moved)} (counted from 0) are '
                    f'bonded as others of their element: put {_listed(mapping[moved])} in their places, '
                    'or set `reorder_atoms`',
                )
        for index in np.flatnonzero(self._handedness.mendable(positions)):
            raise OrderError(
                int(index),
                f"the atoms {self._handedness.explain(positions[index])} (counted from 0) are on each other's side of "
                'their neighbour, unlike in the training set: exchange them, or set `reorder_atoms`',
            )

    def assign(self, numbers: IntArray, positions: FloatArray) -> IntArray:
        """Return for each structure which of its atoms is each atom of the model, ``(n, N)``.

        :param numbers: atomic numbers, those of the model in any order, ``(n, N)``
        :param positions: angstrom, ``(n, N, 3)``
        :raises OrderError: for the first structure for which that cannot be told
        """
        states = self._states(numbers, positions)
        same = np.all(numbers == self.numbers, axis=1)
        fits = same & (self.pattern.violations(states) == 0)
        orders = np.tile(np.arange(len(self.numbers)), (len(numbers), 1))
        for index in np.flatnonzero(~fits):
            mapping = self._find(int(index), numbers[index], states[index])
            if mapping is not None:
                orders[index] = mapping
            elif not same[index]:
                raise OrderError(int(index), 'the bonds are not those of the training set, so the order of the atoms '
                                 'cannot be found out: sort them')  # fmt: skip
        return self._choose(orders, positions)

    @functools.cached_property
    def _handedness(self) -> Handedness:
        return Handedness.learn(self.pattern, self._training, self._permutations)

    def wrong_unit(self) -> float | None:
        """Return how far apart the nearest atoms of the training set are, in covalent bonds, if that cannot be."""
        typical = np.median(1 / self._training, axis=0) / self._radii[self._first, self._second]
        shortest = int(np.argmin(typical))
        if np.isin(self.numbers[[self._first[shortest], self._second[shortest]]], _NOBLE_GASES).any():
            return None
        low, high = _UNIT_RANGE
        return None if low < typical[shortest] < high else float(typical[shortest])

    def _learn_relation(self) -> States:
        """Return which pairs are bonded in all (1), none (-1), some (0) of the training points; equal atoms alike."""
        bonded = 1 / self._training < _BONDED * self._radii[self._first, self._second]
        always, never = np.all(bonded, axis=0), np.all(~bonded, axis=0)
        orders = descriptor_orders(self._permutations)
        always, never = np.all(always[orders], axis=0), np.all(never[orders], axis=0)
        relation = np.zeros((len(self.numbers),) * 2, dtype=np.int8)
        relation[self._first, self._second] = relation[self._second, self._first] = always.astype(np.int8) - never
        return relation

    def _states(self, numbers: IntArray, positions: FloatArray) -> States:
        """Return which pairs are bonded, ``(n, N, N)``: 1, -1 for those that are not, 0 in between."""
        radii = _radii(numbers)
        distances = np.zeros(radii.shape)
        apart = np.linalg.norm(positions[:, self._first] - positions[:, self._second], axis=2)
        distances[:, self._first, self._second] = distances[:, self._second, self._first] = apart
        states = (distances < _SURELY_BONDED * radii).astype(np.int8) - (distances > _SURELY_APART * radii)
        diagonal = np.arange(len(self.numbers))
        states[:, diagonal, diagonal] = 0
        return np.asarray(states, dtype=np.int8)

    def _find(self, index: int, numbers: IntArray, states: States) -> IntArray | None:
        """Return the order that fits better than the given one, or ``None``; each kind of structure is done once."""
        key = numbers.astype(np.int64).tobytes() + states.tobytes()
        if key not in self._kept:
            below = _MAX_VIOLATIONS + 1
            if np.array_equal(numbers, self.numbers):
                below = int(self.pattern.violations(states[None])[0])
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            try:
                self._kept[key] = find_mapping(self.pattern, numbers, states, below)
            except SearchLimitError:
                raise OrderError(
                    index,
                    'the bonds are not those of the training set, and whether another order of the atoms fits better '
                    'could not be found out in a reasonable time: compare it with the training set',
                ) from None
        return self._kept[key]

    @functools.cached_property
    def _equivalents(self) -> IntArray | None:
        """Return the orders with the same bonds of which the model takes no two for equal; ``None`` if too many."""
        found = automorphisms(self.pattern, _MAX_ORDERS)
        if found is None:
            return None
        seen: set[bytes] = set()
        kept = []
        for order in found:  # the identity comes first, and stands for what is equal to it
            if order.tobytes() not in seen:
                kept.append(order)
                seen.update(np.ascontiguousarray(equal).tobytes() for equal in order[self._permutations])
        return np.array(kept)

    @functools.cached_property
    def _permuted_training(self) -> FloatArray:
        """Return the descriptors of the training points in all orders that the model takes for equal, ``(T K, P)``."""
        orders = descriptor_orders(self._permutations)
        return self._training[:, orders].reshape(-1, self._training.shape[1])

    def _choose(self, orders: IntArray, positions: FloatArray) -> IntArray:
        """Replace orders by those with the same bonds that have the handedness of the training set and are nearest."""
        equivalents = self._equivalents
        if equivalents is None:
            moved = np.flatnonzero((orders != np.arange(orders.shape[1])).any(axis=1))
            if len(moved):
                message = f'over {_MAX_ORDERS} orders of the atoms have these bonds, too many to choose from: sort them'
                raise OrderError(int(moved[0]), message)
            self.check(positions)
            return orders
        if len(equivalents) == 1:
            return orders
        result: IntArray = orders.copy()
        size = len(equivalents) * max(len(self._first), 12 * len(self._handedness.signs))
        step = max(1, _CHUNK // size)
        for begin in range(0, len(orders), step):
            chunk = slice(begin, begin + step)
            result[chunk] = self._choose_nearest(orders[chunk][:, equivalents], positions[chunk])
        return result

    def _choose_nearest(self, candidates: IntArray, positions: FloatArray) -> IntArray:
        """Return one of the candidates for each structure: ``(n, C, N)`` to ``(n, N)``."""
        frames = np.arange(len(positions))
        placed = positions[frames[:, None, None], candidates]
        wrong = self._handedness.mismatches(placed)
        possible = wrong == wrong.min(axis=1, keepdims=True)
        chosen = np.argmax(possible, axis=1)
        frame, candidate = np.nonzero(possible & (possible.sum(axis=1) > 1)[:, None])
        if len(frame):
            atoms = placed[frame, candidate]
            lengths = np.linalg.norm(atoms[:, self._first] - atoms[:, self._second], axis=2)
            descriptors = 1 / np.maximum(lengths, _TINY)
            distances = np.full(possible.shape, np.inf)
            distances[frame, candidate] = self._to_training(descriptors)
            distances[:, 0] -= 1e-9  # the given order where it is as good
            undecided = np.unique(frame)
            chosen[undecided] = np.argmin(distances[undecided], axis=1)
        return np.asarray(candidates[frames, chosen])

    def _to_training(self, descriptors: FloatArray) -> FloatArray:
        """Return the distance of each descriptor to the nearest training point, ``(m,)``."""
        training = self._permuted_training
        squares = np.sum(training**2, axis=1)
        step = max(1, _CHUNK // len(training))
        nearest = np.empty(len(descriptors))
        for begin in range(0, len(descriptors), step):
            part = descriptors[begin : begin + step]
            nearest[begin : begin + step] = np.min(squares - 2 * part @ training.T, axis=1) + np.sum(part**2, axis=1)
        return np.sqrt(np.maximum(nearest, 0.0))


def _radii(numbers: npt.NDArray[np.int64]) -> FloatArray:
    """Return the sums of the covalent radii of all pairs, ``(..., N, N)``, angstrom."""
    from ase.data import covalent_radii

    radii = np.asarray(covalent_radii)[numbers]
    result: FloatArray = radii[..., :, None] + radii[..., None, :]
    return result


def _listed(atoms: IntArray) -> str:
    return ' '.join(str(atom) for atom in atoms)
