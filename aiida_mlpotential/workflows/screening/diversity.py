"""Choice of structures for reference calculations: those of which a model is least sure, and no two alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from aiida import orm
from aiida.engine import calcfunction

from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.frames import FloatArray, Frames, IntArray
from aiida_mlpotential.worker.neighbors import find_half_pairs

#: The most uncertain structures among which a choice is made: so many for each one that is chosen.
POOL_FACTOR = 20
#: Reach and number of the bins of distances, angstrom.
CUTOFF, N_BINS = 6.0, 24
#: Atoms whose pairs are looked for at once.
_BATCH_ATOMS = 20_000
#: Structures whose descriptions are no farther apart are the same: turned ones differ by the rounding of coordinates.
SAME = 1e-6


def describe(frames: Frames) -> FloatArray:
    """Return how often which elements are how far apart, for each structure: the same however it is turned or numbered.

    Distances of each pair of elements are sorted into overlapping bins and divided by the number of atoms; the counts
    of the elements stand beside them. This is the partial radial distribution of Schuett et al., Phys. Rev. B 89
    (2014) 205118, DOI 10.1103/PhysRevB.89.205118, without its normalisation by volume, so that it suits molecules, too.

    :return: ``(n, elements + pairs of elements * bins)``
    """
    present, kind = np.unique(frames.numbers, return_inverse=True)
    kind = kind.reshape(-1)
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


def farthest_points(points: FloatArray, number: int) -> IntArray:
    """Return points that are far from each other: the first one, then always the one farthest from those chosen.

    Gonzalez, Theor. Comput. Sci. 38 (1985) 293, DOI 10.1016/0304-3975(85)90224-5.

    :param points: ``(n, d)``
    :return: fewer than asked for where all others are equal to chosen ones
    """
    chosen = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < min(number, len(points)):
        farthest = int(np.argmax(distance))
        if distance[farthest] <= SAME:
            break
        chosen.append(farthest)
        distance = np.minimum(distance, np.linalg.norm(points - points[farthest], axis=1))
    return np.array(chosen, dtype=np.int64)


def choose(frames: Frames, uncertainty: FloatArray, number: int) -> IntArray:
    """Return the numbers of the most uncertain structures no two of which are alike, the most uncertain one first.

    :param uncertainty: ``(n,)``; NaN where it is not known, and the structure not to be chosen
    :param number: of structures to choose; fewer are returned where there are no more that differ
    """
    known = np.flatnonzero(np.isfinite(uncertainty))
    pool = known[np.argsort(-uncertainty[known], kind='stable')][: number * POOL_FACTOR]
    if not len(pool):
        return pool
    return pool[farthest_points(describe(frames.select(pool)), number)]


@calcfunction
def select_structures(structures: StructureSetData, ranking: orm.ArrayData, number: orm.Int) -> StructureSetData | None:
    """Return the structures of which the models are least sure, no two alike, for reference calculations.

    Flagged structures come before all others. The label of each ends with its number in the set.

    :param structures: the whole set
    :param ranking: see ``rank_structures``
    :param number: of structures
    """
    frames = structures.get_frames()
    uncertainty = np.array(ranking.get_array('uncertainty'))
    flagged = ranking.get_array('flagged')
    if flagged.sum() >= number.value:
        uncertainty[~flagged] = np.nan
    chosen = choose(frames, uncertainty, number.value)
    labels = tuple(f'{frames.labels[index]} #{index}'.strip() if frames.labels else f'#{index}' for index in chosen)
    return StructureSetData.from_frames(dataclasses.replace(frames.select(chosen), labels=labels))
