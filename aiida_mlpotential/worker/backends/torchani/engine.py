"""Evaluate an ANI ensemble over many structures at once: energies, forces, stress and the spread over members.

Structures are neither padded nor looped over. Vectors hold only the columns of the elements at hand, all members are
evaluated together, and the gradients are written out by hand, so nothing is recorded for autograd.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .aev import Environment, build_topology, descriptor_bytes, read_constants
from .neighbors import find_half_pairs
from .networks import ElementNetworks, Scratch, stack_networks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .neighbors import HalfPairs

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

#: What torchani converts with (CODATA 2014); the reference values of the models use it.
HARTREE_IN_EV = 27.211386024367243
GRADIENTS = frozenset({'forces', 'stress', 'forces_std'})
REQUESTS = GRADIENTS | {'member_energies'}
#: About this many atoms are evaluated together: more fall out of the processor's cache, fewer waste call overhead.
ATOMS_PER_CHUNK = 1024


@dataclass(frozen=True)
class AniResult:
    """Float64 results of one batch; what was not asked for is None.

    :param energies: shape ``(n,)``, eV
    :param member_energies: of each ensemble member, shape ``(members, n)``, eV
    :param forces: shape ``(n_atoms, 3)``, eV/angstrom
    :param stress: derivative of the energy with respect to strain over the volume, shape ``(n, 3, 3)``,
        eV/angstrom^3; NaN for structures that are not periodic in all three directions
    :param forces_std: sample standard deviation (ddof 1) over the members, shape ``(n_atoms, 3)``, eV/angstrom;
        NaN for a single member
    """

    energies: Floats
    member_energies: Floats | None = None
    forces: Floats | None = None
    stress: Floats | None = None
    forces_std: Floats | None = None


@dataclass(frozen=True)
class Batch:
    """Flat structures: structure ``k`` holds the atoms ``offsets[k]:offsets[k + 1]``."""

    numbers: Ints
    positions: Floats
    offsets: Ints
    cells: Floats
    pbc: Bools

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def selected(self, structures: Ints) -> tuple[Batch, Ints]:
        """These structures alone, and the indices of their atoms here."""
        sizes = np.diff(self.offsets)[structures]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        atoms = np.repeat(self.offsets[structures] - offsets[:-1], sizes) + np.arange(offsets[-1], dtype=np.int64)
        chosen = Batch(
            self.numbers[atoms], self.positions[atoms], offsets, self.cells[structures], self.pbc[structures]
        )
        return chosen, atoms


class AniEngine:
    """Batched evaluation of an ANI model with one or more members."""

    def __init__(
        self,
        model: Any,
        self_energies: Floats,
        device: str = 'cpu',
        precision: str = 'single',
        hartree_in_ev: float = HARTREE_IN_EV,
    ) -> None:
        """
        :param model: torchani ``ANI`` model; it is read and not kept
        :param self_energies: of the model's elements in its order, hartree; added in float64
        :param device: where to evaluate, in torch's notation
        :param precision: ``single`` for float32 networks and vectors, ``double`` for float64
        :raises ValueError: if the model holds anything that this engine does not evaluate
        """
        import torch

        if precision not in ('single', 'double'):
            raise ValueError(f'Precision {precision!r} is unknown, use single or double.')
        dtype = torch.float32 if precision == 'single' else torch.float64
        computer, members = _parts(model)
        self.atomic_numbers: tuple[int, ...] = tuple(int(z) for z in model.atomic_numbers)
        self.self_energies = np.asarray(self_energies, dtype=np.float64)
        if self.self_energies.shape != (len(self.atomic_numbers),):
            raise ValueError(f'There are {len(self.atomic_numbers)} elements but {self.self_energies.size} energies.')
        self.members = len(members)
        self.device = device
        self.hartree_in_ev = hartree_in_ev
        self._constants = read_constants(computer, dtype, device)
        self._networks = [
            stack_networks([member.atomics[symbol] for member in members], dtype, device) for symbol in model.symbols
        ]
        width = self._networks[0].weights[0].shape[0]
        if width != int(computer.out_dim) or any(n.weights[0].shape[0] != width for n in self._networks):
            raise ValueError('The networks do not fit the descriptor.')
        self._scratch = Scratch(dtype, device)
        self._restricted: dict[tuple[int, ...], list[ElementNetworks]] = {}
        self._element_of = np.full(max(self.atomic_numbers) + 1, -1, dtype=np.int64)
        self._element_of[list(self.atomic_numbers)] = np.arange(len(self.atomic_numbers))

    @property
    def cutoff(self) -> float:
        """Distance beyond which atoms do not see each other, angstrom."""
        return self._constants.radial_cutoff

    def evaluate(
        self,
        numbers: Ints,
        positions: Floats,
        offsets: Ints,
        cells: Floats,
        pbc: Bools,
        request: frozenset[str] = frozenset(),
    ) -> AniResult:
        """Evaluate structures; each result is the same, within rounding, whatever else is in the batch.

        :param numbers: atomic numbers of all structures one after the other, shape ``(n_atoms,)``
        :param positions: finite coordinates, shape ``(n_atoms, 3)``, angstrom; atoms may lie outside the cell
        :param offsets: structure ``k`` holds the atoms ``offsets[k]:offsets[k + 1]``, shape ``(n + 1,)``
        :param cells: cell vectors as rows, shape ``(n, 3, 3)``, angstrom
        :param pbc: whether each direction is periodic, shape ``(n, 3)``
        :param request: of :data:`REQUESTS`
        :raises ValueError: for elements that the model does not know, structures without atoms, a degenerate cell
        """
        import torch

        batch = _batch(numbers, positions, offsets, cells, pbc)
        elements = self._elements(batch, request)
        n, n_atoms = len(batch), len(batch.numbers)
        member_energies = np.empty((self.members, n))
        forces = np.empty((n_atoms, 3)) if 'forces' in request else None
        spread = np.empty((n_atoms, 3)) if 'forces_std' in request else None
        stress = np.empty((n, 3, 3)) if 'stress' in request else None
        with torch.inference_mode():
            for structures in _chunks(batch, elements, ATOMS_PER_CHUNK):
                chunk, atoms = batch.selected(structures)
                part = self._evaluate_chunk(chunk, elements[atoms], request)
                member_energies[:, structures] = part.energies
                if forces is not None and part.forces is not None:
                    forces[atoms] = part.forces
                if spread is not None and part.forces_std is not None:
                    spread[atoms] = part.forces_std
                if stress is not None and part.stress is not None:
                    stress[structures] = part.stress
        shifts = np.add.reduceat(self.self_energies[elements], batch.offsets[:-1]) if n else np.empty(0)
        member_energies = (member_energies + shifts) * self.hartree_in_ev
        asked = member_energies if 'member_energies' in request else None
        return AniResult(member_energies.mean(axis=0), asked, forces, stress, spread)

    def estimate_bytes(
        self,
        numbers: Ints,
        positions: Floats,
        offsets: Ints,
        cells: Floats,
        pbc: Bools,
        request: frozenset[str] = frozenset(),
    ) -> int:
        """Peak memory that :meth:`evaluate` takes for this batch beside what the process already holds, in bytes.

        Parameters are those of :meth:`evaluate`. The estimate counts pairs and triples of atoms, which costs a few
        percent of the evaluation. Seen: 1.1 to 1.7 times the true peak, for batches that need over 200 MB. Between
        calls up to 0.5 GB of scratch memory is kept.
        """
        batch = _batch(numbers, positions, offsets, cells, pbc)
        elements = self._elements(batch, request)
        peak = 0
        for structures in _chunks(batch, elements, ATOMS_PER_CHUNK):
            chunk, atoms = batch.selected(structures)
            pairs = find_half_pairs(chunk.positions, chunk.offsets, chunk.cells, chunk.pbc, self.cutoff)
            present, counts = np.unique(elements[atoms], return_counts=True)
            total = descriptor_bytes(pairs, len(atoms), self._constants, bool(request & GRADIENTS))
            width = len(self._columns(tuple(present.tolist())))
            for element, count in zip(present.tolist(), counts.tolist(), strict=True):
                values = self._networks[element].values_per_atom(
                    width, bool(request & GRADIENTS), 'forces_std' in request
                )
                total += count * values * self._networks[element].final_bias.element_size()
            peak = max(peak, total)
        return peak

    def _elements(self, batch: Batch, request: frozenset[str]) -> Ints:
        """Number of each atom's element in the model, after checking what can be checked at no cost."""
        if unknown := request - REQUESTS:
            raise ValueError(f'Request {sorted(unknown)[0]!r} is unknown.')
        n, n_atoms = len(batch), len(batch.numbers)
        if batch.positions.shape != (n_atoms, 3) or batch.cells.shape != (n, 3, 3) or batch.pbc.shape != (n, 3):
            raise ValueError('The shapes of the batch do not fit together.')
        if batch.offsets[0] != 0 or batch.offsets[-1] != n_atoms or np.any(np.diff(batch.offsets) < 1):
            raise ValueError('Every structure of a batch needs at least one atom.')
        known = (batch.numbers >= 0) & (batch.numbers < len(self._element_of))
        elements = np.where(known, self._element_of[np.where(known, batch.numbers, 0)], -1)
        if np.any(elements < 0):
            raise ValueError(f'Atomic number {int(batch.numbers[elements < 0][0])} is not known to the model.')
        return elements

    def _evaluate_chunk(self, batch: Batch, elements: Ints, request: frozenset[str]) -> AniResult:
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
        topology = build_topology(pairs, rows, local[order], self._constants, self.device)
        environment = Environment(
            topology,
            self._constants,
            torch.from_numpy(pairs.vectors).to(self.device),
            torch.from_numpy(pairs.distances).to(self.device),
            self._scratch,
        )
        networks = self._restricted_networks(tuple(present.tolist()))
        outputs = [
            network.forward(features, self._scratch)
            for network, features in zip(networks, torch.split(environment.features(), counts), strict=True)
        ]
        atomic = torch.cat([energies for energies, _ in outputs], dim=1).double().cpu().numpy()
        energies = np.add.reduceat(atomic[:, rows], batch.offsets[:-1], axis=1)
        if not request & GRADIENTS:
            return AniResult(energies)
        each = 'forces_std' in request
        gradients = [
            network.backward(slopes, each, self._scratch)
            for network, (_, slopes) in zip(networks, outputs, strict=True)
        ]
        del outputs
        if not each:
            on_pairs = environment.pair_gradients(torch.cat(gradients)).cpu().numpy() * self.hartree_in_ev
            spread = None
        else:
            samples = []
            total = np.zeros((3, len(pairs)))
            for member in range(self.members):
                gradient = torch.cat([part[member] for part in gradients])
                on_pairs = environment.pair_gradients(gradient).cpu().numpy() * self.hartree_in_ev
                samples.append(_forces(pairs, on_pairs, len(elements)))
                total += on_pairs
            on_pairs = total / self.members
            spread = np.std(samples, axis=0, ddof=1) if self.members > 1 else np.full((len(elements), 3), np.nan)
        forces = _forces(pairs, on_pairs, len(elements)) if 'forces' in request else None
        stress = _stress(pairs, on_pairs, batch) if 'stress' in request else None
        return AniResult(energies, None, forces, stress, spread)

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


def _parts(model: Any) -> tuple[Any, list[Any]]:
    """Descriptor and ensemble members of a model, after making sure that there is nothing else in it."""
    from torchani.arch import ANI
    from torchani.nn import ANINetworks, Ensemble
    from torchani.potentials import NNPotential

    if type(model) is not ANI:
        raise ValueError(f'Models of type {type(model).__name__} are not understood.')
    for name, potential in model.potentials.items():
        if name != 'nnp' and potential._enabled:
            raise ValueError(f'The model has the extra potential {name}, which is not understood.')
    potential = model.potentials['nnp']
    if type(potential) is not NNPotential or not potential._enabled:
        raise ValueError('The neural network potential of the model is switched off or not understood.')
    networks = potential.neural_networks
    members = [networks]
    if type(networks) is Ensemble:
        members = [networks.members[index] for index in networks.active_members_idxs]
    if not members or any(type(member) is not ANINetworks for member in members):
        raise ValueError("The model's networks are not understood.")
    return potential.aev_computer, members


def _batch(numbers: Ints, positions: Floats, offsets: Ints, cells: Floats, pbc: Bools) -> Batch:
    return Batch(
        np.ascontiguousarray(numbers, dtype=np.int64),
        np.ascontiguousarray(positions, dtype=np.float64),
        np.ascontiguousarray(offsets, dtype=np.int64),
        np.ascontiguousarray(cells, dtype=np.float64),
        np.ascontiguousarray(pbc, dtype=np.bool_),
    )


def _chunks(batch: Batch, elements: Ints, limit: int) -> Iterator[Ints]:
    """Split the structures into pieces of about as many atoms, those with the same elements together."""
    sizes = np.diff(batch.offsets)
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


def _forces(pairs: HalfPairs, gradients: Floats, atoms: int) -> Floats:
    """Sum the gradients with respect to difference vectors, shape ``(3, pairs)``, into forces on the atoms."""
    forces = np.empty((atoms, 3))
    for axis in range(3):
        forces[:, axis] = np.bincount(pairs.first, gradients[axis], atoms)
        forces[:, axis] -= np.bincount(pairs.second, gradients[axis], atoms)
    return forces


def _stress(pairs: HalfPairs, gradients: Floats, batch: Batch) -> Floats:
    """Symmetric stress of each structure from the virial of its pairs."""
    n = len(batch)
    owner = np.repeat(np.arange(n), np.diff(batch.offsets))[pairs.first]
    virial = np.empty((n, 3, 3))
    for row in range(3):
        for column in range(3):
            virial[:, row, column] = np.bincount(owner, pairs.vectors[:, row] * gradients[column], n)
    volume = np.abs(np.linalg.det(batch.cells))
    bulk = batch.pbc.all(axis=1)
    stress = np.full((n, 3, 3), np.nan)
    stress[bulk] = (0.5 * (virial + virial.transpose(0, 2, 1)))[bulk] / volume[bulk, None, None]
    return stress
