"""Parameters of an ANI ensemble as plain arrays: one canonical, pickle-free file whichever source they came from."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ...frames import write_npz
from ...registry import ANI_FAMILIES, AniFamily, PretrainedModel

Array = npt.NDArray[Any]

_FAMILY_FIELDS = tuple(field.name for field in dataclasses.fields(AniFamily))
_STATE_PREFIX = 'potentials.nnp.neural_networks.members'


class ParametersError(ValueError):
    """The parameters are incomplete, of the wrong shape, or not those that were asked for."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One linear layer of all members: weight ``(m, out, in)``, bias ``(m, out)``."""

    weight: Array
    bias: Array


@dataclasses.dataclass(frozen=True)
class AniParameters:
    """An ensemble of m members: AEV constants, self energies (Hartree, double) and the layers of each element."""

    symbols: tuple[str, ...]
    family: AniFamily
    self_energies: npt.NDArray[np.float64]
    networks: Mapping[str, Sequence[Layer]]

    @property
    def n_members(self) -> int:
        """Return the number of members, m."""
        return len(self.networks[self.symbols[0]][0].bias)

    def __post_init__(self) -> None:
        """Check that every layer fits the one before it, and all have the same members."""
        if not self.symbols or set(self.networks) != set(self.symbols):
            raise ParametersError(f'networks for {sorted(self.networks)}, expected {sorted(self.symbols)}')
        if self.self_energies.shape != (len(self.symbols),):
            raise ParametersError(f'{self.self_energies.shape} self energies for {len(self.symbols)} elements')
        for symbol, layers in self.networks.items():
            width = self.n_features
            for index, layer in enumerate(layers):
                shape = layer.weight.shape
                if len(shape) != 3 or shape[0] != self.n_members or shape[2] != width or layer.bias.shape != shape[:2]:
                    raise ParametersError(f'layer {index} of {symbol} has weights {shape}, expected {width} inputs')
                if not (np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all()):
                    raise ParametersError(f'layer {index} of {symbol} has a weight that is not finite')
                width = shape[1]
            if width != 1:
                raise ParametersError(f'the last layer of {symbol} has {width} outputs, expected 1')

    @property
    def n_features(self) -> int:
        """Return the length of an atomic environment vector."""
        n_species = len(self.symbols)
        n_angular = len(self.family.angular_shifts) * len(self.family.angular_sections)
        return n_species * len(self.family.radial_shifts) + n_species * (n_species + 1) // 2 * n_angular

    def write(self, target: str | Path | IO[bytes]) -> None:
        """Write the canonical ``.npz``: equal parameters give equal bytes."""
        arrays: dict[str, Array] = {'symbols': np.array(self.symbols, dtype='<U2'), 'self_energies': self.self_energies}
        for name in _FAMILY_FIELDS:
            arrays[f'aev.{name}'] = np.asarray(getattr(self.family, name), dtype='<f8')
        for symbol, layers in self.networks.items():
            for index, layer in enumerate(layers):
                arrays[f'network.{symbol}.{index}.weight'] = np.ascontiguousarray(layer.weight, dtype='<f4')
                arrays[f'network.{symbol}.{index}.bias'] = np.ascontiguousarray(layer.bias, dtype='<f4')
        write_npz(target, arrays, compress=False)  # weights do not compress, and the hash must hold everywhere

    @classmethod
    def read(cls, source: str | Path | IO[bytes]) -> AniParameters:
        """Read the canonical ``.npz``; anything else raises a :class:`ParametersError`."""
        try:
            with np.load(source, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            family: dict[str, Any] = {name: _plain(arrays[f'aev.{name}']) for name in _FAMILY_FIELDS}
            symbols = tuple(str(symbol) for symbol in arrays['symbols'])
            self_energies = np.asarray(arrays['self_energies'], dtype=np.float64)
            networks = {symbol: list(_read_layers(arrays, symbol)) for symbol in symbols}
        except (FileNotFoundError, MemoryError):
            raise
        except Exception as exception:  # a broken zip raises a dozen different types
            raise ParametersError(f'not an ANI parameter file: {type(exception).__name__}: {exception}') from exception
        return cls(symbols, AniFamily(**family), self_energies, networks)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Array], model: PretrainedModel) -> AniParameters:
        """Take the networks of a torchani 2.x state dict, given as numpy arrays.

        AEV constants and self energies are the published ones; those in the file, often rounded to single precision,
        only have to agree with them.
        """
        family = ANI_FAMILIES[model.family]
        aev = 'potentials.nnp.aev_computer'
        try:
            _check_close(state[f'{aev}.radial.shifts'], family.radial_shifts, 'radial shifts')
            _check_close(state[f'{aev}.angular.shifts'], family.angular_shifts, 'angular shifts')
            _check_close(state[f'{aev}.angular.sections'], family.angular_sections, 'angular sections')
            _check_close(state['energy_shifter.self_energies'], model.self_energies, 'self energies')
            networks = {
                symbol: [
                    Layer(*(_stack_members(state, model, symbol, f'{layer}.{kind}') for kind in ('weight', 'bias')))
                    for layer in _layer_names(state, symbol)
                ]
                for symbol in model.elements
            }
        except KeyError as exception:
            raise ParametersError(f'the state dict has no entry {exception}') from None
        return cls(model.elements, family, np.array(model.self_energies), networks)

    @classmethod
    def from_neurochem(cls, directory: Path, model: PretrainedModel) -> AniParameters:
        """Read NeuroChem ``.wparam`` and ``.bparam`` files, which are raw single-precision numbers.

        The ``.nnf`` text beside them is not needed, and never evaluated as torchani's own reader does.
        """
        networks = {}
        for symbol in model.elements:
            layers = []
            for index in itertools.count(1):
                stems = [
                    directory / f'train{member}' / 'networks' / f'ANN-{symbol}.nnf-l{index}'
                    for member in range(model.ensemble_size)
                ]
                if not stems[0].with_name(f'{stems[0].name}.wparam').exists():
                    break
                biases = np.stack([np.fromfile(f'{stem}.bparam', dtype='<f4') for stem in stems])
                weights = np.stack([np.fromfile(f'{stem}.wparam', dtype='<f4') for stem in stems])
                layers.append(Layer(weights.reshape(*biases.shape, -1), biases))
            networks[symbol] = layers
        return cls(model.elements, ANI_FAMILIES[model.family], np.array(model.self_energies), networks)


def _plain(array: Array) -> float | tuple[float, ...]:
    return tuple(array.tolist()) if array.ndim else float(array)


def _read_layers(arrays: Mapping[str, Array], symbol: str) -> list[Layer]:
    count = sum(name.startswith(f'network.{symbol}.') for name in arrays) // 2
    prefixes = [f'network.{symbol}.{index}' for index in range(count)]
    return [Layer(arrays[f'{prefix}.weight'], arrays[f'{prefix}.bias']) for prefix in prefixes]


def _layer_names(state: Mapping[str, Array], symbol: str) -> list[str]:
    prefix = f'{_STATE_PREFIX}.0.atomics.{symbol}.layers.'
    hidden = {int(name[len(prefix) :].split('.')[0]) for name in state if name.startswith(prefix)}
    return [f'layers.{index}' for index in sorted(hidden)] + ['final_layer']


def _stack_members(state: Mapping[str, Array], model: PretrainedModel, symbol: str, entry: str) -> Array:
    names = [f'{_STATE_PREFIX}.{member}.atomics.{symbol}.{entry}' for member in range(model.ensemble_size)]
    return np.stack([np.asarray(state[name], dtype='<f4') for name in names])


def _check_close(found: Array, expected: Sequence[float], what: str) -> None:
    if np.shape(found) != np.shape(expected) or not np.allclose(found, expected, rtol=1e-6, atol=0):
        raise ParametersError(f'the {what} of the file are not those of the model')
