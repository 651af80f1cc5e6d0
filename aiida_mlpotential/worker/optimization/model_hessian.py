"""A cheap guess of the second derivatives from which LBFGS starts: stiff bonds, soft contacts, and what is between.

A multiple of 1, the usual guess, holds for bonds of 30 eV/angstrom^2 as for torsions of a hundredth of that. Springs
between near atoms instead halve the number of steps of organic molecules and of clusters of water.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

from ..frames import BoolArray, FloatArray, Frames, IntArray
from ..neighbors import find_half_pairs
from .rows import Rows

#: eV/angstrom^2: a single bond at the sum of the covalent radii, as a spring.
STIFFNESS = 35.0
#: How fast a spring gets softer with the distance over the sum of the radii.
DECAY = 3.0
#: eV/angstrom^2: what every atom has in addition, so that free motions are not too free.
GROUND = 5.0
#: Neighbours with which an atom still has whole bonds; with more (metals) they share, and each is softer.
FULL_BONDS = 4.0
#: angstrom: farther neighbours do not count.
_CUTOFF = 5.0
#: Atoms of the largest frame that has a matrix: its inverse costs the third power of this.
LARGEST = 150
#: Matrices are filled up to a multiple of so many rows, so that frames of like size are done together.
_WIDTH = 24
#: angstrom: a matrix is made anew when an atom has moved by more. Not the length of a limited step, 0.2 as a rule: then
#: rounding would decide, and with it what else is in the batch.
STALE = 0.19


class ModelHessian:
    """The inverses of the guesses for the frames of a pool, by their size.

    Larger frames have none: for them the guess is a multiple of 1.
    """

    def __init__(self) -> None:
        #: Places of the frames in the pool, and inverses ``(g, W, W)``, by W.
        self._groups: dict[int, tuple[IntArray, FloatArray]] = {}
        self._size = 0

    def join(self, counts: IntArray) -> None:
        """Make room for new frames behind those that are there."""
        widths = _widths(counts)
        for width in np.unique(widths[counts <= LARGEST]):
            new = self._size + np.flatnonzero((widths == width) & (counts <= LARGEST))
            places, inverses = self._groups.get(int(width), (np.zeros(0, np.int64), np.zeros((0, width, width))))
            room = np.zeros((len(new), width, width))
            self._groups[int(width)] = np.concatenate([places, new]), np.concatenate([inverses, room])
        self._size += len(counts)

    def keep(self, frames: BoolArray) -> None:
        """Drop all frames but the given ones."""
        renumbered = np.cumsum(frames) - 1
        for width, (places, inverses) in list(self._groups.items()):
            kept = frames[places]
            self._groups[width] = renumbered[places[kept]], inverses[kept]
        self._size = int(frames.sum())

    def update(self, frames: Frames, stale: BoolArray, held: BoolArray) -> None:
        """Make the matrices of some frames anew.

        :param frames: where they are now
        :param stale: which frames, ``(n,)``
        :param held: which Cartesian components are fixed, ``(A, 3)``
        """
        for width, (places, inverses) in self._groups.items():
            old = np.flatnonzero(stale[places])
            if len(old):
                chosen = places[old]
                fixed = held[frames.atom_indices(chosen)]
                inverses[old] = np.linalg.inv(_matrices(frames.select(chosen), width, fixed))

    def apply(self, rows: Rows, vectors: FloatArray, result: FloatArray) -> None:
        """Put the inverses times the rows of the atoms in the place of the result, where a frame has a matrix.

        :param vectors: ``(R, 3)``
        :param result: ``(R, 3)``, changed
        """
        for width, (places, inverses) in self._groups.items():
            if not len(places):
                continue
            counts = rows.counts[places]
            local = np.arange(width // 3)
            inside = local < counts[:, None]
            at = (rows.starts[places][:, None] + local)[inside]
            padded = np.zeros((len(places), width // 3, 3))
            padded[inside] = vectors[at]
            product = inverses @ padded.reshape(len(places), width, 1)
            result[at] = product.reshape(len(places), width // 3, 3)[inside]


def _widths(counts: IntArray) -> IntArray:
    return np.asarray(-(-3 * counts // _WIDTH) * _WIDTH)


@functools.cache
def _radii() -> FloatArray:
    from ase.data import covalent_radii

    return np.asarray(covalent_radii)


def _matrices(frames: Frames, width: int, held: BoolArray) -> FloatArray:
    """Return the matrix of each frame, filled up with 1 on the diagonal, ``(n, W, W)``, eV/angstrom^2."""
    pairs = find_half_pairs(frames.positions, frames.offsets, frames.cells, frames.pbc, _CUTOFF)
    first, second = pairs.first, pairs.second
    radii = _radii()[np.minimum(frames.numbers, len(_radii()) - 1)]
    ratio = pairs.distances / (radii[first] + radii[second])
    strength = np.minimum(np.exp(-DECAY * (ratio - 1)), 2.0)
    bonds = np.bincount(first, strength, frames.n_atoms) + np.bincount(second, strength, frames.n_atoms)
    shared = np.minimum(1.0, FULL_BONDS / np.maximum(bonds, 1e-10))
    springs = STIFFNESS * strength * shared[first] * shared[second]
    units = pairs.vectors / np.maximum(pairs.distances, 1e-10)[:, None]
    blocks = springs[:, None, None] * units[:, :, None] * units[:, None, :]
    frame = frames.frame_of_atom
    local = np.arange(frames.n_atoms) - frames.offsets[frame]
    axes = np.arange(3)
    rows = (frame[first] * width + 3 * local[first])[:, None, None] + axes[:, None]
    places = rows * width + (3 * local[second])[:, None, None] + axes
    half = np.bincount(places.ravel(), -blocks.ravel(), len(frames) * width**2).astype(np.float64)  # also of no pairs
    half = half.reshape(len(frames), width, width)
    matrices = half + half.swapaxes(1, 2)
    own = np.zeros((len(frames), width // 3, 3, 3))
    for a, b in itertools.product(axes, axes):
        weights = blocks[:, a, b]
        sums = np.bincount(first, weights, frames.n_atoms) + np.bincount(second, weights, frames.n_atoms)
        own[frame, local, a, b] = sums
    own[:, :, axes, axes] += _grounds(frames, held, width)
    blocked = matrices.reshape(len(frames), width // 3, 3, width // 3, 3)
    atoms = np.arange(width // 3)
    blocked[:, atoms, :, atoms] += own.swapaxes(0, 1)
    return np.asarray(matrices)


def _grounds(frames: Frames, held: BoolArray, width: int) -> FloatArray:
    """Return what is added to the diagonal, ``(n, W / 3, 3)``: 1 where a matrix is filled up."""
    result = np.ones((len(frames), width // 3, 3))
    frame = frames.frame_of_atom
    result[frame, np.arange(frames.n_atoms) - frames.offsets[frame]] = np.where(held, 1e6, GROUND)
    return result
