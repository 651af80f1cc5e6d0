"""Evaluate an ANI ensemble over many structures at once: energies, forces, stress and the spread over members.

Structures are neither padded nor looped over. Vectors hold only the columns of the elements at hand, all members are
evaluated together, and the gradients are written out by hand, so nothing is recorded for autograd.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...frames import Frames
from ...neighbors import find_half_pairs
from ...statistics import sample_std
from ...storage import hessian_offsets
from ...stress import stress_of_pairs
from ...units import HARTREE
from ..base import Evaluation
from ..hessians import block_offsets, from_blocks
from .aev import Environment, build_topology, descriptor_bytes, place_constants
from .hessian import PIECE_BYTES, Piece, Surroundings, edge_hessians, spread
from .networks import ElementNetworks, Scratch, place_networks
from .parameters import AniParameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...neighbors import HalfPairs

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

#: Properties that need the gradient.
GRADIENTS = frozenset({'forces', 'stress', 'forces_std', 'member_forces'})
#: Properties that need the gradient of every member.
OF_MEMBERS = frozenset({'forces_std', 'member_forces'})
#: About this many atoms are evaluated together: more fall out of the processor's cache, fewer waste call overhead. A
#: GPU wants many, and has the memory for them.
CHUNK_ATOMS = {'cpu': 1024, 'cuda': 16384}


class AniEngine:
    """Batched evaluation of an ANI model with one or more members."""

    def __init__(self, parameters: AniParameters, device: str = 'cpu', precision: str = 'single') -> None:
        """Put the parameters on a device.

        :param device: where to evaluate, in torch's notation
        :param precision: ``single`` for float32 networks and vectors, ``double`` for float64
        """
        import torch
        from ase.data import atomic_numbers

        dtype = torch.float32 if precision == 'single' else torch.float64
        self.atomic_numbers = tuple(atomic_numbers[symbol] for symbol in parameters.symbols)
        self.members = parameters.n_members
        self.device = device
        self.chunk_atoms = CHUNK_ATOMS[device.partition(':')[0]]
        self._self_energies = np.asarray(parameters.self_energies, dtype=np.float64)
        self._constants = place_constants(parameters.family, dtype, device)
        self._networks = [place_networks(parameters.networks[symbol], dtype, device) for symbol in parameters.symbols]
        self._scratch = Scratch(dtype, device)
        self._restricted: dict[tuple[int, ...], list[ElementNetworks]] = {}
        self._element_of = np.full(256, -1, dtype=np.int64)
        self._element_of[list(self.atomic_numbers)] = np.arange(len(self.atomic_numbers))

    @property
    def cutoff(self) -> float:
        """Distance beyond which atoms do not see each other, angstrom."""
        return self._constants.radial_cutoff

    def evaluate(self, frames: Frames, request: frozenset[str] = frozenset()) -> Evaluation:
        """Evaluate structures; each result is the same, within rounding, whatever else is in the batch.

        :param frames: with finite coordinates and known elements, and at least one atom each
        :param request: of ``forces``, ``stress``, ``forces_std``, ``member_forces`` and ``atomic_energies``
        :raises ValueError: for elements that the model does not know, structures without atoms, a degenerate cell
        """
        import torch

        elements = self._elements(frames)
        n, n_atoms = len(frames), frames.n_atoms
        of_atoms = {'forces': (n_atoms, 3), 'forces_std': (n_atoms, 3), 'atomic_energies': (n_atoms,)}
        shapes = of_atoms | {'stress': (n, 3, 3), 'member_forces': (self.members, n_atoms, 3)}
        arrays = {name: np.empty(shape) for name, shape in shapes.items() if name in request}
        member_energies = np.empty((self.members, n))
        with torch.inference_mode():
            for structures in _chunks(frames, elements, self.chunk_atoms):
                atoms = frames.atom_indices(structures)
                part = self._evaluate_chunk(frames.select(structures), elements[atoms], request)
                member_energies[:, structures] = part.member_energies
                rows: dict[str, Any] = {'stress': structures, 'member_forces': np.s_[:, atoms]}
                for name, array in arrays.items():
                    array[rows.get(name, atoms)] = getattr(part, name)
        if 'atomic_energies' in arrays:
            arrays['atomic_energies'] = (arrays['atomic_energies'] + self._self_energies[elements]) * HARTREE
        shifts = np.add.reduceat(self._self_energies[elements], frames.offsets[:-1]) if n else np.empty(0)
        member_energies = (member_energies + shifts) * HARTREE
        return Evaluation(member_energies.mean(axis=0), member_energies, **arrays)

    def estimate_bytes(self, frames: Frames, request: frozenset[str] = frozenset()) -> int:
        """Peak memory that :meth:`evaluate` takes for this batch beside what the process already holds, in bytes.

        The estimate counts pairs and triples of atoms, which costs a few percent of the evaluation. Seen from 0.9 to
        1.6 times the true peak for batches that need over 200 MB; for smaller ones the libraries' own memory, which is
        not counted, outweighs the rest.
        """
        elements = self._elements(frames)
        gradients = bool(request & GRADIENTS)
        peak = 0
        for structures in _chunks(frames, elements, self.chunk_atoms):
            chunk, atoms = frames.select(structures), frames.atom_indices(structures)
            pairs = find_half_pairs(chunk.positions, chunk.offsets, chunk.cells, chunk.pbc, self.cutoff)
            present, counts = np.unique(elements[atoms], return_counts=True)
            total = descriptor_bytes(pairs, len(atoms), self._constants, gradients)
            width = len(self._columns(tuple(present.tolist())))
            for element, count in zip(present.tolist(), counts.tolist(), strict=True):
                values = self._networks[element].values_per_atom(width, gradients, bool(request & OF_MEMBERS))
                total += count * values * self._networks[element].final_bias.element_size()
            peak = max(peak, total)
        return peak

    def hessians(self, frames: Frames, each: bool = False) -> Floats:
        """Return Hessians, flat, eV/angstrom^2: of the mean over the members, or for ``each`` member, ``(m, ...)``.

        Written out by hand: all columns at once, and for each atom only those of its neighbours.

        :raises ValueError: as :meth:`evaluate`
        """
        import torch

        elements = self._elements(frames)
        offsets = hessian_offsets(frames.offsets)
        result = np.empty((self.members if each else 1, int(offsets[-1])))
        with torch.inference_mode():
            for structures in _chunks(frames, elements, self.chunk_atoms):
                chunk = frames.select(structures)
                found = self._chunk_hessians(chunk, elements[frames.atom_indices(structures)], each)
                sizes = np.diff(offsets)[structures]
                rows = np.repeat(offsets[:-1][structures] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
                result[:, rows] = from_blocks(found, chunk) * HARTREE
        return result if each else result[0]

    def _chunk_hessians(self, batch: Frames, elements: Ints, each: bool) -> Floats:
        """Return blocks of Hessians, ``(m or 1, sum of N^2, 3, 3)``, hartree/angstrom^2."""
        import torch

        self._scratch.reset()
        present, local = np.unique(elements, return_inverse=True)
        pairs = find_half_pairs(batch.positions, batch.offsets, batch.cells, batch.pbc, self.cutoff)
        surroundings = Surroundings.of(pairs, local, self._constants.angular_cutoff)
        features = self._environment(pairs, surroundings.rows, surroundings.elements).features()
        networks = self._restricted_networks(tuple(present.tolist()))
        size = (self.members if each else 1, int(block_offsets(batch)[-1]), 3, 3)
        result = torch.zeros(size, dtype=torch.float64, device=self.device)
        numbers = self.members * max(network.weights[0].shape[1] // self.members for network in networks)
        for start, stop in surroundings.pieces(numbers, PIECE_BYTES[self.device.partition(':')[0]]):
            piece = Piece.of(surroundings, start, stop, features)
            if not piece.width:  # isolated atoms
                continue
            network = networks[int(surroundings.elements[start])]
            blocks = edge_hessians(piece, network, features[start:stop], len(present), self._constants)
            spread(blocks if each else blocks.mean(dim=0, keepdim=True), surroundings, start, batch, result)
        found: Floats = result.cpu().numpy()
        return found

    def _elements(self, frames: Frames) -> Ints:
        """Number of each atom's element in the model."""
        return element_indices(frames, self._element_of)

    def _evaluate_chunk(self, batch: Frames, elements: Ints, request: frozenset[str]) -> Evaluation:
        """Evaluate structures in one go; energies are those of the members, in hartree and without self energies."""
        import torch

        self._scratch.reset()
        present, local = np.unique(elements, return_inverse=True)
        # Rows of the matrix of vectors go by element, so that each network reads one contiguous piece.
        order = np.argsort(local, kind='stable')
        rows = np.empty_like(order)
        rows[order] = np.arange(len(order))
        counts = np.bincount(local).tolist()
        pairs = find_half_pairs(batch.positions, batch.offsets, batch.cells, batch.pbc, self.cutoff)
        environment = self._environment(pairs, rows, local[order])
        networks = self._restricted_networks(tuple(present.tolist()))
        outputs = [
            network.forward(features, self._scratch)
            for network, features in zip(networks, torch.split(environment.features(), counts), strict=True)
        ]
        atomic = torch.cat([energies for energies, _ in outputs], dim=1).double().cpu().numpy()
        energies = np.add.reduceat(atomic[:, rows], batch.offsets[:-1], axis=1)
        of_atoms = atomic[:, rows].mean(axis=0) if 'atomic_energies' in request else None
        if not request & GRADIENTS:
            return Evaluation(energies.mean(axis=0), energies, atomic_energies=of_atoms)
        each = bool(request & OF_MEMBERS)
        gradients = [
            network.backward(slopes, each, self._scratch)
            for network, (_, slopes) in zip(networks, outputs, strict=True)
        ]
        del outputs
        if not each:
            on_pairs = environment.pair_gradients(torch.cat(gradients)).cpu().numpy() * HARTREE
            samples = None
        else:
            samples = np.empty((self.members, len(elements), 3))
            total = np.zeros((3, len(pairs)))
            for member in range(self.members):
                gradient = torch.cat([part[member] for part in gradients])
                on_pairs = environment.pair_gradients(gradient).cpu().numpy() * HARTREE
                samples[member] = forces_of_pairs(pairs, on_pairs, len(elements))
                total += on_pairs
            on_pairs = total / self.members
        forces = forces_of_pairs(pairs, on_pairs, len(elements)) if 'forces' in request else None
        stress = (
            stress_of_pairs(batch.frame_of_atom[pairs.first], pairs.vectors, on_pairs.T, batch)
            if 'stress' in request
            else None
        )
        found = Evaluation(energies.mean(axis=0), energies, forces, stress, atomic_energies=of_atoms)
        return found if samples is None else dataclasses.replace(found, **of_samples(samples, request))

    def _environment(self, pairs: HalfPairs, rows: Ints, elements: Ints) -> Environment:
        """Build the vectors of a batch; ``rows`` are those of its atoms, ``elements`` those of the rows."""
        import torch

        return Environment(
            build_topology(pairs, rows, elements, self._constants, self.device),
            self._constants,
            torch.from_numpy(pairs.vectors).to(self.device),
            torch.from_numpy(pairs.distances).to(self.device),
            self._scratch,
        )

    def _restricted_networks(self, present: tuple[int, ...]) -> list[ElementNetworks]:
        """Networks of these elements that take vectors of these elements only."""
        import torch

        if present not in self._restricted:
            columns = torch.from_numpy(self._columns(present)).to(self.device)
            self._restricted[present] = [self._networks[element].restricted(columns) for element in present]
        return self._restricted[present]

    def _columns(self, present: Sequence[int]) -> Ints:
        """Columns of the full vector that remain when only some elements are present."""
        species = len(self.atomic_numbers)
        radial, angular = self._constants.radial_features, self._constants.angular_features
        number = np.zeros((species, species), dtype=np.int64)
        number[np.triu_indices(species)] = np.arange(species * (species + 1) // 2)
        chosen = np.asarray(present)
        first, second = np.triu_indices(len(chosen))
        element_pairs = number[chosen[first], chosen[second]]
        radial_columns = chosen[:, None] * radial + np.arange(radial)
        angular_columns = species * radial + element_pairs[:, None] * angular + np.arange(angular)
        return np.concatenate([radial_columns.ravel(), angular_columns.ravel()])


def _chunks(batch: Frames, elements: Ints, limit: int) -> Iterator[Ints]:
    """Split the structures into pieces of about as many atoms, those with the same elements together."""
    sizes = batch.counts
    masks = np.bitwise_or.reduceat(np.left_shift(1, elements % 63), batch.offsets[:-1]) if len(batch) else sizes
    order = np.argsort(masks, kind='stable')
    begin, atoms = 0, 0
    for position, structure in enumerate(order):
        full = atoms + sizes[structure] > limit
        # A change of elements makes the vectors wider, but very small pieces cost more than that.
        changed = masks[structure] != masks[order[begin]] and atoms > limit // 2
        if position > begin and (full or changed):
            yield order[begin:position]
            begin, atoms = position, 0
        atoms += int(sizes[structure])
    if begin < len(order):
        yield order[begin:]


def element_indices(frames: Frames, element_of: Ints) -> Ints:
    """Return the number of each atom's element in a model, ``(A,)``.

    :param element_of: by atomic number; -1 for an element that the model does not know
    :raises ValueError: if a structure has no atoms, or an atom that the model does not know
    """
    if np.any(frames.counts < 1):
        raise ValueError('every structure of a batch needs at least one atom')
    elements = element_of[frames.numbers]
    if np.any(elements < 0):
        raise ValueError(f'atomic number {int(frames.numbers[elements < 0][0])} is not known to the model')
    return elements


def forces_of_pairs(pairs: HalfPairs, gradients: Floats, atoms: int) -> Floats:
    """Sum the gradients with respect to difference vectors, shape ``(3, pairs)``, into forces on the atoms."""
    forces = np.empty((atoms, 3))
    for axis in range(3):
        forces[:, axis] = np.bincount(pairs.first, gradients[axis], atoms)
        forces[:, axis] -= np.bincount(pairs.second, gradients[axis], atoms)
    return forces


def of_samples(samples: Floats, request: frozenset[str]) -> dict[str, Floats]:
    """Return what is asked for of the forces of all members, ``(m, A, 3)``; a single one has no spread, but NaN."""
    found = {}
    if 'forces_std' in request:
        found['forces_std'] = sample_std(samples) if len(samples) > 1 else np.full_like(samples[0], np.nan)
    if 'member_forces' in request:
        found['member_forces'] = samples
    return found
