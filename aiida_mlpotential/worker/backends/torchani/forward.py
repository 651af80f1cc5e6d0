"""Evaluate a model of which nothing is known but that it turns elements and positions into energies, in padded batches.

For TorchScript files that are not a scripted torchani ``ANI``, and for objects of other classes that a user trusts.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import FrameError, FrameStatus
from ...frames import Frames
from ...stress import stress_of_strain
from ...units import HARTREE
from ..base import Evaluation
from .engine import GRADIENTS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

#: About this many atoms, padding included, are evaluated together.
CHUNK_ATOMS = {'cpu': 512, 'cuda': 8192}
#: What fills the rows of smaller structures.
PADDING = -1


class ForwardEngine:
    """Evaluation by ``model((species, positions))``, or ``model((species, positions), cell, pbc)`` for crystals.

    The self energies are inside the model and cannot be told apart, so single precision rounds the whole energy.
    """

    #: Nobody asks such a model for its members, nor for what one atom has of the energy.
    members = 1

    def __init__(
        self, model: Any, symbols: Sequence[str], takes_numbers: bool, device: str = 'cpu', precision: str = 'single'
    ) -> None:
        """Put the model on a device.

        :param symbols: elements that the model knows, in the order of its indices
        :param takes_numbers: whether it takes atomic numbers rather than those indices
        """
        import torch
        from ase.data import atomic_numbers

        self._dtype = torch.float32 if precision == 'single' else torch.float64
        self.device = device
        self.chunk_atoms = CHUNK_ATOMS[device.partition(':')[0]]
        self._model = model.to(dtype=self._dtype, device=device)
        numbers = [atomic_numbers[symbol] for symbol in symbols]
        self.atomic_numbers = tuple(numbers)
        self._species_of = np.full(256, PADDING, dtype=np.int64)
        self._species_of[numbers] = numbers if takes_numbers else np.arange(len(numbers))
        self._periodic = _takes_cell(model)

    @property
    def cutoff(self) -> float | None:
        """Return ``None``: the model does not say."""
        return None

    def evaluate(self, frames: Frames, request: frozenset[str] = frozenset()) -> Evaluation:
        """Evaluate structures: molecules in padded batches, crystals one by one, with their atoms in the cell.

        :param frames: with finite coordinates and known elements, and at least one atom each
        :param request: of ``forces`` and ``stress``
        :raises ValueError: for elements that the model does not know, which it would take for padding
        :raises FrameError: for what the model cannot give
        """
        species = self._species_of[frames.numbers]
        if np.any(species == PADDING):
            raise ValueError(f'atomic number {int(frames.numbers[species == PADDING][0])} is not known to the model')
        if request & {'forces_std', 'member_forces', 'atomic_energies'}:
            raise FrameError(FrameStatus.BACKEND_FAILED, 'the model tells neither members nor atomic energies apart')
        self._check_periodicity(frames)
        energies = np.empty(len(frames))
        forces = np.empty((frames.n_atoms, 3)) if 'forces' in request else None
        stress = np.full((len(frames), 3, 3), np.nan) if 'stress' in request else None
        for chosen in self._groups(frames):
            atoms = frames.atom_indices(chosen)
            part = self._evaluate_group(frames.select(chosen), species[atoms], request)
            energies[chosen] = part.energies
            if forces is not None and part.forces is not None:
                forces[atoms] = part.forces
            if stress is not None and part.stress is not None:
                stress[chosen] = part.stress
        return Evaluation(energies, energies[None], forces, stress)

    def hessians(self, frames: Frames, each: bool = False) -> None:
        """Return nothing: nobody knows whether such a model can be differentiated twice, as its forces do not tell."""

    def estimate_bytes(self, frames: Frames, request: frozenset[str] = frozenset()) -> int:
        """Return 0: nobody knows what such a model needs before it is tried."""
        return 0

    def _check_periodicity(self, frames: Frames) -> None:
        periodic = frames.pbc.any(axis=1)
        if periodic.any() and not self._periodic:
            raise FrameError(FrameStatus.BACKEND_FAILED, 'periodic, but the model takes no cell')
        if np.any(periodic & ~frames.pbc.all(axis=1)):
            # torchani folds atoms back along x, y, z where it should go by the cell vectors
            raise FrameError(
                FrameStatus.BACKEND_FAILED,
                'periodic in one or two directions, which torchani gets wrong for such a model: make it periodic in '
                'three, with enough vacuum',
            )

    def _groups(self, frames: Frames) -> list[Ints]:
        """Return which structures are evaluated together: crystals alone, molecules of about one size."""
        periodic = frames.pbc.any(axis=1)
        # torchani takes a batch of crystals, and treats all but the first as if they were isolated atoms
        groups = [np.array([index]) for index in np.flatnonzero(periodic)]
        molecules = np.flatnonzero(~periodic)
        molecules = molecules[np.argsort(frames.counts[molecules], kind='stable')]
        start = 0
        while start < len(molecules):
            padded = frames.counts[molecules[start:]] * np.arange(1, len(molecules) - start + 1)
            stop = start + max(1, int(np.searchsorted(padded, self.chunk_atoms, side='right')))
            groups.append(molecules[start:stop])
            start = stop
        return groups

    def _evaluate_group(self, group: Frames, species: Ints, request: frozenset[str]) -> Evaluation:
        import torch

        n, width = len(group), int(group.counts.max())
        real = np.arange(width) < group.counts[:, None]
        padded_species = np.full((n, width), PADDING, dtype=np.int64)
        padded_species[real] = species
        positions = np.zeros((n, width, 3))
        positions[real] = _wrapped(group)

        def put(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device=self.device, dtype=self._dtype)

        gradients = bool(request & GRADIENTS)
        with torch.set_grad_enabled(gradients):
            coordinates = put(positions).requires_grad_(gradients)
            strain = torch.eye(3, dtype=self._dtype, device=self.device).requires_grad_(gradients)
            arguments: tuple[Any, ...] = ()
            bulk = bool(group.pbc[0].any())
            if bulk:
                pbc = torch.from_numpy(group.pbc[0].copy()).to(self.device)
                arguments = (put(group.cells[0]) @ strain, pbc)
            moved = coordinates @ strain if bulk else coordinates
            energies = _energies_of(
                self._model((torch.from_numpy(padded_species).to(self.device), moved), *arguments), n
            )
        values = energies.detach().double().cpu().numpy() * HARTREE
        if not gradients:
            return Evaluation(values)
        wanted = [coordinates, strain] if bulk else [coordinates]
        found = [part.double().cpu().numpy() * HARTREE for part in torch.autograd.grad(energies.sum(), wanted)]
        stress = None
        if bulk:
            stress = stress_of_strain(found[1][None], group)
        return Evaluation(values, forces=-found[0][real], stress=stress)


def _takes_cell(model: Any) -> bool:
    """Return whether the model's ``forward`` has arguments for a cell and the periodic directions."""
    schema = getattr(getattr(model, 'forward', None), 'schema', None)
    if schema is not None:
        return [argument.name for argument in schema.arguments[2:4]] == ['cell', 'pbc']
    if not hasattr(model, 'forward'):
        return False
    return list(inspect.signature(model.forward).parameters)[1:3] == ['cell', 'pbc']


def _wrapped(group: Frames) -> Floats:
    """Return positions with the atoms of a crystal folded into its cell: torchani's stress is wrong for others."""
    if not group.pbc.all():
        return group.positions
    cell = group.cells[0]
    fractional = np.linalg.solve(cell.T, group.positions.T).T
    folded: Floats = group.positions - np.floor(fractional) @ cell
    return folded


def _energies_of(result: Any, n: int) -> Tensor:
    """Return the energies, ``(n,)``, of what a model gave back: them alone, or them after the species."""
    import torch

    energies = getattr(result, 'energies', result)
    if isinstance(energies, tuple) and len(energies) > 1:
        energies = energies[1]
    if not isinstance(energies, torch.Tensor) or energies.numel() != n:
        raise ValueError('the model does not give back one energy for each structure')
    return energies.reshape(n)
