"""Evaluate the atomic networks of all members of an ANI ensemble together, with gradients written out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .parameters import Layer

#: alpha of torchani's TightCELU activation.
CELU_ALPHA = 0.1
#: torch differentiates celu with 1/alpha taken from alpha in single precision, 1.5e-8 off. In double precision the same
#: is done here, so that forces are torchani's to the last digit; the exact derivative differs by 4e-8 eV/angstrom.
TORCH_SLOPE = float(CELU_ALPHA / np.float64(np.float32(CELU_ALPHA)))
#: Exponentials below exp(-40) count as that: it is lost beside 1 even in float64, while denormal numbers, which
#: products of smaller ones become, slow matrix products down manifold.
LOWEST_EXPONENT = -40.0
#: Scratch memory beyond this is given back after use, bytes.
KEPT_SCRATCH = 1 << 29


class Scratch:
    """One piece of memory for the large intermediates of batch after batch.

    Fresh memory costs more than the arithmetic done on it, because the system has to map and clear its pages.
    """

    def __init__(self, dtype: torch.dtype, device: str) -> None:
        self._dtype = dtype
        self._device = device
        self._pool: Tensor | None = None
        self._used = 0

    def reset(self) -> None:
        """Reuse all memory handed out so far; none of those tensors may be in use any longer."""
        import torch

        size = 0 if self._pool is None else len(self._pool)
        wanted = min(self._used + self._used // 8, KEPT_SCRATCH // self._dtype.itemsize)
        if wanted > size and self._used > size:
            self._pool = torch.empty(wanted, dtype=self._dtype, device=self._device)
        self._used = 0

    def empty(self, *shape: int) -> Tensor:
        """A tensor with arbitrary content, valid until the next :meth:`reset`."""
        import torch

        size = math.prod(shape)
        begin = self._used
        self._used += -(-size // 32) * 32
        if self._pool is None or self._used > len(self._pool):
            return torch.empty(shape, dtype=self._dtype, device=self._device)
        return self._pool[begin : begin + size].view(shape)


@dataclass(frozen=True)
class ElementNetworks:
    """The networks of one element, stacked over members, in a form that makes the activation cheap.

    The activation is ``celu(x) = alpha * (max(z, 0) + exp(min(z, 0)) - 1)`` with ``z = x / alpha``. The layers are
    scaled to give ``z`` and to take the activation without its factor; the exponential is also the derivative.

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
        """Number of ensemble members."""
        return int(self.final_weight.shape[0])

    def values_per_atom(self, width: int, gradients: bool, each_member: bool) -> int:
        """How many numbers an evaluation holds for each atom with vectors of this width."""
        hidden = self.final_weight.shape[1] + sum(weight.shape[1] for weight in self.weights[1:])
        # All slopes, but of the rest only what belongs to the element at work.
        values = (3 * self.members * hidden) // 2 + 3 * width
        if gradients:
            values += 2 * width
        if each_member:
            values += self.members * width
        return int(values)

    def restricted(self, columns: Tensor) -> ElementNetworks:
        """The same networks for inputs of which only these columns are given, all others being zero."""
        first = self.weights[0].index_select(0, columns)
        return ElementNetworks((first, *self.weights[1:]), self.biases, self.final_weight, self.final_bias)

    def forward(self, features: Tensor, scratch: Scratch) -> tuple[Tensor, list[Tensor]]:
        """Atomic energies, shape ``(members, atoms)``, and the derivatives of the activations for the backward pass."""
        import torch

        atoms, members = features.shape[0], self.members
        hidden = scratch.empty(atoms, self.weights[0].shape[1])
        torch.addmm(self.biases[0], features, self.weights[0], out=hidden)
        slopes = [_activate(hidden, scratch).view(atoms, members, -1).transpose(0, 1)]
        hidden = hidden.view(atoms, members, -1).transpose(0, 1)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            output = scratch.empty(members, atoms, weight.shape[2])
            hidden = torch.baddbmm(bias, hidden, weight, out=output)
            slopes.append(_activate(hidden, scratch))
        energies = torch.baddbmm(self.final_bias[:, None, None], hidden, self.final_weight[:, :, None])
        return energies[:, :, 0], slopes

    def backward(self, slopes: Sequence[Tensor], each_member: bool, scratch: Scratch) -> Tensor:
        """Gradient of the atomic energies with respect to the features.

        :param slopes: from :meth:`forward`; overwritten
        :param each_member: for every member, shape ``(members, atoms, features)``, rather than for their mean,
            ``(atoms, features)``
        """
        import torch

        members, atoms = self.members, slopes[0].shape[1]
        scaled = self.final_weight if each_member else self.final_weight / members
        gradient = slopes[-1].mul_(scaled[:, None, :])
        for layer in range(len(self.weights) - 1, 0, -1):
            weight = self.weights[layer]
            output = scratch.empty(members, atoms, weight.shape[1])
            gradient = torch.bmm(gradient, weight.transpose(1, 2), out=output).mul_(slopes[layer - 1])
        inputs = self.weights[0].shape[0]
        first = self.weights[0].view(inputs, members, -1)
        if each_member:
            return torch.bmm(gradient, first.permute(1, 2, 0), out=scratch.empty(members, atoms, inputs))
        total = torch.mm(gradient[0], first[:, 0].t(), out=scratch.empty(atoms, inputs))
        for member in range(1, members):
            total.addmm_(gradient[member], first[:, member].t())
        return total


def _activate(scaled: Tensor, scratch: Scratch) -> Tensor:
    """Apply the scaled activation in place and return its derivative."""
    import torch

    slope = torch.clamp(scaled, min=LOWEST_EXPONENT, max=0.0, out=scratch.empty(*scaled.shape)).exp_()
    # The 1 is taken off here: left to the biases of the next layer it would cancel there, and with it five digits.
    scaled.clamp_(min=0.0).add_(slope).sub_(1.0)
    if scaled.dtype == torch.float64:
        slope = torch.where(slope < 1.0, TORCH_SLOPE * slope.pow(TORCH_SLOPE), slope)
    return slope


def place_networks(layers: Sequence[Layer], dtype: torch.dtype, device: str) -> ElementNetworks:
    """Put the networks that the members of an ensemble have for one element on the device.

    :param layers: at least two, the last with one output
    """
    import torch

    weights, biases = [], []
    for index, layer in enumerate(layers):
        weight = torch.from_numpy(np.array(layer.weight, dtype=np.float64)).transpose(1, 2)
        bias = torch.from_numpy(np.array(layer.bias, dtype=np.float64))[:, None, :]
        if index > 0:
            weight = weight * CELU_ALPHA  # which the activation of the layer before leaves to this one
        if index < len(layers) - 1:
            weight, bias = weight / CELU_ALPHA, bias / CELU_ALPHA
        weights.append(weight.to(dtype=dtype, device=device).contiguous())
        biases.append(bias.to(dtype=dtype, device=device).contiguous())
    final_weight, final_bias = weights.pop()[:, :, 0].contiguous(), biases.pop()[:, 0, 0].contiguous()
    inputs = weights[0].shape[1]
    weights[0] = weights[0].transpose(0, 1).reshape(inputs, -1).contiguous()
    biases[0] = biases[0].reshape(-1)
    return ElementNetworks(tuple(weights), tuple(biases), final_weight, final_bias)
