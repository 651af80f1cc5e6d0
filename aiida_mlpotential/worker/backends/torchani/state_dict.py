"""Find one's own ANI parameters in a state dict, of today's torchani or of the versions before 2.

A state dict holds numbers and their names, so its networks, its descriptor's constants and often the elements can be
read. It does not hold the cutoff radii, the cutoff function and the activation: two models that differ in nothing else
have equal state dicts. These are taken from a published family only where constants, layer widths and biases all are
those of that family; in any other case the user has to state them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...registry import ANI_FAMILIES, AniFamily
from .parameters import AniParameters, Array, Layer, ParametersError

#: Keys of the options that say what a state dict does not.
OPTION_KEYS = ('family', 'cutoff_fn', 'activation', 'radial_cutoff', 'angular_cutoff')
CUTOFF_FUNCTIONS = ('cosine', 'smooth')
ACTIVATIONS = ('celu', 'gelu')

#: Name of each constant of the descriptor, today's and that of torchani before version 2.
_CONSTANTS = {
    'radial_eta': ('radial.eta', 'EtaR'),
    'radial_shifts': ('radial.shifts', 'ShfR'),
    'angular_eta': ('angular.eta', 'EtaA'),
    'angular_zeta': ('angular.zeta', 'Zeta'),
    'angular_shifts': ('angular.shifts', 'ShfA'),
    'angular_sections': ('angular.sections', 'ShfZ'),
}
_SCALARS = ('radial_eta', 'angular_eta', 'angular_zeta')
#: What follows from the rest, or is always the same.
_IGNORED = ('triu_index', 'conv_tensor', '_conv_tensor', 'default_shifts', 'default_cell')
#: Widths of the hidden layers of the published networks.
_WIDTHS: dict[str, dict[str, tuple[int, ...]]] = {
    'ani1x': {'H': (160, 128, 96), 'C': (144, 112, 96), 'N': (128, 112, 96), 'O': (128, 112, 96)},
    'ani2x': {
        'H': (256, 192, 160),
        'C': (224, 192, 160),
        **dict.fromkeys(('N', 'O'), (192, 160, 128)),
        **dict.fromkeys(('S', 'F', 'Cl'), (160, 128, 96)),
    },
}


@dataclass(frozen=True)
class OwnAni:
    """Parameters of one's own, with what completes them.

    :ivar remark: why cutoffs, cutoff function and activation are what they are
    """

    parameters: AniParameters
    cutoff_fn: str
    activation: str
    remark: str

    @property
    def canonical(self) -> bool:
        """Return whether the model is one of the ANI papers, which the engine evaluates."""
        return (self.cutoff_fn, self.activation) == ('cosine', 'celu')


@dataclass(frozen=True)
class _Names:
    """Where what is: names of the weights by member, element and layer; elements in the order of their indices."""

    networks: list[dict[str, list[tuple[str, str | None]]]]
    elements: tuple[str, ...]
    constants: dict[str, str]
    self_energies: str | None


def looks_like_state_dict(names: Sequence[str]) -> bool:
    """Return whether these are names of an ANI's parameters."""
    return any(name.endswith(('radial.eta', 'EtaR')) for name in names)


def read_own_ani(
    state: Mapping[str, Array], elements: Sequence[str] | None = None, options: Mapping[str, Any] | None = None
) -> OwnAni:
    """Make parameters of a state dict.

    :param state: arrays by name
    :param elements: chemical symbols in the order of the networks, needed where these are numbered
    :param options: ``family``, or ``cutoff_fn``, ``activation``, ``radial_cutoff``, ``angular_cutoff`` (angstrom)
    :raises ParametersError: if anything is missing, is left over, or contradicts the rest
    """
    names = _find(state)
    symbols = _symbols(names.elements, elements)
    values = {key: np.asarray(state[name], dtype=np.float64).ravel() for key, name in names.constants.items()}
    if any(len(values[key]) != 1 for key in _SCALARS):
        raise ParametersError(
            'the descriptor has several values of eta or zeta, which ANI models of the papers have not'
        )
    constants = {key: float(value[0]) if key in _SCALARS else tuple(value.tolist()) for key, value in values.items()}
    networks = {
        symbol: [
            _stacked([_layer(state, member[key][index]) for member in names.networks])
            for index in range(_depth(names.networks, key))
        ]
        for key, symbol in zip(names.elements, symbols, strict=True)
    }
    biased = all(bias is not None for layers in names.networks[0].values() for _, bias in layers)
    family, cutoff_fn, activation, remark = _complete(constants, _widths(networks) if biased else {}, options or {})
    energies = np.zeros(len(symbols))
    if names.self_energies is not None:
        energies = np.asarray(state[names.self_energies], dtype=np.float64).ravel()
    return OwnAni(AniParameters(symbols, family, energies, networks), cutoff_fn, activation, remark)


def stored_elements(state: Mapping[str, Any]) -> tuple[tuple[str, ...] | None, int, bool]:
    """Return elements (``None`` where they are numbered), number of members, and whether there are self energies."""
    names = _find(state)
    numbered = any(element.isdigit() for element in names.elements)
    return None if numbered else names.elements, len(names.networks), names.self_energies is not None


def _find(state: Mapping[str, Any]) -> _Names:
    """Sort the names of a state dict; every name must find its place."""
    layers: dict[tuple[str, ...], dict[str, dict[float, dict[str, str]]]] = {}
    constants: dict[str, str] = {}
    others: dict[str, str] = {}
    for name in state:
        parts = name.split('.')
        constant = next((key for key, ends in _CONSTANTS.items() if _ends(name, ends)), None)
        if constant is not None:
            if constant in constants:
                raise ParametersError(f'{constants[constant]} and {name} are the same constant of two descriptors')
            constants[constant] = name
        elif parts[-1] in ('self_energies', 'atomic_numbers'):
            others.setdefault(parts[-1], name)
        elif parts[-1] in ('weight', 'bias') and len(parts) > 2:
            prefix, element, layer = _place(parts[:-1])
            layers.setdefault(prefix, {}).setdefault(element, {}).setdefault(layer, {})[parts[-1]] = name
        elif parts[-1] not in _IGNORED:
            raise ParametersError(f'{name} is no parameter of an ANI model of the papers')
    if len(constants) != len(_CONSTANTS) or not layers:
        raise ParametersError(
            'the state dict is not one of a whole ANI model: it lacks constants of the descriptor or networks'
        )
    members = [layers[prefix] for prefix in sorted(layers, key=lambda prefix: [_number(part) for part in prefix])]
    elements = tuple(members[0])
    networks = []
    for member in members:
        if set(member) != set(elements):
            raise ParametersError('the members of the ensemble are for different elements')
        try:
            networks.append(
                {
                    element: [(found['weight'], found.get('bias')) for _, found in sorted(member[element].items())]
                    for element in elements
                }
            )
        except KeyError:
            raise ParametersError('a layer has biases and no weights') from None
    if 'atomic_numbers' in others:
        elements = _ordered(elements, state[others['atomic_numbers']])
    return _Names(networks, elements, constants, others.get('self_energies'))


def _ends(name: str, ends: Sequence[str]) -> bool:
    return any(name == end or name.endswith(f'.{end}') for end in ends)


def _place(parts: list[str]) -> tuple[tuple[str, ...], str, float]:
    """Return what precedes the element, the element, and the number of the layer, of the name of a weight."""
    if parts[-1] == 'final_layer':
        layer, rest = float('inf'), parts[:-1]
    elif parts[-1].isdigit():
        layer, rest = float(parts[-1]), parts[:-1]
        if rest[-1:] == ['layers']:
            rest = rest[:-1]
    else:
        raise ParametersError(f'{".".join(parts)} is no layer of an ANI network')
    if not rest or not (rest[-1].isdigit() or rest[-1].istitle()):
        raise ParametersError(f'{".".join(parts)} is not the network of an element')
    return tuple(rest[:-1]), rest[-1], layer


def _number(part: str) -> tuple[int, str]:
    return (int(part), '') if part.isdigit() else (-1, part)


def _ordered(elements: tuple[str, ...], numbers: Any) -> tuple[str, ...]:
    """Return the names of the networks in the order of the atomic numbers that the file lists."""
    from ase.data import chemical_symbols

    array = np.asarray(numbers if isinstance(numbers, np.ndarray) else numbers.numpy()).ravel().tolist()
    symbols = tuple(chemical_symbols[z] if 0 < z < len(chemical_symbols) else str(z) for z in array)
    if all(element.isdigit() for element in elements):
        return elements
    if set(symbols) != set(elements):
        raise ParametersError(f'networks for {", ".join(elements)}, but atomic numbers of {", ".join(symbols)}')
    return symbols


def _symbols(stored: tuple[str, ...], stated: Sequence[str] | None) -> tuple[str, ...]:
    """Return the elements, after comparing what the user says with what the file says."""
    if any(element.isdigit() for element in stored):
        if stated is None:
            raise ParametersError(
                'the networks are numbered, not named: state the elements in the order of the networks'
            )
        if len(stated) != len(stored):
            raise ParametersError(f'there are networks for {len(stored)} elements, {len(stated)} were stated')
        return tuple(stated)
    if stated is not None and set(stated) != set(stored):
        raise ParametersError(f'the networks are for {", ".join(stored)}, not {", ".join(stated)}')
    return stored


def _layer(state: Mapping[str, Array], names: tuple[str, str | None]) -> tuple[Array, Array]:
    weight = np.asarray(state[names[0]])
    if weight.ndim != 2:
        raise ParametersError(f'{names[0]} has shape {weight.shape}, expected that of a linear layer')
    return weight, np.zeros_like(weight[:, 0]) if names[1] is None else np.asarray(state[names[1]])


def _depth(networks: Sequence[Mapping[str, Sequence[Any]]], element: str) -> int:
    depths = {len(member[element]) for member in networks}
    if len(depths) != 1 or min(depths) < 2:
        raise ParametersError(f'the networks of {element} have {sorted(depths)} layers, expected two or more')
    return min(depths)


def _stacked(members: Sequence[tuple[Array, Array]]) -> Layer:
    if any(weight.shape != members[0][0].shape for weight, _ in members):
        raise ParametersError('the members of the ensemble have networks of different shapes')
    return Layer(np.stack([weight for weight, _ in members]), np.stack([bias for _, bias in members]))


def _widths(networks: Mapping[str, Sequence[Layer]]) -> dict[str, tuple[int, ...]]:
    return {symbol: tuple(layer.weight.shape[1] for layer in layers[:-1]) for symbol, layers in networks.items()}


def _complete(
    constants: Mapping[str, Any], widths: Mapping[str, tuple[int, ...]], options: Mapping[str, Any]
) -> tuple[AniFamily, str, str, str]:
    """Return family, cutoff function and activation, and where these come from."""
    like = next((name for name in ANI_FAMILIES if _same_constants(constants, ANI_FAMILIES[name])), None)
    stated = options.get('family')
    if stated is not None and stated != like:
        known = ', '.join(ANI_FAMILIES)
        raise ParametersError(
            f'the constants of the descriptor are not those of the family {stated} (known: {known}): state cutoff_fn, '
            'activation, radial_cutoff and angular_cutoff instead'
        )
    chosen: dict[str, Any] = {}
    if like is not None:
        chosen = {key: getattr(ANI_FAMILIES[like], key) for key in ('radial_cutoff', 'angular_cutoff')}
    published = bool(widths) and all(_WIDTHS.get(like or '', {}).get(s) == width for s, width in widths.items())
    if stated is not None or published:
        chosen |= {'cutoff_fn': 'cosine', 'activation': 'celu'}
    chosen |= {key: options[key] for key in OPTION_KEYS[1:] if options.get(key) is not None}
    missing = [key for key in OPTION_KEYS[1:] if key not in chosen]
    if missing:
        raise ParametersError(
            f'a state dict does not say its {", ".join(missing)}: state them among the options of the model '
            f'(cutoff_fn {" or ".join(CUTOFF_FUNCTIONS)}, activation {" or ".join(ACTIVATIONS)}, cutoffs in angstrom)'
        )
    if chosen['cutoff_fn'] not in CUTOFF_FUNCTIONS or chosen['activation'] not in ACTIVATIONS:
        raise ParametersError(f'unknown cutoff function or activation: {chosen["cutoff_fn"]}, {chosen["activation"]}')
    try:
        radial, angular = float(chosen['radial_cutoff']), float(chosen['angular_cutoff'])
    except (TypeError, ValueError):
        raise ParametersError('radial_cutoff and angular_cutoff have to be numbers, in angstrom') from None
    if not 0 < angular < radial < np.inf:
        raise ParametersError(f'the angular cutoff {angular} has to lie between 0 and the radial cutoff {radial}')
    family = AniFamily(radial_cutoff=radial, angular_cutoff=angular, **constants)
    source = 'as stated'
    if stated is None and published and not any(options.get(key) is not None for key in OPTION_KEYS):
        source = f'taken from {like}, whose constants and layers these are: state them if it was trained otherwise'
    remark = (
        f'cutoff {radial:g} and {angular:g}, {chosen["cutoff_fn"]} cutoff function, {chosen["activation"]}: {source}'
    )
    return family, chosen['cutoff_fn'], chosen['activation'], remark


def _same_constants(constants: Mapping[str, Any], family: AniFamily) -> bool:
    """Return whether constants are those of a family, as far as single precision tells."""
    return all(
        np.shape(value) == np.shape(getattr(family, key))
        and np.allclose(value, getattr(family, key), rtol=1e-6, atol=0)
        for key, value in constants.items()
    )
