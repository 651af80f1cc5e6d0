"""Evaluate any torchani model over many structures at once, without padding, from neighbours found here.

torchani's own batches are padded, and wrong for periodic structures: all but the first come out as isolated atoms.
But a model also takes pairs of neighbours from elsewhere. Those of a whole batch, found for each structure by itself,
make it one large "molecule" whose parts do not see each other: nothing is padded, atoms may lie outside the cell, a
structure may be periodic in one or two directions, and forces and stress follow from the gradients of the pairs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import FrameError, FrameStatus
from ...frames import Frames
from ...neighbors import HalfPairs, find_half_pairs
from ...stress import stress_of_pairs
from ...units import HARTREE
from ..base import Evaluation
from ..hessians import rows_by_autograd
from .engine import GRADIENTS, OF_MEMBERS, element_indices, forces_of_pairs, of_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

#: About this many atoms are evaluated together.
CHUNK_ATOMS = {'cpu': 1024, 'cuda': 8192}
#: Along which axis the results of pieces of a batch are put together.
_AXES = {'forces': 0, 'stress': 0, 'forces_std': 0, 'atomic_energies': 0, 'member_forces': 1}


@dataclass(frozen=True)
class FlatModel:
    """A model that takes neighbours.

    :param module: what has the parameters; self energies are switched off in it
    :param call: from element indices ``(1, A)``, positions ``(1, A, 3)`` and torchani's ``Neighbors`` to atomic
        energies ``(m, 1, A)`` or ``(1, A)``, Hartree
    :param symbols: elements in the order of their indices
    :param self_energies: to be added, Hartree, shape ``(elements,)``
    :param cutoff: angstrom
    :param features: numbers in the descriptor of an atom, and in what an angle adds to it; cutoff of angles, angstrom
    """

    module: Any
    call: Callable[[Tensor, Tensor, Any], Tensor]
    symbols: tuple[str, ...]
    self_energies: Floats
    cutoff: float
    features: tuple[int, int, float]


class FlatEngine:
    """Batched evaluation of a torchani model that takes neighbours."""

    def __init__(self, model: FlatModel, device: str = 'cpu', precision: str = 'single') -> None:
        """Put the model on a device.

        :param precision: ``single`` for float32, ``double`` for float64
        """
        import torch
        from ase.data import atomic_numbers

        self._dtype = torch.float32 if precision == 'single' else torch.float64
        self.device = device
        self.chunk_atoms = CHUNK_ATOMS[device.partition(':')[0]]
        model.module.to(dtype=self._dtype, device=device)
        self._model = model
        self._self_energies = np.asarray(model.self_energies, dtype=np.float64)
        self.atomic_numbers = tuple(atomic_numbers[symbol] for symbol in model.symbols)
        self._element_of = np.full(256, -1, dtype=np.int64)
        self._element_of[list(self.atomic_numbers)] = np.arange(len(self.atomic_numbers))
        self.members = self._count_members()

    @property
    def cutoff(self) -> float:
        """Distance beyond which atoms do not see each other, angstrom."""
        return self._model.cutoff

    def evaluate(self, frames: Frames, request: frozenset[str] = frozenset()) -> Evaluation:
        """Evaluate structures; each result is the same, within rounding, whatever else is in the batch.

        :param frames: with finite coordinates and known elements, and at least one atom each
        :param request: of ``forces``, ``stress``, ``forces_std``, ``member_forces`` and ``atomic_energies``
        :raises ValueError: for elements that the model does not know, and structures without atoms
        :raises FrameError: for a periodic structure where the model has no cutoff
        """
        elements = self.indices(frames)
        if math.isinf(self.cutoff) and frames.pbc.any():
            raise FrameError(
                FrameStatus.BACKEND_FAILED, 'periodic, but the model has an interaction without a cutoff: use another'
            )
        parts = [
            self._evaluate_chunk(frames.select(structures), elements[frames.atom_indices(structures)], request)
            for structures in _chunks(frames, self.chunk_atoms)
        ]
        members = [part.member_energies for part in parts if part.member_energies is not None]
        energies = np.concatenate([np.empty((self.members, 0)), *members], axis=1)
        joined = {name: _joined(parts, name, axis) for name, axis in _AXES.items()}
        return Evaluation(energies.mean(axis=0), energies, **joined)

    def estimate_bytes(self, frames: Frames, request: frozenset[str] = frozenset()) -> int:
        """Peak memory that :meth:`evaluate` takes for this batch beside what the process already holds, in bytes.

        Seen from 1.6 to 2.1 times the true peak for periodic water of 1500 to 5200 atoms.
        """
        atom_features, angle_features, angle_cutoff = self._model.features
        size = self._dtype.itemsize
        peak = 0
        for structures in _chunks(frames, self.chunk_atoms):
            chunk = frames.select(structures)
            pairs = find_half_pairs(chunk.positions, chunk.offsets, chunk.cells, chunk.pbc, self.cutoff)
            close = pairs.distances <= angle_cutoff
            neighbours = np.bincount(pairs.first[close], minlength=chunk.n_atoms)
            neighbours += np.bincount(pairs.second[close], minlength=chunk.n_atoms)
            angles = int((neighbours * (neighbours - 1) // 2).sum())
            copies = 4 if request & GRADIENTS else 2
            total = angles * (100 + copies * size * (angle_features + 12))
            total += len(pairs) * 800 + chunk.n_atoms * copies * size * (atom_features + 512)
            peak = max(peak, total)
        return peak

    def indices(self, frames: Frames) -> Ints:
        """Index of each atom's element in the model, which takes an unknown one for padding and leaves it out."""
        return element_indices(frames, self._element_of)

    def self_energies(self, frames: Frames) -> Floats:
        """Self energy of each structure, eV."""
        of_atoms = self._self_energies[self.indices(frames)] * HARTREE
        energies: Floats = np.add.reduceat(of_atoms, frames.offsets[:-1])
        return energies

    def _count_members(self) -> int:
        """Ask the model for one atom: what comes back has one row for each active member."""
        import torch

        none = np.zeros(0, dtype=np.int64)
        pairs = HalfPairs(none, none, np.zeros((0, 3), dtype=np.int64), np.zeros((0, 3)), np.zeros(0))
        with torch.no_grad():
            energies, _ = self._run(pairs, np.zeros(1, dtype=np.int64), np.zeros((1, 3)), gradients=False)
        return int(energies.shape[0])

    def _run(self, pairs: HalfPairs, elements: Ints, positions: Floats, gradients: bool) -> tuple[Tensor, Tensor]:
        """Return atomic energies ``(m, A)``, Hartree, and the vectors ``(pairs, 3)`` by which they can be derived."""
        import torch

        def put(array: NDArray[Any], dtype: Any = None) -> Tensor:
            return torch.from_numpy(array).to(device=self.device, dtype=dtype or self._dtype)

        # torchani's vectors lead from the second atom to the first
        vectors = put(-pairs.vectors).requires_grad_(gradients)
        return self._call(pairs, elements, put(positions), vectors), vectors

    def _call(self, pairs: HalfPairs, elements: Ints, positions: Tensor, vectors: Tensor) -> Tensor:
        """Return atomic energies ``(m, A)``, Hartree; ``vectors`` lead from second to first atoms."""
        import torch
        from torchani.neighbors import Neighbors

        indices = torch.from_numpy(np.stack([pairs.first, pairs.second])).to(self.device)
        neighbours = Neighbors(indices, vectors.norm(2, -1), vectors)
        energies = self._model.call(torch.from_numpy(elements[None]).to(self.device), positions[None], neighbours)
        return energies.reshape(-1, len(elements))

    def hessians(self, frames: Frames, each: bool = False) -> Floats:
        """Return Hessians, flat, eV/angstrom^2: of the mean over the members, or for ``each`` member, ``(m, ...)``.

        :raises ValueError: as :meth:`evaluate`
        """
        elements = self.indices(frames)
        parts = [
            self._chunk_hessians(frames.select(structures), elements[frames.atom_indices(structures)], each)
            for structures in _chunks(frames, self.chunk_atoms)
        ]
        whole = np.concatenate([np.empty((self.members if each else 1, 0)), *parts], axis=1)
        return whole if each else whole[0]

    def _chunk_hessians(self, batch: Frames, elements: Ints, each: bool) -> Floats:
        import torch

        pairs = find_half_pairs(batch.positions, batch.offsets, batch.cells, batch.pbc, self.cutoff)
        first, second = (torch.from_numpy(ends).to(self.device) for ends in (pairs.first, pairs.second))
        positions = torch.from_numpy(batch.positions.copy()).to(self.device).requires_grad_()
        translations = batch.positions[pairs.second] - batch.positions[pairs.first] - pairs.vectors
        vectors = torch.from_numpy(translations).to(self.device) + positions[first] - positions[second]
        outputs = self._call(pairs, elements, positions.detach().to(self._dtype), vectors.to(self._dtype))
        scalars = outputs.sum(dim=1) if each else outputs.mean(dim=0).sum()[None]
        found = []
        for scalar in scalars:
            (gradient,) = torch.autograd.grad(scalar, positions, create_graph=True, materialize_grads=True)
            found.append(rows_by_autograd(gradient, positions, batch) * HARTREE)
        return np.stack(found)

    def _evaluate_chunk(self, batch: Frames, elements: Ints, request: frozenset[str]) -> Evaluation:
        """Evaluate structures in one go, in eV."""
        import torch

        pairs = find_half_pairs(batch.positions, batch.offsets, batch.cells, batch.pbc, self.cutoff)
        gradients = bool(request & GRADIENTS)
        with torch.set_grad_enabled(gradients):
            outputs, vectors = self._run(pairs, elements, batch.positions, gradients)
        # self energies are thousands of eV: they are added in double precision, whatever the model's
        atomic = (outputs.detach().double().cpu().numpy() + self._self_energies[elements]) * HARTREE
        energies = np.add.reduceat(atomic, batch.offsets[:-1], axis=1)
        of_atoms = atomic.mean(axis=0) if 'atomic_energies' in request else None
        if not gradients:
            return Evaluation(energies.mean(axis=0), energies, atomic_energies=of_atoms)

        def pull(scalar: Tensor, keep: bool) -> Floats:
            """The gradient by the vectors from first to second atoms, ``(3, pairs)``, eV/angstrom."""
            if not scalar.requires_grad:  # nothing depends on where the atoms are
                return np.zeros((3, len(pairs)))
            found = torch.autograd.grad(scalar, vectors, retain_graph=keep, allow_unused=True)[0]
            if found is None:
                return np.zeros((3, len(pairs)))
            result: Floats = found.double().cpu().numpy().T * -HARTREE
            return np.ascontiguousarray(result)

        samples = None
        if request & OF_MEMBERS:
            on_members = [pull(outputs[k].sum(), k < self.members - 1) for k in range(self.members)]
            samples = np.stack([forces_of_pairs(pairs, on_pairs, len(elements)) for on_pairs in on_members])
            on_pairs = np.mean(on_members, axis=0)
        else:
            on_pairs = pull(outputs.mean(dim=0).sum(), False)
        forces = forces_of_pairs(pairs, on_pairs, len(elements)) if 'forces' in request else None
        stress = (
            stress_of_pairs(batch.frame_of_atom[pairs.first], pairs.vectors, on_pairs.T, batch)
            if 'stress' in request
            else None
        )
        found = Evaluation(energies.mean(axis=0), energies, forces, stress, atomic_energies=of_atoms)
        return found if samples is None else dataclasses.replace(found, **of_samples(samples, request))


def _chunks(frames: Frames, limit: int) -> Iterator[Ints]:
    """Cut the structures, in their order, into pieces of at most so many atoms, or one structure."""
    start = 0
    while start < len(frames):
        stop = int(np.searchsorted(frames.offsets, frames.offsets[start] + limit, side='right')) - 1
        stop = max(stop, start + 1)
        yield np.arange(start, stop, dtype=np.int64)
        start = stop


def _joined(parts: list[Evaluation], name: str, axis: int) -> Floats | None:
    arrays = [getattr(part, name) for part in parts]
    return None if not arrays or arrays[0] is None else np.concatenate(arrays, axis=axis)
