"""Atomic environment vectors (AEVs) of ANI models over a flat batch, and their gradients written out by hand.

Radial and angular terms are equations 3 and 4 of Smith, Isayev, Roitberg, Chem. Sci. 8 (2017) 3192, with torchani's
factors 0.25 and 0.95. Only the columns of elements that are present are built: all others are exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...neighbors import ragged_triangle
from .networks import LOWEST_EXPONENT

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from ...neighbors import HalfPairs
    from ...registry import AniFamily
    from .networks import Scratch

    Ints = NDArray[np.int64]

#: torchani multiplies the cosine of an angle by this to keep its arc cosine differentiable.
COS_DAMPING = 0.95


@dataclass(frozen=True)
class Constants:
    """The constants of a descriptor as tensors on the device, ready for broadcasting.

    ``*_shifts`` have shape ``(features, 1)``; ``section_cos`` and ``section_sin`` are the cosine and sine of the
    angular sections, ``(sections, 1)``; ``spread_*`` repeat shifts and sections into the columns of their products,
    ``(shifts, shifts * sections)`` and ``(sections, shifts * sections)``.
    """

    radial_cutoff: float
    angular_cutoff: float
    radial_eta: float
    angular_eta: float
    zeta: float
    radial_shifts: Tensor
    angular_shifts: Tensor
    section_cos: Tensor
    section_sin: Tensor
    spread_shifts: Tensor
    spread_sections: Tensor

    @property
    def radial_features(self) -> int:
        """Columns for each element."""
        return int(self.radial_shifts.shape[0])

    @property
    def angular_features(self) -> int:
        """Columns for each pair of elements."""
        return int(self.spread_shifts.shape[1])


def place_constants(family: AniFamily, dtype: torch.dtype, device: str) -> Constants:
    """Put the constants of a family on the device."""
    import torch

    def column(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).view(-1, 1)

    sections, shifts = column(family.angular_sections), column(family.angular_shifts)
    spread_shifts = torch.eye(len(shifts)).repeat_interleave(len(sections), dim=1)
    spread_sections = torch.eye(len(sections)).repeat(1, len(shifts))
    tensors = (column(family.radial_shifts), shifts, sections.cos(), sections.sin(), spread_shifts, spread_sections)
    placed = [tensor.to(dtype=dtype, device=device).contiguous() for tensor in tensors]
    return Constants(
        family.radial_cutoff,
        family.angular_cutoff,
        family.radial_eta,
        family.angular_eta,
        family.angular_zeta,
        *placed,
    )


@dataclass(frozen=True)
class Topology:
    """Which pairs and triples go into which block of which atom's vector. Plain indices, no derivatives.

    ``radial_*``: half pairs seen from both atoms, sorted by block. ``edge_*``: half pairs within the angular cutoff
    seen from both atoms ("edges"), sorted by centre and then element. ``side1``, ``side2``: the two edges of each
    triple, sorted by block.
    """

    atoms: int
    species: int
    radial_pairs: Tensor
    radial_starts: Tensor
    radial_blocks: tuple[Tensor, Tensor]
    angular_pairs: Tensor
    edge_pairs: Tensor
    edge_signs: Tensor
    edge_forward: Tensor
    edge_backward: Tensor
    side1: Tensor
    side2: Tensor
    triple_blocks: Tensor
    triple_starts: Tensor


def build_topology(pairs: HalfPairs, rows: Ints, elements: Ints, constants: Constants, device: str) -> Topology:
    """Sort pairs and triples into the blocks of the atoms' vectors.

    :param pairs: neighbours within the radial cutoff
    :param rows: row of each atom in the matrix of vectors, shape ``(atoms,)``
    :param elements: element of each *row*, numbered from 0 without gaps, shape ``(atoms,)``
    """
    import torch

    atoms, species = len(rows), int(elements.max()) + 1
    first, second = rows[pairs.first], rows[pairs.second]
    blocks = np.concatenate([first * species + elements[second], second * species + elements[first]])
    order = np.argsort(blocks)
    close = np.flatnonzero(pairs.distances <= constants.angular_cutoff)
    n_close = len(close)
    centres = np.concatenate([first[close], second[close]])
    others = elements[np.concatenate([second[close], first[close]])]
    edge_order = np.argsort(centres * species + others)
    edge_rank = np.empty(2 * n_close, dtype=np.int64)
    edge_rank[edge_order] = np.arange(2 * n_close)
    centres, others = centres[edge_order], others[edge_order]
    side1, side2, triple_blocks, triple_starts = _sorted_triples(centres, others, atoms, species)

    def put(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(device)

    n_pairs = len(pairs)
    return Topology(
        atoms,
        species,
        put(order % max(n_pairs, 1)),
        put(_starts(blocks, atoms * species)),
        (put(blocks[:n_pairs]), put(blocks[n_pairs:])),
        put(close),
        put(edge_order % max(n_close, 1)),
        put(np.where(edge_order < n_close, 1.0, -1.0)),
        put(edge_rank[:n_close]),
        put(edge_rank[n_close:]),
        put(side1),
        put(side2),
        put(triple_blocks),
        put(triple_starts),
    )


def descriptor_bytes(pairs: HalfPairs, atoms: int, constants: Constants, gradients: bool) -> int:
    """Peak memory of building the vectors of a batch, and of their gradients, from counts of pairs and triples."""
    close = pairs.distances <= constants.angular_cutoff
    neighbours = np.bincount(pairs.first[close], minlength=atoms) + np.bincount(pairs.second[close], minlength=atoms)
    triples = int((neighbours * (neighbours - 1) // 2).sum())
    shifts, sections = len(constants.angular_shifts), len(constants.section_cos)
    size = constants.radial_shifts.element_size()
    per_pair = 300 + 6 * constants.radial_features * size
    values = 13 + 2 * sections + 3 * shifts + 2 * constants.angular_features
    if gradients:
        values += 8 + sections + 2 * shifts + constants.angular_features
    return len(pairs) * per_pair + triples * (32 + values * size)


def _starts(blocks: Ints, count: int) -> Ints:
    """Where each block begins once they are sorted."""
    sizes = np.bincount(blocks, minlength=count)
    return np.cumsum(sizes) - sizes


def _sorted_triples(centres: Ints, others: Ints, atoms: int, species: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Pairs of edges of the same centre, sorted by block, with their blocks and where these begin."""
    side1, side2 = ragged_triangle(np.bincount(centres, minlength=atoms))
    upper1, upper2 = np.triu_indices(species)
    pair_number = np.zeros((species, species), dtype=np.int64)
    pair_number[upper1, upper2] = np.arange(len(upper1))
    # Edges are sorted by element within a centre, so the element of side1 is never above that of side2.
    offset = (centres * len(upper1)).take(side1)
    blocks = offset + pair_number.ravel().take((others * species).take(side1) + others.take(side2))
    order = np.argsort(blocks, kind='stable')
    return side1.take(order), side2.take(order), blocks.take(order), _starts(blocks, atoms * len(upper1))


def _sum_blocks(terms: Tensor, rows: Tensor | None, starts: Tensor) -> Tensor:
    """Sum rows of a matrix over consecutive blocks of an index list."""
    import torch

    if rows is None:
        rows = torch.arange(terms.shape[0], device=terms.device)
    if len(rows) == 0:  # not every device need cope with an empty matrix
        return terms.new_zeros((len(starts), terms.shape[1]))
    return torch.nn.functional.embedding_bag(rows, terms, starts, mode='sum')


class Environment:
    """The atomic environment vectors of one batch: build once, then ask for gradients as often as needed."""

    def __init__(
        self, topology: Topology, constants: Constants, vectors: Tensor, distances: Tensor, scratch: Scratch
    ) -> None:
        """
        :param vectors: difference vectors of the half pairs, shape ``(pairs, 3)``, float64
        :param distances: their lengths, float64
        """
        self._topology = topology
        self._constants = constants
        self._scratch = scratch
        self._dtype = constants.radial_shifts.dtype
        self._distances = distances.to(self._dtype)
        self._units = (vectors / distances.clamp(min=1e-10)[:, None]).t()
        self._build_radial()
        self._build_angular()

    def _build_radial(self) -> None:
        constants, topology = self._constants, self._topology
        angle = self._distances * (np.pi / constants.radial_cutoff)
        # 0.25 times the cutoff function 0.5 + 0.5 cos
        self._radial_factor = angle.cos().mul_(0.125).add_(0.125)
        self._radial_slope = angle.sin_().mul_(-0.125 * np.pi / constants.radial_cutoff)
        self._radial_offsets = self._distances - constants.radial_shifts
        self._gaussians = self._radial_offsets.square().mul_(-constants.radial_eta)
        self._gaussians.clamp_(min=LOWEST_EXPONENT).exp_()
        terms = (self._gaussians * self._radial_factor).t().contiguous()
        summed = _sum_blocks(terms, topology.radial_pairs, topology.radial_starts)
        self.radial = summed.view(topology.atoms, -1)

    def _build_angular(self) -> None:
        import torch

        constants, topology = self._constants, self._topology
        signs = topology.edge_signs
        units = self._units.index_select(1, topology.angular_pairs).index_select(1, topology.edge_pairs) * signs
        lengths = self._distances.index_select(0, topology.angular_pairs).index_select(0, topology.edge_pairs)
        angle = lengths * (np.pi / constants.angular_cutoff)
        self._edges = torch.empty((6, len(lengths)), dtype=self._dtype, device=lengths.device)
        self._edges[:3] = units
        self._edges[3] = lengths
        self._edges[4] = angle.cos().mul_(0.5).add_(0.5)
        self._edges[5] = angle.sin_().mul_(-0.5 * np.pi / constants.angular_cutoff)
        one = self._edges[:5].index_select(1, topology.side1)
        two = self._edges[:5].index_select(1, topology.side2)
        self._unit1, self._unit2 = one[:3], two[:3]
        self._cosine = (one[0] * two[0]).addcmul_(one[1], two[1]).addcmul_(one[2], two[2]).mul_(COS_DAMPING)
        self._sine = (1.0 - self._cosine.square()).clamp_(min=1e-12).sqrt_()
        half = (constants.section_cos * self._cosine).addcmul_(constants.section_sin, self._sine)
        self._half_angles = half.mul_(0.5).add_(0.5).clamp_(min=1e-12)
        self._sections = self._half_angles.log().mul_(constants.zeta).clamp_(min=LOWEST_EXPONENT).exp_()
        self._angular_offsets = (one[3] + two[3]).mul_(0.5) - constants.angular_shifts
        self._shifted = self._angular_offsets.square().mul_(-constants.angular_eta)
        self._shifted.clamp_(min=LOWEST_EXPONENT).exp_()
        # The factor 2 of the angular part goes along with the cutoff functions.
        self._angular_factor = (one[4] * two[4]).mul_(2.0)
        terms = self._spread(self._shifted * self._angular_factor, constants.spread_shifts)
        terms.mul_(self._spread(self._sections, constants.spread_sections))
        self.angular = _sum_blocks(terms, None, topology.triple_starts).view(topology.atoms, -1)

    def _spread(self, factors: Tensor, columns: Tensor) -> Tensor:
        """Repeat the rows of ``factors``, shape ``(k, triples)``, into the columns of all products."""
        import torch

        return torch.mm(factors.t(), columns, out=self._scratch.empty(factors.shape[1], columns.shape[1]))

    def features(self) -> Tensor:
        """All vectors, shape ``(atoms, features of the elements present)``."""
        import torch

        return torch.cat([self.radial, self.angular], dim=1)

    def pair_gradients(self, gradient: Tensor) -> Tensor:
        """Turn the gradient with respect to the vectors into one with respect to the half pairs' difference vectors.

        :param gradient: shape ``(atoms, features)``
        :return: shape ``(3, pairs)``, float64
        """
        width = self.radial.shape[1]
        result = self._units * self._radial_gradients(gradient[:, :width])
        angular = self._angular_gradients(gradient[:, width:])
        result.index_add_(1, self._topology.angular_pairs, angular)
        return result

    def _radial_gradients(self, gradient: Tensor) -> Tensor:
        """Derivative with respect to each half pair's length, both directions together, float64."""
        import torch

        constants = self._constants
        blocks = gradient.reshape(-1, constants.radial_features)
        both = blocks.index_select(0, self._topology.radial_blocks[0])
        both += blocks.index_select(0, self._topology.radial_blocks[1])
        weighted = both.t() * self._gaussians
        slope = weighted.sum(0).mul_(self._radial_slope)
        bent = weighted.mul_(self._radial_offsets).sum(0).mul_(-2.0 * constants.radial_eta)
        return slope.addcmul_(bent, self._radial_factor).to(torch.float64)

    def _angular_gradients(self, gradient: Tensor) -> Tensor:
        """Derivative with respect to the vectors of the half pairs within the angular cutoff, ``(3, n)``, float64."""
        import torch

        constants, topology = self._constants, self._topology
        edges = self._edges
        blocks = self._scratch.empty(len(topology.triple_blocks), constants.angular_features)
        torch.index_select(gradient.reshape(-1, constants.angular_features), 0, topology.triple_blocks, out=blocks)
        ratio = self._cosine / self._sine
        bend = constants.section_cos - constants.section_sin * ratio
        bend.mul_(self._sections).div_(self._half_angles).mul_(0.5 * constants.zeta)
        by_shift = self._spread(self._sections, constants.spread_sections).mul_(blocks)
        value = torch.mm(constants.spread_shifts, by_shift.t()).mul_(self._shifted)
        by_angle = self._spread(bend, constants.spread_sections).mul_(blocks)
        turned = torch.mm(constants.spread_shifts, by_angle.t()).mul_(self._shifted)
        d_cosine = turned.sum(0).mul_(self._angular_factor).mul_(COS_DAMPING)
        d_factor = value.sum(0).mul_(2.0)
        d_mean = value.mul_(self._angular_offsets).sum(0).mul_(-2.0 * constants.angular_eta).mul_(self._angular_factor)
        d_mean.mul_(0.5)
        cut1 = edges[4:].index_select(1, topology.side1)
        cut2 = edges[4:].index_select(1, topology.side2)
        count = edges.shape[1]
        stretch = torch.bincount(topology.side1, (cut1[1] * cut2[0]).mul_(d_factor).add_(d_mean), count)
        stretch += torch.bincount(topology.side2, (cut2[1] * cut1[0]).mul_(d_factor).add_(d_mean), count)
        pull = torch.empty((3, count), dtype=torch.float64, device=edges.device)
        for axis in range(3):
            pull[axis] = torch.bincount(topology.side1, d_cosine * self._unit2[axis], count)
            pull[axis] += torch.bincount(topology.side2, d_cosine * self._unit1[axis], count)
        units = edges[:3].to(torch.float64)
        lengths = edges[3].to(torch.float64).clamp(min=1e-10)
        turn = (units * pull).sum(0)
        total = units * (stretch - turn / lengths) + pull / lengths
        return total.index_select(1, topology.edge_forward) - total.index_select(1, topology.edge_backward)
