"""Between our parameters and torchani's own model objects, in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...registry import AniFamily
from .parameters import AniParameters, Layer

if TYPE_CHECKING:
    from torchani.arch import ANI


def to_torchani(parameters: AniParameters, cutoff_fn: str = 'cosine', activation: str = 'celu') -> ANI:
    """Return torchani's model with these parameters, in double precision and evaluation mode.

    ``model.float()`` makes it what torchani itself loads.

    :param cutoff_fn: ``cosine`` as in the ANI papers, or ``smooth``
    :param activation: ``celu`` as in the ANI papers, or ``gelu``
    """
    import torch
    from torchani.aev import AEVComputer, ANIAngular, ANIRadial
    from torchani.arch import ANI
    from torchani.nn import ANINetworks, Ensemble
    from torchani.sae import SelfEnergy

    family = parameters.family
    computer = AEVComputer(
        ANIRadial(family.radial_eta, family.radial_shifts, family.radial_cutoff),
        ANIAngular(
            family.angular_eta,
            family.angular_zeta,
            family.angular_shifts,
            family.angular_sections,
            family.angular_cutoff,
        ),
        len(parameters.symbols),
        cutoff_fn=cutoff_fn,
    )
    members = [
        ANINetworks(
            {symbol: _atomic_network(parameters.networks[symbol], member, activation) for symbol in parameters.symbols}
        )
        for member in range(parameters.n_members)
    ]
    energies = dict(zip(parameters.symbols, parameters.self_energies.tolist(), strict=True))
    shifter = SelfEnergy(parameters.symbols, list(energies.values()))
    model = ANI(parameters.symbols, computer, Ensemble(members), shifter).double()
    # torchani makes its constants in single precision: put the full ones in
    for name, values in (
        ('radial.eta', [family.radial_eta]),
        ('radial.shifts', family.radial_shifts),
        ('angular.eta', [family.angular_eta]),
        ('angular.zeta', [family.angular_zeta]),
        ('angular.shifts', family.angular_shifts),
        ('angular.sections', family.angular_sections),
    ):
        computer.get_buffer(name).copy_(torch.tensor(values, dtype=torch.float64))
    shifter.self_energies.copy_(torch.from_numpy(parameters.self_energies))
    model.eval()
    model.requires_grad_(False)
    return model


def _atomic_network(layers: Sequence[Layer], member: int, activation: str) -> Any:
    import torch
    from torchani.nn import AtomicNetwork

    widths = [layers[0].weight.shape[2], *(layer.weight.shape[1] for layer in layers)]
    network = AtomicNetwork(widths, activation=activation, bias=True)
    for linear, layer in zip((*network.layers, network.final_layer), layers, strict=True):
        linear.weight.data = torch.from_numpy(np.array(layer.weight[member]))
        linear.bias.data = torch.from_numpy(np.array(layer.bias[member]))
    return network


def from_torchani(model: Any) -> AniParameters:
    """Take the parameters out of a torchani ``ANI`` model.

    :raises ValueError: if the model holds anything that an ANI ensemble of the papers does not
    """
    computer, networks = _parts(model)
    shifter = model.energy_shifter
    energies = shifter.self_energies.detach().double().cpu().numpy().copy()
    symbols = tuple(str(symbol) for symbol in model.symbols)
    return from_parts(symbols, computer, networks, energies if shifter._enabled else np.zeros_like(energies))


def from_parts(symbols: Sequence[str], computer: Any, networks: Any, self_energies: Any) -> AniParameters:
    """Take the parameters out of a descriptor and the networks, or ensemble of networks, that go with it.

    :param self_energies: Hartree, double, one for each element
    :raises ValueError: if they are anything else than those of an ANI ensemble of the papers
    """
    from torchani.nn import ANINetworks, Ensemble

    members = [networks]
    if type(networks) is Ensemble:
        members = [networks.members[index] for index in networks.active_members_idxs]
    if not members or any(type(member) is not ANINetworks for member in members):
        raise ValueError("the model's networks are not understood")
    layers = {symbol: _stack([member.atomics[symbol] for member in members]) for symbol in symbols}
    return AniParameters(tuple(symbols), _family(computer), self_energies, layers)


def _parts(model: Any) -> tuple[Any, Any]:
    """Return descriptor and networks of a model, after making sure that there is nothing else in it."""
    from torchani.arch import ANI
    from torchani.potentials import NNPotential

    if type(model) is not ANI:
        raise ValueError(f'models of type {type(model).__name__} are not understood')
    for name, potential in model.potentials.items():
        if name != 'nnp' and potential._enabled:
            raise ValueError(f'the model has the extra potential {name}, which is not understood')
    potential = model.potentials['nnp']
    if type(potential) is not NNPotential or not potential._enabled:
        raise ValueError('the neural network potential of the model is switched off or not understood')
    return potential.aev_computer, potential.neural_networks


def _family(computer: Any) -> AniFamily:
    from torchani.aev import AEVComputer, ANIAngular, ANIRadial
    from torchani.cutoffs import CutoffCosine

    radial, angular = computer.radial, computer.angular
    if type(computer) is not AEVComputer or type(radial) is not ANIRadial or type(angular) is not ANIAngular:
        raise ValueError('the descriptor is not the one of the ANI papers')
    for term in (radial, angular):
        if type(term.cutoff_fn) is not CutoffCosine:
            raise ValueError(f'cutoff function {type(term.cutoff_fn).__name__} is not understood, only the cosine is')

    def values(buffer: Any) -> tuple[float, ...]:
        return tuple(buffer.detach().double().flatten().tolist())

    return AniFamily(
        radial_cutoff=float(radial.cutoff),
        radial_eta=values(radial.eta)[0],
        radial_shifts=values(radial.shifts),
        angular_cutoff=float(angular.cutoff),
        angular_eta=values(angular.eta)[0],
        angular_zeta=values(angular.zeta)[0],
        angular_shifts=values(angular.shifts),
        angular_sections=values(angular.sections),
    )


def _stack(networks: Sequence[Any]) -> list[Layer]:
    """Return the layers of the networks that the members have for one element."""
    members = [_linear_layers(network) for network in networks]
    shapes = [[layer['weight'].shape for layer in member] for member in members]
    if any(other != shapes[0] for other in shapes):
        raise ValueError('the members of the ensemble have networks of different shapes')
    return [
        Layer(*(np.stack([member[index][kind] for member in members]) for kind in ('weight', 'bias')))
        for index in range(len(members[0]))
    ]


def _linear_layers(network: Any) -> list[Mapping[str, Any]]:
    """Return weights and biases of one network, after making sure that it is what it seems to be."""
    import torch
    from torchani.nn import AtomicNetwork, TightCELU

    if type(network) is not AtomicNetwork:
        raise ValueError(f'atomic networks of type {type(network).__name__} are not understood')
    if type(network.activation) is not TightCELU:
        raise ValueError(f'activation {type(network.activation).__name__} is not understood, only TightCELU is')
    layers = (*network.layers, network.final_layer)
    if len(layers) < 2 or network.final_layer.out_features != 1:
        raise ValueError('an atomic network has no hidden layer, or several outputs')
    if any(type(layer) is not torch.nn.Linear for layer in layers):
        raise ValueError('a layer of an atomic network is not linear')
    found: list[Mapping[str, Any]] = []
    for layer in layers:
        weight = layer.weight.detach().cpu().numpy().copy()
        bias = np.zeros_like(weight[:, 0]) if layer.bias is None else layer.bias.detach().cpu().numpy().copy()
        found.append({'weight': weight, 'bias': bias})
    return found
