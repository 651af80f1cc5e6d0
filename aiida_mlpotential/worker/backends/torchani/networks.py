"""Evaluate the atomic networks of all members of an ANI ensemble together, with gradients written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: alpha of torchani's TightCELU activation.
CELU_ALPHA = 0.1


@dataclass(frozen=True)
class ElementNetworks:
    """The networks of one element, stacked over members, in a form that makes the activation cheap.

    The activation is ``celu(x) = alpha * (relu(z) + min(exp(z), 1) - 1)`` with ``z = x / alpha``. The layers below
    are scaled to give ``z`` and to take ``relu(z) + min(exp(z), 1)``; ``min(exp(z), 1)`` is also the derivative.

    :param weights: one a layer, shape ``(members, inputs, outputs)``; of the first the transpose of the
        concatenation over members, ``(inputs, members * outputs)``
    :param biases: one a layer, shape ``(members, 1, outputs)``; of the first ``(members * outputs,)``
    :param final_weight: shape ``(members, outputs of the last hidden layer)``
    :param final_bias: shape ``(members,)``
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    final_weight: Tensor
    final_bias: Tensor

    @property
    def members(self) -> int:
        return int(self.final_weight.shape[0])

    def restricted(self, columns: Tensor) -> ElementNetworks:
        """The same networks for inputs of which only these columns are given, all others being zero."""
        first = self.weights[0].index_select(0, columns)
        return ElementNetworks((first, *self.weights[1:]), self.biases, self.final_weight, self.final_bias)

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Atomic energies, shape ``(members, atoms)``, and the derivatives of the activations for the backward pass."""
        import torch

        atoms, members = features.shape[0], self.members
        hidden = torch.addmm(self.biases[0], features, self.weights[0])
        slopes = [_activate(hidden)]
        hidden = hidden.view(atoms, members, -1).transpose(0, 1)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            hidden = torch.baddbmm(bias, hidden, weight)
            slopes.append(_activate(hidden))
        energies = torch.baddbmm(self.final_bias[:, None, None], hidden, self.final_weight[:, :, None])
        return energies[:, :, 0], slopes

    def backward(self, slopes: Sequence[Tensor], each_member: bool) -> Tensor:
        """Gradient of the atomic energies with respect to the features.

        :param slopes: from :meth:`forward`
        :param each_member: for every member, shape ``(members, atoms, features)``, rather than for their mean,
            ``(atoms, features)``
        """
        import torch

        members = self.members
        scaled = self.final_weight if each_member else self.final_weight / members
        if len(slopes) == 1:
            gradient = slopes[0].view(slopes[0].shape[0], members, -1).transpose(0, 1) * scaled[:, None, :]
        else:
            gradient = slopes[-1] * scaled[:, None, :]
        for layer in range(len(self.weights) - 1, 0, -1):
            gradient = torch.bmm(gradient, self.weights[layer].transpose(1, 2))
            slope = slopes[layer - 1]
            gradient *= slope.view(slope.shape[0], members, -1).transpose(0, 1) if layer == 1 else slope
        inputs = self.weights[0].shape[0]
        first = self.weights[0].view(inputs, members, -1)
        if each_member:
            return torch.bmm(gradient, first.permute(1, 2, 0))
        total = torch.mm(gradient[0], first[:, 0].t())
        for member in range(1, members):
            total.addmm_(gradient[member], first[:, member].t())
        return total


def _activate(scaled: Tensor) -> Tensor:
    """Apply the scaled activation in place and return its derivative."""
    slope = scaled.clamp(max=0.0).exp_()
    scaled.clamp_(min=0.0).add_(slope)
    return slope


def stack_networks(networks: Sequence[Any], dtype: torch.dtype, device: str) -> ElementNetworks:
    """Stack the networks that the members of an ensemble have for one element.

    :param networks: one ``torchani.nn.AtomicNetwork`` a member
    :raises ValueError: if they are not multilayer perceptrons of the same shape with torchani's CELU and one output
    """
    import torch

    layers = [_linear_layers(network) for network in networks]
    shapes = {tuple(tuple(weight.shape) for weight, _ in member) for member in layers}
    if len(shapes) != 1:
        raise ValueError("The members of the ensemble have networks of different shapes.")
    depth = len(layers[0])
    if depth < 2 or layers[0][-1][0].shape[0] != 1:
        raise ValueError("The atomic networks need at least one hidden layer and exactly one output.")
    weights, biases = [], []
    for index in range(depth):
        weight = torch.stack([member[index][0] for member in layers]).transpose(1, 2)
        bias = torch.stack([member[index][1] for member in layers])[:, None, :]
        if index > 0:
            # The layer before leaves the constant -1 and the factor alpha of the activation to this one.
            weight = weight * CELU_ALPHA
            bias = bias - weight.sum(dim=1, keepdim=True)
        if index < depth - 1:
            weight, bias = weight / CELU_ALPHA, bias / CELU_ALPHA
        weights.append(weight.to(dtype=dtype, device=device).contiguous())
        biases.append(bias.to(dtype=dtype, device=device).contiguous())
    final_weight, final_bias = weights.pop()[:, :, 0].contiguous(), biases.pop()[:, 0, 0].contiguous()
    inputs = weights[0].shape[1]
    weights[0] = weights[0].transpose(0, 1).reshape(inputs, -1).contiguous()
    biases[0] = biases[0].reshape(-1)
    return ElementNetworks(tuple(weights), tuple(biases), final_weight, final_bias)


def _linear_layers(network: Any) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of one network in float64, after making sure that it is what it seems to be."""
    import torch
    from torchani.nn import AtomicNetwork, TightCELU

    if type(network) is not AtomicNetwork:
        raise ValueError(f"Atomic networks of type {type(network).__name__} are not understood.")
    if type(network.activation) is not TightCELU:
        raise ValueError(f"Activation {type(network.activation).__name__} is not understood, only TightCELU is.")
    layers = []
    for layer in (*network.layers, network.final_layer):
        if type(layer) is not torch.nn.Linear:
            raise ValueError(f"Network layers of type {type(layer).__name__} are not understood.")
        weight = layer.weight.detach().to(torch.float64)
        bias = weight.new_zeros(weight.shape[0]) if layer.bias is None else layer.bias.detach().to(torch.float64)
        layers.append((weight, bias))
    return layers
