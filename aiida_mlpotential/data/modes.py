"""What can be made of normal modes without a model: kinds of stationary points, and animations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ase import Atoms

Array = npt.NDArray[Any]


def character(n_imaginary: int, stationary: bool) -> str:
    """Return the kind of a point on the potential energy surface in words."""
    if not stationary:
        return 'not stationary'
    names = {0: 'minimum', 1: 'transition state'}
    return names.get(n_imaginary, f'saddle point of order {n_imaginary}')


def count_characters(n_imaginary: Array, stationary: Array) -> dict[str, int]:
    """Return how many structures are of which kind, as attributes of the node.

    :param n_imaginary: ``(n,)``
    :param stationary: booleans, ``(n,)``
    """
    counts = {
        'n_minima': stationary & (n_imaginary == 0),
        'n_transition_states': stationary & (n_imaginary == 1),
        'n_higher_saddles': stationary & (n_imaginary > 1),
        'n_not_stationary': ~stationary,
    }
    return {name: int(np.count_nonzero(chosen)) for name, chosen in counts.items()}


def vibrations(offsets: Array, n_rigid: Array, chosen: Array) -> npt.NDArray[np.bool_]:
    """Return which of the modes of all structures are vibrations of the chosen ones, ``(3 A,)``.

    :param offsets: ``(n + 1,)``
    :param n_rigid: translations and rotations, ``(n,)``
    :param chosen: booleans, ``(n,)``
    """
    counts = 3 * np.diff(offsets)
    within = np.arange(int(counts.sum())) - np.repeat(3 * offsets[:-1], counts)
    return np.asarray((within >= np.repeat(n_rigid, counts)) & np.repeat(chosen, counts))


def animation(equilibrium: Atoms, mode: Array, wavenumber: float, amplitude: float, n_images: int) -> list[Atoms]:
    """Return one period of a vibration, which begins at the equilibrium.

    :param mode: displacements, ``(N, 3)``
    :param wavenumber: cm^-1, for ``info`` of the images
    :param amplitude: largest way of an atom, angstrom
    :param n_images: how many
    """
    if n_images < 1 or not 0 < amplitude < math.inf:
        raise ValueError('an animation needs at least one image and a positive amplitude')
    scale = amplitude / float(np.linalg.norm(mode, axis=1).max())
    images = []
    for number in range(n_images):
        atoms = equilibrium.copy()  # type: ignore[no-untyped-call]
        atoms.positions += math.sin(2 * math.pi * number / n_images) * scale * mode
        atoms.arrays['mode'] = scale * mode
        atoms.info['frequency'] = wavenumber
        images.append(atoms)
    return images
