"""Tells apart structures that have the same bonds and differ in which of two equal atoms is on which side.

Inverse distances, and with them an sGDML model, do not see a mirror image: the handedness of one centre alone means
nothing. That of two centres relative to each other does. Exchange the two hydrogens of the CH2 group of ethanol, and
no rotation, mirror or turn of the methyl group leads back to the training points: the model extrapolates and does not
say so. Thermal motion never inverts a centre of four bonds, so this is safe where distances to training points are not.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ...frames import BoolArray, FloatArray, IntArray
from .files import pairs
from .matching import Pattern

Signs = npt.NDArray[np.int8]

#: Training points that are looked at.
_SAMPLE = 100
#: Volume spanned by the four neighbours, over that of a cube with the same edges, under which a centre counts as flat;
#: 0.71 in a regular tetrahedron.
_FLAT = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Handedness:
    """Centres of four bonds whose handedness relative to each other is the same in all training points.

    :ivar neighbors: the atoms bonded to each of C centres, ``(C, 4)``
    :ivar signs: handedness of each relative to the first, ``(C,)``
    :ivar flippable: whether a centre has two atoms that only their place tells apart, ``(C,)``
    :ivar twins: these two, ``(C, 2)``
    """

    neighbors: IntArray
    signs: Signs
    flippable: BoolArray
    twins: IntArray

    @classmethod
    def learn(cls, pattern: Pattern, descriptors: FloatArray, permutations: IntArray) -> Handedness:
        """Find the centres and their handedness in the training points.

        :param descriptors: inverse distances, ``(T, N (N - 1) / 2)``
        :param permutations: orders that the model takes for equal, ``(K, N)``
        """
        bonded = pattern.relation == 1
        centres = np.flatnonzero(bonded.sum(axis=1) == 4)
        neighbors = np.array([np.flatnonzero(bonded[centre]) for centre in centres], dtype=np.int64).reshape(-1, 4)
        if len(centres) > 1:
            step = -(-len(descriptors) // _SAMPLE)
            points = embed(descriptors[::step])
            # One permutation after the other: with many of them all at once would be large.
            signs = np.concatenate([_signs(points[:, order], neighbors) for order in permutations])
            chosen, relative = _constant(signs)
        else:
            chosen, relative = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int8)
        twins = np.zeros((len(chosen), 2), dtype=np.int64)
        flippable = np.zeros(len(chosen), dtype=bool)
        for index, atoms in enumerate(neighbors[chosen]):
            first, second = np.nonzero(np.triu(pattern.twins[np.ix_(atoms, atoms)], 1))
            if len(first):
                flippable[index], twins[index] = True, (atoms[first[0]], atoms[second[0]])
        return cls(neighbors[chosen], relative, flippable, twins)

    def mismatches(self, positions: FloatArray) -> IntArray:
        """Return how many centres have the wrong handedness, ``(...)``, for positions ``(..., N, 3)``."""
        products = self._products(positions)
        fewer: IntArray = np.minimum((products < 0).sum(axis=-1), (products > 0).sum(axis=-1))
        return fewer

    def mendable(self, positions: FloatArray) -> BoolArray:
        """Return whether there are fewer wrong centres when twins change places, ``(...)``.

        Where there are not, it is another stereoisomer, and the order of its atoms is no worse than any other.
        """
        products = self._products(positions)
        fixed = ~self.flippable
        best = np.minimum(((products < 0) & fixed).sum(axis=-1), ((products > 0) & fixed).sum(axis=-1))
        return np.asarray(best < self.mismatches(positions))

    def _products(self, positions: FloatArray) -> Signs:
        products: Signs = _signs(positions, self.neighbors) * self.signs
        return products

    def explain(self, positions: FloatArray) -> str:
        """Return which atoms of one mendable structure, ``(N, 3)``, should change places."""
        products = self._products(positions)
        sides = [products < 0, products > 0]
        wrong = min(sides, key=lambda side: (int((side & ~self.flippable).sum()), int(side.sum())))
        return ', '.join(f'{first} and {second}' for first, second in self.twins[wrong & self.flippable])


def embed(descriptors: FloatArray) -> FloatArray:
    """Return positions ``(T, N, 3)`` with given inverse distances ``(T, N (N - 1) / 2)``, each or its mirror image.

    :source: classical multidimensional scaling: Torgerson, Psychometrika 17 (1952) 401, doi:10.1007/BF02288916
    """
    n_atoms = round((1 + np.sqrt(1 + 8 * descriptors.shape[1])) / 2)
    first, second = pairs(n_atoms)
    squares = np.zeros((len(descriptors), n_atoms, n_atoms))
    squares[:, first, second] = squares[:, second, first] = descriptors**-2
    means = squares.mean(axis=1)
    gram = -(squares - means[:, None, :] - means[:, :, None] + means.mean(axis=1)[:, None, None]) / 2
    values, vectors = np.linalg.eigh(gram)
    result: FloatArray = vectors[:, :, -3:] * np.sqrt(np.maximum(values[:, None, -3:], 0.0))
    return result


def _signs(positions: FloatArray, neighbors: IntArray) -> Signs:
    """Return the handedness of centres, ``(..., C)``: 1, -1, or 0 for flat ones."""
    corners = positions[..., neighbors, :]
    edges = corners[..., 1:, :] - corners[..., :1, :]
    lengths = np.linalg.norm(edges, axis=-1).prod(axis=-1)
    volumes = np.linalg.det(edges) / np.maximum(lengths, np.finfo(np.float64).tiny)  # atoms may coincide
    signs: Signs = (np.sign(volumes) * (np.abs(volumes) > _FLAT)).astype(np.int8)
    return signs


def _constant(signs: Signs) -> tuple[IntArray, Signs]:
    """Return the largest set of centres whose products with one of them never change, and these products."""
    best, best_signs = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int8)
    for centre in range(signs.shape[1]):
        products = signs[:, [centre]] * signs
        positive, negative = (products > 0).mean(axis=0), (products < 0).mean(axis=0)
        members = np.flatnonzero(((positive == 0) | (negative == 0)) & (positive + negative > 0.5))
        if len(members) > max(1, len(best)):
            best, best_signs = members, np.where(positive > 0, 1, -1)[members].astype(np.int8)
    return best, best_signs
