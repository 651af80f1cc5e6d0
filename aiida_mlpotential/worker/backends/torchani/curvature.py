"""Second derivatives of atomic environment vectors and of networks of ANI models, written out by hand.

A vector depends on pairs and triples of atoms only, whose second derivatives are small matrices; and the energy of an
atom is a feed-forward network with one output of it, whose second derivative is a sum over layers: with the inputs
``z_l`` of the activations, their derivatives ``dz_l`` by the coordinates, and ``u_l`` the derivative of the output by
what the activation gives, it is ``sum_l dz_l^T diag(u_l a''(z_l)) dz_l`` (the chain rule twice; the layers themselves
are linear). So the derivatives of a layer are carried forward once for each coordinate, and nothing is carried back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .aev import COS_DAMPING
from .networks import LOWEST_EXPONENT

if TYPE_CHECKING:
    from torch import Tensor

    from .aev import Constants
    from .networks import ElementNetworks


@dataclass(frozen=True)
class NetworkCurvature:
    """What the networks of one element say of some atoms.

    :ivar gradient: of each member's energy by the vectors, ``(m, atoms, features)``
    :ivar slopes: derivative of the activations, one a layer, ``(m, atoms, width)``
    :ivar weights: ``u a''``, one a layer, ``(m, atoms, width)``
    """

    gradient: Tensor
    slopes: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]


def differentiate_networks(networks: ElementNetworks, features: Tensor) -> NetworkCurvature:
    """Evaluate the networks of one element, and differentiate them once by hand.

    The derivative of the activation is exact here; that of the forces is 1.5e-8 off, as torch's is.

    :param features: ``(atoms, features)``
    """
    import torch

    atoms, members = features.shape[0], networks.members
    inputs = torch.addmm(networks.biases[0], features, networks.weights[0])
    inputs = inputs.view(atoms, members, -1).transpose(0, 1)
    slopes, bends = [], []
    outputs = features
    for layer in range(len(networks.weights)):
        if layer:
            inputs = torch.baddbmm(networks.biases[layer], outputs, networks.weights[layer])
        slopes.append(inputs.clamp(min=LOWEST_EXPONENT, max=0.0).exp_())
        bends.append(torch.where(inputs < 0.0, slopes[-1], torch.zeros_like(inputs)))
        outputs = inputs.clamp(min=0.0).add_(slopes[-1]).sub_(1.0)
    pull = networks.final_weight[:, None, :].expand(members, atoms, -1)
    weights = []
    for layer in range(len(networks.weights) - 1, -1, -1):
        weights.append(pull * bends[layer])
        if layer:
            pull = torch.bmm(pull * slopes[layer], networks.weights[layer].transpose(1, 2))
    first = networks.weights[0].view(features.shape[1], members, -1).permute(1, 2, 0)
    gradient = torch.bmm(pull * slopes[0], first)
    return NetworkCurvature(gradient, tuple(slopes), tuple(reversed(weights)))


def network_hessians(networks: ElementNetworks, found: NetworkCurvature, inputs: Tensor) -> Tensor:
    """Return the part of the second derivatives that the networks bend, for each member.

    :param inputs: derivatives of the first layer's input by q coordinates of each atom, ``(atoms, q, m * width)``
    :return: ``(m, atoms, q, q)``
    """
    import torch

    atoms, q = inputs.shape[:2]
    members = networks.members
    tangents = inputs.view(atoms, q, members, -1).permute(2, 0, 1, 3).contiguous()
    result = torch.zeros((members * atoms, q, q), dtype=inputs.dtype, device=inputs.device)
    for layer, (slopes, weights) in enumerate(zip(found.slopes, found.weights, strict=True)):
        if layer:
            flat = tangents.view(members, atoms * q, -1)
            tangents = torch.bmm(flat, networks.weights[layer]).view(members, atoms, q, -1)
        right = (tangents * weights[:, :, None, :]).view(members * atoms, q, -1)
        result.baddbmm_(tangents.view(members * atoms, q, -1), right.transpose(1, 2))
        if layer < len(found.slopes) - 1:
            tangents = tangents * slopes[:, :, None, :]
    return result.view(members, atoms, q, q)


class RadialTerms:
    """Radial terms of edges (pairs seen from one of their atoms): first and second derivatives.

    :ivar slopes: derivatives of the terms by the vector of the edge, ``(edges, 3, features)``
    """

    def __init__(self, constants: Constants, units: Tensor, distances: Tensor) -> None:
        """
        :param units: vectors of length 1 from the centre to its neighbours, ``(edges, 3)``
        :param distances: ``(edges,)``
        """
        cut = _cosine_cutoff(distances, constants.radial_cutoff)
        gauss = _gaussians(distances[:, None] - constants.radial_shifts.t(), constants.radial_eta)
        self._first = 0.25 * (gauss[1] * cut[0][:, None] + gauss[0] * cut[1][:, None])
        self._second = 0.25 * (
            gauss[2] * cut[0][:, None] + 2.0 * gauss[1] * cut[1][:, None] + gauss[0] * cut[2][:, None]
        )
        self._units, self._distances = units, distances
        self.slopes = units[:, :, None] * self._first[:, None, :]

    def blocks(self, gradient: Tensor) -> Tensor:
        """Return second derivatives by the vector of the edge, weighted with a gradient by the terms.

        :param gradient: ``(m, edges, features)``
        :return: ``(m, edges, 3, 3)``
        """
        slope = (gradient * self._first).sum(-1) / self._distances
        bend = (gradient * self._second).sum(-1) - slope
        return _times(bend, _outer(self._units, self._units)) + _times(slope, _identity(slope))


class AngularTerms:
    """Angular terms of triples (two edges of the same centre): first and second derivatives.

    A term is ``2 f(mean distance) s(cosine) c(distance 1) c(distance 2)``, a function of three numbers.

    :ivar slopes: derivatives of the terms by the vectors of the two edges, each ``(triples, 3, features)``
    """

    def __init__(self, constants: Constants, units: tuple[Tensor, Tensor], distances: tuple[Tensor, Tensor]) -> None:
        """
        :param units: of the one and the other edge of each triple, ``(triples, 3)``
        :param distances: ``(triples,)``
        """
        import torch

        self._units, self._distances = units, distances
        self._cut = [_cosine_cutoff(distance, constants.angular_cutoff) for distance in distances]
        self._cosine = (units[0] * units[1]).sum(-1)
        mean = 0.5 * (distances[0] + distances[1])
        self._shifted = _gaussians(mean[:, None] - constants.angular_shifts.t(), constants.angular_eta)
        self._turned = _sections(constants, COS_DAMPING * self._cosine)
        # derivatives of the cosine by the two vectors
        self._tilts = [
            (units[1 - side] - self._cosine[:, None] * units[side]) / distances[side][:, None] for side in (0, 1)
        ]
        both = self._cut[0][0] * self._cut[1][0]
        by_cosine = _product(2.0 * COS_DAMPING * both[:, None] * self._shifted[0], self._turned[1])
        self.slopes = []
        for side in (0, 1):
            bent = self._cut[side][1] * self._cut[1 - side][0]
            factor = both[:, None] * self._shifted[1] + 2.0 * bent[:, None] * self._shifted[0]
            by_distance = _product(factor, self._turned[0])
            slope = units[side][:, :, None] * by_distance[:, None, :]
            self.slopes.append(torch.addcmul(slope, self._tilts[side][:, :, None], by_cosine[:, None, :]))

    def blocks(self, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return second derivatives by the vectors of the edges, weighted with a gradient by the terms.

        :param gradient: ``(m, triples, features)``
        :return: by the one twice, by the other twice, and by the one (rows) and the other, each ``(m, triples, 3, 3)``
        """
        import torch

        members, triples = gradient.shape[:2]
        table = gradient.view(members, triples, self._shifted[0].shape[1], self._turned[0].shape[1])
        # sum over features of gradient times the p-th derivative of f and the q-th of s
        sums = torch.einsum('ptk,mtkl,qtl->pqmt', torch.stack(self._shifted), table, torch.stack(self._turned))
        (d1, d2), cut1, cut2 = self._distances, self._cut[0], self._cut[1]
        (u1, u2), (t1, t2), cosine = self._units, self._tilts, self._cosine
        damping = COS_DAMPING
        c00, c10, c01 = cut1[0] * cut2[0], cut1[1] * cut2[0], cut1[0] * cut2[1]
        first = [sums[1, 0] * c00 + 2.0 * sums[0, 0] * c for c in (c10, c01)]
        by_cosine = 2.0 * damping * sums[0, 1] * c00
        twice_cosine = 2.0 * damping**2 * sums[0, 2] * c00
        mixed = [damping * (sums[1, 1] * c00 + 2.0 * sums[0, 1] * c) for c in (c10, c01)]
        second = [
            0.5 * sums[2, 0] * c00 + 2.0 * sums[1, 0] * c + 2.0 * sums[0, 0] * bent
            for c, bent in ((c10, cut1[2] * cut2[0]), (c01, cut1[0] * cut2[2]))
        ]
        crossed = 0.5 * sums[2, 0] * c00 + sums[1, 0] * (c10 + c01) + 2.0 * sums[0, 0] * cut1[1] * cut2[1]
        own = []
        for side, (u, t, d) in enumerate(((u1, t1, d1), (u2, t2, d2))):
            ut = _outer(u, t)
            block = _times(second[side] - first[side] / d + by_cosine * cosine / d**2, _outer(u, u))
            block += _times(first[side] / d - by_cosine * cosine / d**2, _identity(d))
            block += _times(mixed[side] - by_cosine / d, ut + ut.transpose(-1, -2))
            own.append(block + _times(twice_cosine, _outer(t, t)))
        across = _times(crossed, _outer(u1, u2)) + _times(twice_cosine, _outer(t1, t2))
        across += _times(mixed[0] - by_cosine / d1, _outer(u1, t2)) + _times(mixed[1], _outer(t1, u2))
        across += _times(by_cosine / (d1 * d2), _identity(d1) - _outer(u2, u2))
        return own[0], own[1], across


def _cosine_cutoff(distances: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cutoff function ``(1 + cos(pi d / cutoff)) / 2`` and its two derivatives."""
    rate = np.pi / cutoff
    cosine, sine = (distances * rate).cos(), (distances * rate).sin()
    return 0.5 + 0.5 * cosine, -0.5 * rate * sine, -0.5 * rate**2 * cosine


def _gaussians(offsets: Tensor, eta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``exp(-eta x^2)`` and its two derivatives."""
    value = (offsets.square() * -eta).clamp_(min=LOWEST_EXPONENT).exp_()
    return value, -2.0 * eta * offsets * value, (4.0 * eta**2 * offsets.square() - 2.0 * eta) * value


def _sections(constants: Constants, cosine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``((1 + cos(angle - section)) / 2)^zeta`` and its two derivatives by the cosine."""
    cosine = cosine[:, None]
    sine = (1.0 - cosine.square()).clamp(min=1e-12).sqrt()
    along, across, zeta = constants.section_cos.t(), constants.section_sin.t(), constants.zeta
    half = (0.5 + 0.5 * (along * cosine + across * sine)).clamp(min=1e-12)
    slope, bend = 0.5 * (along - across * cosine / sine), -0.5 * across / sine**3
    value = (half.log() * zeta).clamp(min=LOWEST_EXPONENT).exp()
    first = zeta * value / half
    return value, first * slope, (zeta - 1.0) * first / half * slope.square() + first * bend


def _product(shifted: Tensor, turned: Tensor) -> Tensor:
    """Return all products of two rows of numbers, ``(triples, shifts * sections)``."""
    return (shifted[:, :, None] * turned[:, None, :]).flatten(1)


def _outer(one: Tensor, two: Tensor) -> Tensor:
    return one[:, :, None] * two[:, None, :]


def _times(factors: Tensor, matrices: Tensor) -> Tensor:
    return factors[..., None, None] * matrices


def _identity(like: Tensor) -> Tensor:
    import torch

    return torch.eye(3, dtype=like.dtype, device=like.device)
