"""Analytic Hessians of ANI ensembles over many structures at once, for the mean of the members or for each.

For each atom the second derivatives by the vectors to its neighbours are summed: what the networks bend, and what the
descriptor bends, weighted with the networks' gradient. They are then spread over the pairs of atoms of the structure.
Atoms of one element and about one number of neighbours are done together, as many as a piece of memory takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...frames import Frames
from ...neighbors import HalfPairs, ragged_triangle
from ..hessians import block_offsets
from .curvature import AngularTerms, RadialTerms, differentiate_networks, network_hessians

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from .aev import Constants
    from .networks import ElementNetworks

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

#: Bytes that the largest arrays of one piece take, about: what a processor's cache holds is fastest, a GPU wants more.
PIECE_BYTES = {'cpu': 16 << 20, 'cuda': 1 << 30}


@dataclass(frozen=True)
class Surroundings:
    """Edges (pairs seen from one of their atoms) and triples of a batch. Rows are the atoms, sorted by element.

    :ivar rows: row of each atom, ``(A,)``
    :ivar atoms: atom of each row, ``(A,)``
    :ivar elements: element of each row
    :ivar counts: edges of each row
    :ivar centres: row of each edge, rising; ``others`` the atom at its end; ``kinds`` the element of that
    :ivar angular: edges within the cutoff of angles; ``one`` and ``two`` are indices into them, one for each triple
    :ivar triple_ends: number of triples up to and with each row
    """

    rows: Ints
    atoms: Ints
    elements: Ints
    counts: Ints
    centres: Ints
    others: Ints
    kinds: Ints
    vectors: Floats
    distances: Floats
    angular: Ints
    one: Ints
    two: Ints
    triple_ends: Ints

    @classmethod
    def of(cls, pairs: HalfPairs, elements: Ints, angular_cutoff: float) -> Surroundings:
        """Sort what neighbours there are.

        :param elements: of each atom, numbered from 0 without gaps
        """
        n_atoms, species = len(elements), int(elements.max()) + 1
        first, second = np.concatenate([pairs.first, pairs.second]), np.concatenate([pairs.second, pairs.first])
        distances = np.concatenate([pairs.distances, pairs.distances])
        sizes = np.bincount(first, minlength=n_atoms)
        atoms = np.lexsort((sizes, elements))
        rows = np.empty(n_atoms, dtype=np.int64)
        rows[atoms] = np.arange(n_atoms)
        order = np.argsort(rows[first] * species + elements[second], kind='stable')
        centres, others = rows[first[order]], second[order]
        angular = np.flatnonzero(distances[order] <= angular_cutoff)
        near = np.bincount(centres[angular], minlength=n_atoms)
        one, two = ragged_triangle(near)
        vectors = np.concatenate([pairs.vectors, -pairs.vectors])[order]
        return cls(
            rows, atoms, elements[atoms], sizes[atoms], centres, others, elements[others], vectors, distances[order],
            angular, one, two, np.cumsum(near * (near - 1) // 2),
        )  # fmt: skip

    def pieces(self, numbers: int, limit: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of rows of one element whose arrays take about ``limit`` bytes.

        :param numbers: what each coordinate of a row's neighbours takes in the networks
        """
        triples = np.diff(self.triple_ends, prepend=0)
        start = 0
        while start < len(self.rows):
            stop = int(np.searchsorted(self.elements, self.elements[start], side='right'))
            widths = 3 * np.maximum.accumulate(self.counts[start:stop])  # the widest row is the last one
            each = widths * (numbers + 4 * widths) + np.maximum.accumulate(triples[start:stop]) * 250
            fitting = int(np.searchsorted(each * np.arange(1, stop - start + 1), limit // 8, side='right'))
            stop = start + max(1, min(fitting, stop - start))
            yield start, stop
            start = stop


@dataclass(frozen=True)
class Piece:
    """Rows of one element with their edges and triples, as tensors; edges are numbered within the piece.

    :ivar size: number of rows
    :ivar width: largest number of edges of a row
    :ivar rows: row of each edge; ``slots`` number the edges of a row; ``kinds`` are the elements at their ends
    :ivar units: vectors of length 1, ``(edges, 3)``
    :ivar sides: the edges of each triple, two of ``(triples,)``
    """

    size: int
    width: int
    rows: Tensor
    slots: Tensor
    kinds: Tensor
    units: Tensor
    distances: Tensor
    sides: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, surroundings: Surroundings, start: int, stop: int, like: Tensor) -> Piece:
        """Cut rows out.

        :param like: a tensor of the float type and on the device
        """
        import torch

        begin, end = np.searchsorted(surroundings.centres, [start, stop])
        rows = surroundings.centres[begin:end] - start
        sizes = surroundings.counts[start:stop]
        slots = np.arange(end - begin) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        first = surroundings.triple_ends[start - 1] if start else 0
        triples = slice(int(first), int(surroundings.triple_ends[stop - 1]))
        sides = [surroundings.angular[side[triples]] - begin for side in (surroundings.one, surroundings.two)]
        distances = surroundings.distances[begin:end]
        units = surroundings.vectors[begin:end] / distances.clip(1e-10)[:, None]

        def put(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(like.device)

        return cls(
            stop - start,
            int(sizes.max(initial=0)),
            put(rows),
            put(slots),
            put(surroundings.kinds[begin:end]),
            put(units).to(like.dtype),
            put(distances).to(like.dtype),
            (put(sides[0]), put(sides[1])),
        )


def edge_hessians(
    piece: Piece, networks: ElementNetworks, features: Tensor, species: int, constants: Constants
) -> Tensor:
    """Return second derivatives of the energies of the atoms of a piece by the vectors to their neighbours.

    :param features: atomic environment vectors, ``(atoms, features)``
    :param species: number of elements that the vectors are of
    :return: for each member, hartree/angstrom^2, ``(m, atoms, width, 3, width, 3)``
    """
    import torch

    found = differentiate_networks(networks, features)
    one, two = piece.sides
    radial = RadialTerms(constants, piece.units, piece.distances)
    angular = AngularTerms(
        constants, (piece.units[one], piece.units[two]), (piece.distances[one], piece.distances[two])
    )
    columns = _Columns(species, constants, features.device)
    inputs = _first_layer(piece, networks.weights[0], columns, radial, angular)
    members, width = networks.members, piece.width
    result = network_hessians(networks, found, inputs).view(members, piece.size, width, 3, width, 3)
    result = result.permute(0, 1, 2, 4, 3, 5).reshape(members, -1, 3, 3)

    def add(first: Tensor, second: Tensor, blocks: Tensor) -> None:
        slots = piece.slots
        result.index_add_(1, (piece.rows[first] * width + slots[first]) * width + slots[second], blocks)

    edges = torch.arange(len(piece.rows), device=features.device)
    gradient = found.gradient[:, piece.rows[:, None], columns.radial[piece.kinds]]
    add(edges, edges, radial.blocks(gradient))
    pairs = columns.angular[piece.kinds[one], piece.kinds[two]]
    own, other, across = angular.blocks(found.gradient[:, piece.rows[one][:, None], pairs])
    add(one, one, own)
    add(two, two, other)
    add(one, two, across)
    add(two, one, across.transpose(-1, -2))
    return result.view(members, piece.size, width, width, 3, 3)


class _Columns:
    """Where in the vectors of some elements the terms of an edge and of a triple stand.

    :ivar radial: ``(species, features)``
    :ivar angular: ``(species, species, features)``
    """

    def __init__(self, species: int, constants: Constants, device: Any) -> None:
        import torch

        first, second = np.triu_indices(species)
        number = np.zeros((species, species), dtype=np.int64)
        number[first, second] = number[second, first] = np.arange(len(first))
        radial = np.arange(species)[:, None] * constants.radial_features + np.arange(constants.radial_features)
        begin = species * constants.radial_features
        angular = begin + number[..., None] * constants.angular_features + np.arange(constants.angular_features)
        self.radial, self.angular = torch.from_numpy(radial).to(device), torch.from_numpy(angular).to(device)


def _first_layer(piece: Piece, weight: Tensor, columns: _Columns, radial: RadialTerms, angular: AngularTerms) -> Tensor:
    """Return the derivatives of the input of the first layer, ``(atoms, 3 * width, m * outputs)``.

    An edge changes only those parts of a vector that are of the element at its end: these are multiplied alone.
    """
    import torch

    edges, species = len(piece.rows), columns.radial.shape[0]
    features = columns.angular.shape[-1]
    slopes = torch.zeros((edges * species, 3, features), dtype=weight.dtype, device=weight.device)
    for side in (0, 1):
        ends = piece.kinds[piece.sides[1 - side]]
        slopes.index_add_(0, piece.sides[side] * species + ends, angular.slopes[side])
    slopes = slopes.view(edges, species, 3, features).permute(0, 2, 1, 3).reshape(edges, 3, species * features)
    slopes = torch.cat([radial.slopes, slopes], dim=2)
    result = torch.zeros((piece.size, piece.width, 3, weight.shape[1]), dtype=weight.dtype, device=weight.device)
    for kind in range(species):
        chosen = torch.nonzero(piece.kinds == kind)[:, 0]
        rows = torch.cat([columns.radial[kind], columns.angular[kind].reshape(-1)])
        result[piece.rows[chosen], piece.slots[chosen]] = slopes[chosen] @ weight[rows]
    return result.view(piece.size, 3 * piece.width, -1)


def spread(blocks: Tensor, surroundings: Surroundings, start: int, frames: Frames, result: Tensor) -> None:
    """Add second derivatives by the vectors of edges to those by positions.

    A vector leads from the centre to a neighbour, so the centre is one more neighbour, with the opposite sign.

    :param blocks: ``(m, atoms, width, width, 3, 3)`` of the rows from ``start`` on
    :param result: ``(m, sum of N^2, 3, 3)``
    """
    import torch

    members, size, width = blocks.shape[:3]
    whole = torch.zeros((members, size, width + 1, width + 1, 3, 3), dtype=blocks.dtype, device=blocks.device)
    whole[:, :, :width, :width] = blocks
    whole[:, :, width] = -whole.sum(dim=2)
    whole[:, :, :, width] = -whole[:, :, :, :width].sum(dim=3)
    atoms = surroundings.atoms[start : start + size]
    ends = np.repeat(atoms[:, None], width + 1, axis=1)  # what is padding is zero, wherever it goes
    sizes = surroundings.counts[start : start + size]
    begin = int(np.searchsorted(surroundings.centres, start))
    ends[np.arange(width + 1) < sizes[:, None]] = surroundings.others[begin : begin + int(sizes.sum())]
    frame = frames.frame_of_atom[atoms]
    local = ends - frames.offsets[frame][:, None]
    place = (block_offsets(frames)[frame][:, None] + local * frames.counts[frame][:, None])[:, :, None] + local[:, None]
    index = torch.from_numpy(place.ravel()).to(blocks.device)
    result.index_add_(1, index, whole.view(members, -1, 3, 3).to(result.dtype))
