"""Find atoms that came too close to each other, in all frames of a pool with one search: made to run every step."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..checks import close_pairs
from ..frames import FloatArray, Frames, IntArray

#: One of each two opposite translations to neighbouring cells: the other gives the same pairs.
_TRANSLATIONS = tuple(item for item in itertools.product((0, 1, -1), repeat=3) if item > (0, 0, 0))


def find_contacts(frames: Frames, distance: float) -> tuple[IntArray, IntArray, FloatArray]:
    """Return all pairs of atoms of the same frame within a short distance, and how far apart they are.

    What :func:`~..checks.close_pairs` returns, in another order, and faster for large frames: instead of all pairs of
    atoms one tree is searched, in which the frames lie apart from each other along a fourth dimension. Of the images
    in a crystal only those of atoms within the distance of a face of their cell are tried, so that cells narrower
    than twice the distance are left to the other.

    :param frames: with finite positions and cells
    """
    cells = _complete(frames)
    reciprocal = np.asarray(np.linalg.inv(cells), dtype=np.float64)
    margins = np.where(frames.pbc, distance * np.linalg.norm(reciprocal, axis=1), 0.0)
    wide = margins.max(axis=1, initial=0.0) < 0.5
    if wide.all():
        return _search(frames, cells, reciprocal, margins, distance)
    indices, rest = np.flatnonzero(wide), np.flatnonzero(~wide)
    found = _search(frames.select(indices), cells[indices], reciprocal[indices], margins[indices], distance)
    others = close_pairs(frames.select(rest), distance)
    atoms, other_atoms = frames.atom_indices(indices), frames.atom_indices(rest)
    return (
        np.concatenate([atoms[found[0]], other_atoms[others[0]]]),
        np.concatenate([atoms[found[1]], other_atoms[others[1]]]),
        np.concatenate([found[2], others[2]]),
    )


def _complete(frames: Frames) -> FloatArray:
    """Return cells of three independent vectors, ``(n, 3, 3)``: what lies along directions without period is free."""
    from ase.geometry import complete_cell

    complete: Any = complete_cell
    periodic = np.any(frames.pbc, axis=1)
    cells = np.where(periodic[:, None, None], frames.cells, np.eye(3))
    partly = periodic & ~frames.pbc.all(axis=1)
    for index in np.flatnonzero(partly & (np.abs(np.linalg.det(cells)) < 1e-3)):
        cells[index] = complete(np.where(frames.pbc[index][:, None], cells[index], 0.0))
    return np.asarray(cells)


def _search(
    frames: Frames, cells: FloatArray, reciprocal: FloatArray, margins: FloatArray, distance: float
) -> tuple[IntArray, IntArray, FloatArray]:
    from scipy.spatial import cKDTree

    frame = frames.frame_of_atom
    points, owner = frames.positions, np.arange(frames.n_atoms)
    if frames.pbc.any():
        points, images, image_owner = _images(frames, cells, reciprocal, margins)
        points, owner = np.concatenate([points, images]), np.concatenate([owner, image_owner])
    # A slightly larger radius: the tree rounds differently from the distances that decide.
    tree = cKDTree(np.column_stack([points, 4 * distance * frame[owner]]), balanced_tree=False, compact_nodes=False)
    pairs = tree.query_pairs(distance * (1 + 1e-9), output_type='ndarray').astype(np.int64)
    pairs = pairs[np.any(pairs < frames.n_atoms, axis=1)]  # two images belong to the pair of their atoms
    distances = np.linalg.norm(points[pairs[:, 1]] - points[pairs[:, 0]], axis=1)
    near = distances <= distance
    return owner[pairs[near, 0]], owner[pairs[near, 1]], distances[near]


def _images(
    frames: Frames, cells: FloatArray, reciprocal: FloatArray, margins: FloatArray
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return the positions wrapped into the cells, images of atoms near faces, and whose images they are.

    An atom near a lower face is repeated beyond the upper one, and the reverse, along one of each two opposite ways.
    """
    frame = frames.frame_of_atom
    fractional = np.einsum('ac,acj->aj', frames.positions, reciprocal[frame])
    fractional -= np.where(frames.pbc[frame], np.floor(fractional), 0.0)
    wrapped = np.einsum('ac,acj->aj', fractional, cells[frame])
    margin, periodic = margins[frame], frames.pbc[frame]
    low = np.asarray((fractional <= margin) & periodic)
    high = np.asarray((fractional >= 1 - margin) & periodic)
    edge = np.flatnonzero(np.any(low | high, axis=1))
    near = {0: np.ones((len(edge), 3), dtype=bool), 1: low[edge], -1: high[edge]}
    images, owners = [np.zeros((0, 3))], [np.zeros(0, dtype=np.int64)]
    for translation in _TRANSLATIONS:
        chosen = edge[np.all([near[step][:, axis] for axis, step in enumerate(translation)], axis=0)]
        images.append(wrapped[chosen] + np.einsum('c,acj->aj', np.array(translation, float), cells[frame[chosen]]))
        owners.append(chosen)
    return wrapped, np.concatenate(images), np.concatenate(owners)
