"""Second derivatives of the terms of the descriptor and of the networks: those of torch, of the engine's own values."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch', reason='the torchani extra is not installed')
pytest.importorskip('torchani', reason='the torchani extra is not installed')

import torch

from aiida_mlpotential.worker.backends.torchani.aev import COS_DAMPING, place_constants
from aiida_mlpotential.worker.backends.torchani.curvature import (
    AngularTerms,
    RadialTerms,
    differentiate_networks,
    network_hessians,
)
from aiida_mlpotential.worker.backends.torchani.interop import from_torchani
from aiida_mlpotential.worker.backends.torchani.networks import CELU_ALPHA, place_networks
from aiida_mlpotential.worker.registry import ANI_FAMILIES


@pytest.fixture(params=sorted(ANI_FAMILIES))
def constants(request):
    return place_constants(ANI_FAMILIES[request.param], torch.float64, 'cpu')


def _random(*shape):
    return torch.from_numpy(np.random.default_rng(4).normal(size=shape))


def _cutoff(distance, cutoff):
    return 0.5 + 0.5 * torch.cos(distance * torch.pi / cutoff)


def _radial(vector, constants):
    distance = vector.norm()
    gauss = torch.exp(-constants.radial_eta * (distance - constants.radial_shifts[:, 0]) ** 2)
    return 0.25 * gauss * _cutoff(distance, constants.radial_cutoff)


def _angular(vectors, constants):
    """Equation 4 of the paper, with torchani's damping of the cosine."""
    one, two = vectors[:3], vectors[3:]
    angle = torch.acos(COS_DAMPING * (one @ two) / one.norm() / two.norm())
    sections = torch.atan2(constants.section_sin[:, 0], constants.section_cos[:, 0])
    turned = ((1 + torch.cos(angle - sections)) / 2) ** constants.zeta
    mean = (one.norm() + two.norm()) / 2
    shifted = torch.exp(-constants.angular_eta * (mean - constants.angular_shifts[:, 0]) ** 2)
    cut = _cutoff(one.norm(), constants.angular_cutoff) * _cutoff(two.norm(), constants.angular_cutoff)
    return (2 * shifted[:, None] * turned[None] * cut).flatten()


def test_radial_terms(constants):
    vectors = _random(5, 3) + 1.0
    lengths = vectors.norm(dim=1)
    terms = RadialTerms(constants, vectors / lengths[:, None], lengths)
    gradient = _random(2, 5, constants.radial_features)
    blocks = terms.blocks(gradient)
    for edge, vector in enumerate(vectors):
        slopes = torch.autograd.functional.jacobian(lambda x: _radial(x, constants), vector)
        torch.testing.assert_close(terms.slopes[edge].T, slopes, rtol=1e-10, atol=1e-12)
        for member in range(2):
            weighted = gradient[member, edge]
            expected = torch.autograd.functional.hessian(lambda x: (_radial(x, constants) * weighted).sum(), vector)  # noqa: B023
            torch.testing.assert_close(blocks[member, edge], expected, rtol=1e-9, atol=1e-11)


def test_angular_terms(constants):
    vectors = 0.6 * _random(6, 6) + torch.tensor([1.0, 0.3, -0.5, -0.4, 0.9, 1.1])
    one, two = vectors[:, :3], vectors[:, 3:]
    lengths = one.norm(dim=1), two.norm(dim=1)
    terms = AngularTerms(constants, (one / lengths[0][:, None], two / lengths[1][:, None]), lengths)
    gradient = _random(2, 6, constants.angular_features)
    own, other, across = terms.blocks(gradient)
    for triple, both in enumerate(vectors):
        slopes = torch.autograd.functional.jacobian(lambda x: _angular(x, constants), both).T
        found = torch.cat([terms.slopes[0][triple], terms.slopes[1][triple]])
        torch.testing.assert_close(found, slopes, rtol=1e-9, atol=1e-11)
        for member in range(2):
            weighted = gradient[member, triple]
            expected = torch.autograd.functional.hessian(lambda x: (_angular(x, constants) * weighted).sum(), both)  # noqa: B023
            block = across[member, triple]
            rows = torch.cat([own[member, triple], block], dim=1), torch.cat([block.T, other[member, triple]], dim=1)
            torch.testing.assert_close(torch.cat(rows), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.slow
def test_networks(random_model):
    parameters = from_torchani(random_model(2))
    layers = parameters.networks['C']
    networks = place_networks(layers, torch.float64, 'cpu')
    width = networks.weights[0].shape[0]
    features = 0.3 * _random(3, width)
    found = differentiate_networks(networks, features)

    def energy(x, member):
        for index, layer in enumerate(layers):
            weight, bias = (torch.from_numpy(np.array(part[member], dtype='f8')) for part in (layer.weight, layer.bias))
            x = weight @ x + bias
            if index < len(layers) - 1:
                x = torch.where(x > 0, x, CELU_ALPHA * torch.expm1(x.clamp(max=0) / CELU_ALPHA))
        return x[0]

    # all coordinates are those of the descriptor: the derivative of the first layer's input is its weight
    inputs = networks.weights[0].expand(3, -1, -1).contiguous()
    hessians = network_hessians(networks, found, inputs)
    for member in range(2):
        for atom in range(3):
            x = features[atom]
            slope = torch.autograd.functional.jacobian(lambda y: energy(y, member), x)  # noqa: B023
            torch.testing.assert_close(found.gradient[member, atom], slope, rtol=1e-9, atol=1e-11)
            expected = torch.autograd.functional.hessian(lambda y: energy(y, member), x)  # noqa: B023
            assert expected.abs().max() > 1e-3
            torch.testing.assert_close(hessians[member, atom], expected, rtol=1e-8, atol=1e-10)
