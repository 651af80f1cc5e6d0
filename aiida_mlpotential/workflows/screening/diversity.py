"""Choice of structures for reference calculations: those of which a model is least sure, and no two alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from aiida import orm
from aiida.engine import calcfunction

from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.frames import BoolArray, FloatArray, Frames, IntArray
from aiida_mlpotential.worker.neighbors import find_half_pairs

#: Structures among which a choice is made at once: so many for each one that is wanted.
POOL_FACTOR = 20
#: Reach and number of the bins of distances, angstrom.
CUTOFF, N_BINS = 6.0, 24
#: Atoms whose pairs are looked for at once.
_BATCH_ATOMS = 20_000
#: Points whose distances are computed at once.
_BLOCK_POINTS = 128
#: Structures whose descriptions are no farther apart are the same: turned ones differ by the rounding of coordinates.
SAME = 1e-6


def describe(frames: Frames, elements: npt.NDArray[np.uint8] | None = None) -> FloatArray:
    """Return how often which elements are how far apart, for each structure: the same however it is turned or numbered.

    Distances of each pair of elements are sorted into overlapping bins and divided by the number of atoms; the counts
    of the elements stand beside them. This is the partial radial distribution of Schuett et al., Phys. Rev. B 89
    (2014) 205118, DOI 10.1103/PhysRevB.89.205118, without its normalisation by volume, so that it suits molecules, too.

    :param elements: the atomic numbers that columns stand for, sorted; by default those that occur
    :return: ``(n, elements + pairs of elements * bins)``
    """
    present = np.unique(frames.numbers) if elements is None else elements
    kind = np.searchsorted(present, frames.numbers)
    n_kinds = len(present)
    n_pairs = n_kinds * (n_kinds + 1) // 2
    result = np.zeros((len(frames), n_kinds + n_pairs * N_BINS))
    sizes = np.maximum(frames.counts, 1)[:, None]
    counts = np.bincount(frames.frame_of_atom * n_kinds + kind, minlength=len(frames) * n_kinds)
    result[:, :n_kinds] = counts.reshape(len(frames), n_kinds) / sizes
    for indices in _batches(frames):
        result[indices, n_kinds:] = _histogram(frames.select(indices), present, n_pairs)
    return result


def _batches(frames: Frames) -> list[IntArray]:
    """Return the numbers of the structures of batches of about equally many atoms."""
    borders = np.searchsorted(np.cumsum(frames.counts), np.arange(_BATCH_ATOMS, frames.n_atoms, _BATCH_ATOMS))
    pieces = np.split(np.arange(len(frames)), np.unique(borders + 1))
    return [piece for piece in pieces if len(piece)]


def _histogram(frames: Frames, present: npt.NDArray[np.uint8], n_pairs: int) -> FloatArray:
    """Return the histograms of the distances, ``(n, pairs of elements * bins)``, per atom."""
    pairs = find_half_pairs(frames.positions, frames.offsets, frames.cells, frames.pbc, CUTOFF)
    kind = np.searchsorted(present, frames.numbers)
    first, second = np.sort([kind[pairs.first], kind[pairs.second]], axis=0)
    pair = second * (second + 1) // 2 + first
    place = pairs.distances / CUTOFF * N_BINS - 0.5
    left = np.floor(place).astype(np.int64)
    # Each distance goes into the two nearest bins, so that a small motion is a small change; it fades at the cutoff.
    fade = 0.5 * (1.0 + np.cos(np.pi * pairs.distances / CUTOFF))
    frame = frames.frame_of_atom[pairs.first]
    result = np.zeros(len(frames) * n_pairs * N_BINS)
    for shift, weight in ((0, left + 1 - place), (1, place - left)):
        column = np.clip(left + shift, 0, N_BINS - 1)
        result += np.bincount((frame * n_pairs + pair) * N_BINS + column, weights=weight * fade, minlength=len(result))
    return result.reshape(len(frames), -1) / np.maximum(frames.counts, 1)[:, None]


def farthest_points(points: FloatArray, number: int, others: FloatArray | None = None) -> IntArray:
    """Return points that are far from each other: always the one that is farthest from those chosen before.

    The first of all points begins; of points that are equally far the first is taken. Gonzalez, Theor. Comput. Sci. 38
    (1985) 293, DOI 10.1016/0304-3975(85)90224-5.

    :param points: ``(n, d)``
    :param number: of points to choose
    :param others: points that were chosen before, ``(k, d)``; by default none
    :return: fewer than asked for where all others are equal to chosen ones
    """
    distance = np.full(len(points), np.inf)
    for other in () if others is None else others:
        distance = np.minimum(distance, _distances(points, other))
    chosen: list[int] = []
    while len(chosen) < min(number, len(points)):
        farthest = int(np.argmax(distance))
        if distance[farthest] <= SAME:
            break
        chosen.append(farthest)
        distance = np.minimum(distance, _distances(points, points[farthest]))
    return np.array(chosen, dtype=np.int64)


def _distances(points: FloatArray, point: FloatArray) -> FloatArray:
    """Return how far points are from one of them, ``(n,)``, in blocks that stay in the cache: five times as fast."""
    result = np.empty(len(points))
    for start in range(0, len(points), _BLOCK_POINTS):
        difference = points[start : start + _BLOCK_POINTS] - point
        result[start : start + _BLOCK_POINTS] = np.einsum('ij,ij->i', difference, difference)
    return np.sqrt(result)


def choose(frames: Frames, uncertainty: FloatArray, number: int, flagged: BoolArray | None = None) -> IntArray:
    """Return the numbers of the most uncertain structures no two of which are alike, in the order of their choice.

    The choice is made in pools of :data:`POOL_FACTOR` times as many structures as are wanted. The first pool has the
    most uncertain flagged ones, the next one those that come after them, and so on to the least uncertain one without a
    flag; a pool is looked at only if those before it do not have enough that differ. Of equally uncertain structures
    the one with the lower number comes first.

    :param uncertainty: ``(n,)``; NaN where it is not known, and the structure not to be chosen
    :param number: of structures to choose; fewer are returned where there are no more that differ
    :param flagged: the structures that come before all others, ``(n,)``; by default none does
    :return: the first one is the most uncertain one, of those with a flag if there are any
    """
    elements = np.unique(frames.numbers)
    chosen = np.zeros(0, dtype=np.int64)
    points = np.zeros((0, 0))
    for pool in _pools(uncertainty, number * POOL_FACTOR, flagged):
        described = describe(frames.select(pool), elements)
        found = farthest_points(described, number - len(chosen), points if len(points) else None)
        chosen = np.concatenate([chosen, pool[found]])
        points = np.concatenate([points, described[found]]) if len(points) else described[found]
        if len(chosen) == number:
            break
    return chosen


def _pools(uncertainty: FloatArray, size: int, flagged: BoolArray | None) -> Iterator[IntArray]:
    """Yield the numbers of structures among which to choose: first flagged ones, each time the most uncertain ones."""
    known = np.flatnonzero(np.isfinite(uncertainty))
    order = known[np.argsort(-uncertainty[known], kind='stable')]
    first = np.zeros(len(order), dtype=bool) if flagged is None else flagged[order]
    for group in (order[first], order[~first]):
        for start in range(0, len(group), size):
            yield group[start : start + size]


@calcfunction
def select_structures(structures: StructureSetData, ranking: orm.ArrayData, number: orm.Int) -> StructureSetData:
    """Return the structures of which the models are least sure, no two alike, for reference calculations.

    Flagged structures come before all others: one without a flag is chosen only where all that have one are chosen, or
    equal to chosen ones. The label of each ends with its number in the set.

    :param structures: the whole set
    :param ranking: see ``rank_structures``
    :param number: of structures; there are fewer where no more differ, or the spread of no more is known
    :raises ValueError: if the spread of no structure is known
    """
    frames = structures.get_frames()
    chosen = choose(frames, ranking.get_array('uncertainty'), number.value, ranking.get_array('flagged'))
    if not len(chosen):
        raise ValueError('no structure has a spread to go by: rank the results of an ensemble')
    labels = tuple(f'{frames.labels[index]} #{index}'.strip() if frames.labels else f'#{index}' for index in chosen)
    return StructureSetData.from_frames(dataclasses.replace(frames.select(chosen), labels=labels))
