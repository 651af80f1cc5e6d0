"""Take torchani's model objects apart into what the evaluation without padding needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .flat import FlatModel
from .parameters import ParametersError

if TYPE_CHECKING:
    from torch import Tensor

#: Arguments by which a scripted model of torchani 2 takes neighbours.
_NEIGHBOURS_SCHEMA = ['self', 'elem_idxs', 'coords', 'neighbors', 'charge', 'atomic', 'ensemble_values']
#: Largest difference, Hartree, of the two ways to evaluate a scripted model, in double precision.
_SAME = 1e-7


@dataclass(frozen=True)
class Pieces:
    """A model that takes neighbours, with descriptor and networks where they are at hand."""

    flat: FlatModel
    computer: Any = None
    networks: Any = None


def symbols_of(numbers: Any) -> tuple[str, ...]:
    """Return chemical symbols for a tensor or array of atomic numbers."""
    from ase.data import chemical_symbols

    values = [int(number) for number in np.asarray(numbers).ravel()]
    if not values or any(not 0 < value < len(chemical_symbols) for value in values) or len(set(values)) != len(values):
        raise ParametersError(f'the atomic numbers of the model are {values}, which are no list of elements')
    return tuple(chemical_symbols[value] for value in values)


def stored_symbols(model: Any) -> tuple[str, ...] | None:
    """Return the elements that a model lists itself, if it does."""
    import torch

    numbers = getattr(model, 'atomic_numbers', None)
    return symbols_of(numbers.cpu()) if isinstance(numbers, torch.Tensor) and numbers.numel() else None


def pieces_of_ani(model: Any) -> Pieces:
    """Take a torchani ``ANI`` apart; its shifter is switched off."""
    shifter = model.energy_shifter
    energies = shifter.self_energies.detach().double().cpu().numpy().copy()
    if not shifter._enabled:
        energies = np.zeros_like(energies)
    model.set_enabled('energy_shifter', False)
    model.set_strategy('pyaev')  # the compiled one derives by positions, not by the vectors between atoms
    # a potential that is switched off must not widen the search for neighbours
    cutoff = max((potential.cutoff for potential in model.potentials.values() if potential._enabled), default=0.0)

    def call(indices: Tensor, positions: Tensor, neighbours: Any) -> Tensor:
        result: Tensor = model.compute_from_neighbors(indices, positions, neighbours, 0, True, True).energies
        return result

    features = _features(model.potentials['nnp'].aev_computer)
    return Pieces(FlatModel(model, call, tuple(map(str, model.symbols)), energies, float(cutoff), features))


def pieces_of_sequential(model: Any, stated: Sequence[str] | None) -> Pieces:
    """Take ``torchani.nn.Sequential(descriptor, networks)`` apart.

    A converter of atomic numbers may precede, and a shifter may follow, as in models for torchani before version 2.

    :param stated: elements in the order of the indices, for networks that do not carry their names
    :raises ParametersError: if there is something else in it, or the elements are not known or contradictory
    """
    from torchani.aev import AEVComputer
    from torchani.nn import AtomicContainer, SpeciesConverter
    from torchani.utils import EnergyShifter

    modules = list(model)
    listed: tuple[str, ...] | None = None
    if modules and type(modules[0]) is SpeciesConverter:
        listed = symbols_of(modules.pop(0).atomic_numbers)
    shifter = modules.pop() if modules and type(modules[-1]) is EnergyShifter else None
    if len(modules) != 2 or type(modules[0]) is not AEVComputer or not isinstance(modules[1], AtomicContainer):
        kinds = ', '.join(type(module).__name__ for module in model)
        raise ParametersError(f'Sequential({kinds}) is not understood, expected a descriptor and networks')
    computer, networks = modules
    symbols = _sequential_symbols(listed or stored_symbols(networks), stated, computer.num_species)
    energies = np.zeros(len(symbols))
    if shifter is not None:
        if shifter.fit_intercept or shifter.self_energies.numel() != len(symbols):
            raise ParametersError('the energy shifter has an intercept, or not one energy for each element')
        energies = shifter.self_energies.detach().double().cpu().numpy().copy()
    computer.set_strategy('pyaev')

    def call(indices: Tensor, positions: Tensor, neighbours: Any) -> Tensor:
        vectors = computer.compute_from_neighbors(indices, positions, neighbours)
        result: Tensor = networks(indices, vectors, True, True)
        return result

    flat = FlatModel(model, call, symbols, energies, float(computer.radial.cutoff), _features(computer))
    return Pieces(flat, computer, networks)


def _sequential_symbols(stored: Sequence[str] | None, stated: Sequence[str] | None, number: int) -> tuple[str, ...]:
    """Return the elements by index; to number them otherwise than the networks do would be a silent error."""
    if stored is not None and stated is not None and tuple(stored) != tuple(stated):
        raise ParametersError(
            f'elements stated as {", ".join(stated)}, but the networks are for {", ".join(stored)}, in this order'
        )
    symbols = stored or stated
    if symbols is None:
        raise ParametersError(
            'a Sequential takes indices and does not say of which elements: state these in the order of its species'
        )
    if len(symbols) != number:
        raise ParametersError(f'the descriptor is for {number} elements, {len(symbols)} were stated')
    return tuple(symbols)


def pieces_of_script(model: Any) -> Pieces | None:
    """Take a scripted ``ANI`` of torchani 2 apart; ``None`` for any other TorchScript.

    Its own ``forward`` has the last word: where neighbours from here give another energy, it is not taken apart.
    """
    method = getattr(model, 'compute_from_neighbors', None)
    schema = getattr(method, 'schema', None)
    if schema is None or [argument.name for argument in schema.arguments] != _NEIGHBOURS_SCHEMA:
        return None
    shifter = getattr(model, 'energy_shifter', None)
    if not all(hasattr(shifter, name) for name in ('_enabled', 'self_energies')) or not hasattr(model, 'cutoff'):
        return None
    symbols = stored_symbols(model)
    energies = shifter.self_energies.detach().double().cpu().numpy().copy()  # type: ignore[union-attr]
    enabled = bool(shifter._enabled)  # type: ignore[union-attr]

    def call(indices: Tensor, positions: Tensor, neighbours: Any) -> Tensor:
        result: Tensor = model.compute_from_neighbors(indices, positions, neighbours, 0, True, True)[0]
        return result

    if symbols is None or len(energies) != len(symbols):
        return None
    shifter._enabled = False  # type: ignore[union-attr]
    try:
        features = _features(model.potentials.nnp.aev_computer)
    except AttributeError:
        features = (1024, 32, float(model.cutoff))
    flat = FlatModel(model, call, symbols, energies * enabled, float(model.cutoff), features)
    if _agrees(model, flat):
        return Pieces(flat)
    shifter._enabled = enabled  # type: ignore[union-attr]
    return None


def _agrees(model: Any, flat: FlatModel) -> bool:
    """Return whether a model without its self energies says the same of a small molecule whichever way it is asked."""
    import torch
    from ase.data import atomic_numbers

    from ...frames import Frames
    from ...units import HARTREE
    from .flat import FlatEngine

    engine = FlatEngine(flat, 'cpu', 'double')
    count = max(6, len(flat.symbols))
    angles = 2.4 * np.arange(count)
    positions = np.stack([np.cos(angles), np.sin(angles), 0.4 * np.arange(count)], axis=1)
    numbers = np.array([atomic_numbers[flat.symbols[k % len(flat.symbols)]] for k in range(count)], dtype=np.uint8)
    frames = Frames(numbers, positions, np.array([0, count]), np.zeros((1, 3, 3)), np.zeros((1, 3), dtype=bool))
    given = numbers.astype(np.int64) if model.periodic_table_index else engine.indices(frames)
    with torch.no_grad():
        energy = model((torch.from_numpy(given)[None], torch.from_numpy(positions)[None]))[1]
    found = engine.evaluate(frames).energies - engine.self_energies(frames)
    return bool(abs(found[0] / HARTREE - float(energy)) < _SAME)


def _features(computer: Any) -> tuple[int, int, float]:
    return int(computer.out_dim), int(computer.angular.num_feats), float(computer.angular.cutoff)
