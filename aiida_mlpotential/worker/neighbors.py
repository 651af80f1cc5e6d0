"""Find the neighbour pairs of many structures at once, without padding, for models with a short cutoff.

The pairs are *half* pairs: of ``(i, j)`` and ``(j, i)`` only one is returned. In a periodic structure a pair of atoms
may occur several times with different images, and an atom may be paired with its own images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

#: Up to this many atoms all pairs of a molecule are tried; above it a k-d tree finds them without N^2 memory.
ALL_PAIRS_LIMIT = 300


@dataclass(frozen=True)
class HalfPairs:
    """Pairs of atoms within the cutoff, each of them once, ordered by structure kind rather than by structure.

    :param first: index of the one atom in the flat batch, shape ``(n_pairs,)``
    :param second: index of the other atom, shape ``(n_pairs,)``
    :param shifts: lattice translations of the second atom, integer, shape ``(n_pairs, 3)``
    :param vectors: ``positions[second] + shifts @ cell - positions[first]``, shape ``(n_pairs, 3)``, angstrom
    :param distances: their lengths, shape ``(n_pairs,)``, angstrom
    """

    first: Ints
    second: Ints
    shifts: Ints
    vectors: Floats
    distances: Floats

    def __len__(self) -> int:
        return len(self.first)


def ragged_triangle(sizes: Ints) -> tuple[Ints, Ints]:
    """All pairs ``p < q`` within each of many consecutive groups.

    :param sizes: number of members of each group, shape ``(n_groups,)``; members are numbered through
    :return: numbers of both members of every pair, ordered by the first and then the second
    """
    total = int(sizes.sum())
    members = np.arange(total, dtype=np.int64)
    later = np.repeat(np.cumsum(sizes), sizes) - members - 1
    first = np.repeat(members, later)
    starts = np.cumsum(later) - later
    second = np.arange(len(first), dtype=np.int64) + np.repeat(members + 1 - starts, later)
    return first, second


def find_half_pairs(positions: Floats, offsets: Ints, cells: Floats, pbc: Bools, cutoff: float) -> HalfPairs:
    """All pairs of atoms of the same structure that are within the cutoff of each other.

    :param positions: all atoms of all structures, shape ``(n_atoms, 3)``, angstrom; they may lie outside the cell
    :param offsets: structure ``k`` holds the atoms ``offsets[k]:offsets[k + 1]``, shape ``(n + 1,)``
    :param cells: cell vectors as rows, shape ``(n, 3, 3)``, angstrom; those of directions that are not periodic
        are not looked at
    :param pbc: whether each direction is periodic, shape ``(n, 3)``
    :param cutoff: largest distance, angstrom; a pair exactly at it counts
    :raises ValueError: if the cell vectors of the periodic directions are linearly dependent
    """
    sizes = np.diff(offsets)
    periodic = cast('Bools', pbc.any(axis=1))
    small = ~periodic & (sizes <= ALL_PAIRS_LIMIT)
    parts = [_all_pairs(positions, offsets[:-1][small], sizes[small], cutoff)]
    for index in np.flatnonzero(~small):
        begin, end = int(offsets[index]), int(offsets[index + 1])
        if periodic[index]:
            part = _periodic_pairs(positions[begin:end], cells[index], pbc[index], cutoff)
        else:
            part = _tree_pairs(positions[begin:end], cutoff)
        parts.append(HalfPairs(part.first + begin, part.second + begin, part.shifts, part.vectors, part.distances))
    if len(parts) == 1:
        return parts[0]
    return HalfPairs(
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.second for part in parts]),
        np.concatenate([part.shifts for part in parts]),
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.distances for part in parts]),
    )


def _all_pairs(positions: Floats, starts: Ints, sizes: Ints, cutoff: float) -> HalfPairs:
    """Pairs of many small molecules by trying all of them at once."""
    first, second = ragged_triangle(sizes)
    if int(sizes.sum()) != len(positions):
        atoms = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()), dtype=np.int64)
        first, second = atoms[first], atoms[second]
    return _screened(positions, first, second, cutoff)


def _screened(positions: Floats, first: Ints, second: Ints, cutoff: float) -> HalfPairs:
    """The candidates without a periodic image that are within the cutoff."""
    vectors = positions.take(second, axis=0)
    vectors -= positions.take(first, axis=0)
    distances = np.sqrt(np.einsum('pc,pc->p', vectors, vectors))
    near = np.flatnonzero(distances <= cutoff)
    if len(near) != len(first):
        first, second = first.take(near), second.take(near)
        vectors, distances = vectors.take(near, axis=0), distances.take(near)
    return HalfPairs(first, second, np.zeros((len(first), 3), dtype=np.int64), vectors, distances)


def _tree_pairs(positions: Floats, cutoff: float) -> HalfPairs:
    """Pairs of one large molecule, with memory that grows with the number of pairs."""
    from scipy.spatial import cKDTree

    # A slightly larger radius: the tree rounds differently from the distances that decide.
    candidates = cKDTree(positions).query_pairs(cutoff * (1 + 1e-9), output_type='ndarray')
    order = np.lexsort((candidates[:, 1], candidates[:, 0]))
    first, second = candidates[order].astype(np.int64).T
    return _screened(positions, np.ascontiguousarray(first), np.ascontiguousarray(second), cutoff)


def _periodic_pairs(positions: Floats, cell: Floats, pbc: Bools, cutoff: float) -> HalfPairs:
    """Pairs of one structure that is periodic in at least one direction."""
    from ase.neighborlist import primitive_neighbor_list

    search: Any = primitive_neighbor_list
    full, operation = _reduced(_completed(cell, pbc), pbc)
    # Wrapping first keeps the search bins few however far atoms have drifted; the shifts are put right below.
    fractional = np.linalg.solve(full.T, positions.T).T
    home = np.where(pbc, np.floor(fractional), 0.0)
    wrapped = positions - home @ full
    first, second, shifts = search('ijS', pbc, full, wrapped, cutoff * (1 + 1e-9))
    upper = _is_upper(first, second, shifts)
    first, second = first[upper].astype(np.int64), second[upper].astype(np.int64)
    shifts = shifts[upper].astype(np.int64)
    vectors = wrapped[second] - wrapped[first] + shifts @ full
    distances = np.sqrt(np.einsum('pc,pc->p', vectors, vectors))
    near = np.flatnonzero(distances <= cutoff)
    first, second = first[near], second[near]
    shifts = (shifts[near] + (home[first] - home[second]).astype(np.int64)) @ operation
    return HalfPairs(first, second, shifts, vectors[near], distances[near])


def _is_upper(first: Ints, second: Ints, shifts: Ints) -> Bools:
    """Which of two mirrored pairs to keep: ``first < second``, or for an atom's own image a shift leading upwards."""
    leading = np.where(shifts[:, 0] != 0, shifts[:, 0], np.where(shifts[:, 1] != 0, shifts[:, 1], shifts[:, 2]))
    upper: Bools = (first < second) | ((first == second) & (leading > 0))
    return upper


def _completed(cell: Floats, pbc: Bools) -> Floats:
    """The cell with unit vectors, perpendicular to the periodic ones, in the directions that are not periodic.

    What a structure carries there (often nothing, or the height of a vacuum) must not change the pairs.
    """
    vectors = cell[pbc]
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.all(lengths > 0) or np.linalg.svd(vectors / lengths[:, None], compute_uv=False)[-1] < 1e-6:
        raise ValueError('The cell vectors of the periodic directions are linearly dependent.')
    full = np.zeros((3, 3))
    full[pbc] = vectors
    missing = 3 - len(vectors)
    if missing:
        # The right singular vectors beyond the rank span what is perpendicular to all periodic vectors.
        full[~pbc] = np.linalg.svd(vectors, full_matrices=True)[2][-missing:]
    return full


def _reduced(cell: Floats, pbc: Bools) -> tuple[Floats, Ints]:
    """The cell in its most compact form, if it is so skewed that the search would try images without end.

    :return: the cell, and the integers that make it of the given one: ``operation @ given = cell``
    """
    from ase.geometry import minkowski_reduce

    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    if heights.min() > 1.0:
        return cell, np.eye(3, dtype=np.int64)
    reduced, operation = minkowski_reduce(cell, pbc)  # type: ignore[no-untyped-call]
    return np.asarray(reduced), np.asarray(operation, dtype=np.int64)


def shortest_period(cell: Floats, pbc: Bools) -> float:
    """The shortest translation that a periodic structure has, angstrom; 0 for linearly dependent vectors."""
    try:
        full = _completed(cell, pbc)
    except ValueError:
        return 0.0
    return float(np.linalg.norm(_reduced(full, pbc)[0][pbc], axis=1).min())


def preload() -> None:
    """Import the libraries of large and periodic structures now, not when the first of them comes along."""
    import scipy.spatial  # noqa: F401
