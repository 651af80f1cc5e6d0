"""What backends with analytic Hessians share: the layout of the flat array, and its rows from automatic derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..frames import FloatArray, Frames, IntArray
from ..storage import hessian_offsets

if TYPE_CHECKING:
    from torch import Tensor


def block_offsets(frames: Frames) -> IntArray:
    """Return where the matrix of 3x3 blocks of each frame begins, one for each two atoms, ``(n + 1,)``."""
    return np.asarray(hessian_offsets(frames.offsets) // 9)


def from_blocks(blocks: FloatArray, frames: Frames) -> FloatArray:
    """Return flat Hessians of a 3x3 block for each two atoms of each frame, made symmetric.

    :param blocks: ``(m, sum of N^2, 3, 3)``, those of a frame row by row
    :return: ``(m, sum of (3 N)^2)``
    """
    result = np.empty((len(blocks), 9 * blocks.shape[1]))
    begins = block_offsets(frames)
    for chosen, count in _alike(frames):
        parts = blocks[:, begins[chosen][:, None] + np.arange(count**2)]
        matrices = parts.reshape(len(blocks), len(chosen), count, count, 3, 3).swapaxes(-3, -2)
        matrices = matrices.reshape(len(blocks), len(chosen), 3 * count, 3 * count)
        result[:, _elements_of(begins, chosen, count)] = (matrices + matrices.swapaxes(-1, -2)).reshape(
            len(blocks), len(chosen), -1
        ) / 2
    return result


def symmetrized(flat: FloatArray, frames: Frames) -> FloatArray:
    """Return flat Hessians, ``(sum of (3 N)^2,)``, each the mean of it and its transpose."""
    result = np.empty_like(flat)
    begins = block_offsets(frames)
    for chosen, count in _alike(frames):
        elements = _elements_of(begins, chosen, count)
        matrices = flat[elements].reshape(len(chosen), 3 * count, 3 * count)
        result[elements] = (matrices + matrices.swapaxes(-1, -2)).reshape(len(chosen), -1) / 2
    return result


def rows_by_autograd(gradient: Tensor, positions: Tensor, frames: Frames) -> FloatArray:
    """Return flat Hessians, made symmetric, of a gradient that torch can differentiate again.

    One derivative gives a row for each frame: what one frame does depends on no other. Its graph is held meanwhile,
    and no more than one row at a time.

    :param gradient: of the energies of all frames by the positions, ``(A, 3)``, with its graph
    :param positions: ``(A, 3)``
    """
    import torch

    result = np.zeros(int(hessian_offsets(frames.offsets)[-1]))
    if not gradient.requires_grad:  # nothing depends on where the atoms are
        return result
    for coordinate in range(3 * int(frames.counts.max(initial=0))):
        atom, axis = divmod(coordinate, 3)
        chosen = np.flatnonzero(frames.counts > atom)
        direction = torch.zeros_like(gradient)
        direction[torch.from_numpy(frames.offsets[:-1][chosen] + atom).to(gradient.device), axis] = 1.0
        (found,) = torch.autograd.grad(gradient, positions, direction, retain_graph=True, materialize_grads=True)
        place_row(result, coordinate, found.detach().double().cpu().numpy(), frames)
    return symmetrized(result, frames)


def place_row(flat: FloatArray, row: int, values: FloatArray, frames: Frames) -> None:
    """Write one row of the Hessian of every frame that has so many.

    :param flat: all Hessians, ``(sum of (3 N)^2,)``
    :param values: ``(A, 3)``
    """
    chosen = np.flatnonzero(frames.counts > row // 3)
    widths = 3 * frames.counts[chosen]
    begins = hessian_offsets(frames.offsets)[:-1][chosen] + row * widths
    places = np.repeat(begins - np.cumsum(widths) + widths, widths) + np.arange(widths.sum())
    flat[places] = values[frames.atom_indices(chosen)].ravel()


def _alike(frames: Frames) -> Iterator[tuple[IntArray, int]]:
    """Yield the indices of all frames with the same number of atoms, and that number."""
    for count in np.unique(frames.counts).tolist():
        yield np.flatnonzero(frames.counts == count), count


def _elements_of(begins: IntArray, chosen: IntArray, count: int) -> IntArray:
    """Return where in the flat array the elements of equally large matrices are, ``(frames, (3 N)^2)``."""
    return np.asarray(9 * begins[chosen][:, None] + np.arange(9 * count**2))
