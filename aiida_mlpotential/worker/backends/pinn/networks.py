"""Which networks of PiNN can be used, and what may stand in their parameters.

PiNN hands the parameters on to Keras as they are, and Keras makes objects of some dictionaries and texts (an activation
may be a serialised layer with code in it); so only known keys with plain values are let through.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

#: Activation functions by name: those of Keras, without what else its lookup would find.
ACTIVATIONS = frozenset(
    {
        'elu', 'exponential', 'gelu', 'hard_sigmoid', 'linear', 'mish', 'relu', 'selu', 'sigmoid', 'silu', 'softplus',
        'softsign', 'swish', 'tanh',
    }
)  # fmt: skip
_MAX_DEPTH = 100
_WORD = re.compile(r'[A-Za-z0-9_]{1,32}')
_COMMON = frozenset({'rc', 'cutoff_type', 'act', 'out_units', 'out_pool'})
_PINET = _COMMON | {
    'atom_types', 'basis_type', 'n_basis', 'gamma', 'center', 'pp_nodes', 'pi_nodes', 'ii_nodes', 'out_nodes', 'depth',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of PiNN: its default cutoff, the arguments it takes, and where its elements stand in them."""

    cutoff: float
    arguments: frozenset[str]
    elements: str = ''


NETWORKS: dict[str, Network] = {
    'PiNet': Network(4.0, _PINET, 'atom_types'),
    'PiNet2': Network(4.0, _PINET | {'out_extra', 'weighted', 'rank'}, 'atom_types'),
    'BPNN': Network(
        5.0, _COMMON | {'sf_spec', 'nn_spec', 'fp_range', 'fp_scale', 'preprocess', 'use_jacobian'}, 'nn_spec'
    ),
    'LJ': Network(3.0, frozenset({'rc', 'sigma', 'epsilon'})),
}
#: What PiNet and PiNet2 take for ``atom_types`` where it is left out.
_DEFAULT_ATOM_TYPES = (1, 6, 7, 8)


def check_network(name: str, parameters: Mapping[str, Any]) -> str | None:
    """Return one sentence on why a network cannot be used, or ``None`` if it can."""
    network = NETWORKS.get(name)
    if network is None:
        return f'the network {name!r:.60} is none of {", ".join(NETWORKS)}'
    unknown = sorted(str(key) for key in parameters if key not in network.arguments)
    if unknown:
        return f'{name} has no parameter {", ".join(unknown):.100}: it may be of another version of PiNN'
    if parameters.get('out_units', 1) != 1 or parameters.get('out_pool') or parameters.get('out_extra'):
        return 'the network has outputs other than one energy an atom (out_units, out_pool, out_extra)'
    act = parameters.get('act', 'tanh')
    if not isinstance(act, str) or act not in ACTIVATIONS:
        return f'the activation function {act!r:.60} is none of {", ".join(sorted(ACTIVATIONS))}'
    depth = parameters.get('depth', 4)
    if type(depth) is not int or not 1 <= depth <= _MAX_DEPTH:
        return f'depth = {depth!r:.60} is not a number of interaction blocks from 1 to {_MAX_DEPTH}'
    odd = sorted(key for key, value in parameters.items() if not _is_plain(value))
    if odd:
        return f'{", ".join(odd)}: only numbers, words and lists of them are allowed'
    numbers = _numbers(name, parameters)
    if network.elements and not (
        numbers and all(type(z) is int and 0 < z <= 118 for z in numbers) and len(set(numbers)) == len(numbers)
    ):
        return f'{network.elements} does not list atomic numbers, each once'
    return None


def elements_of(name: str, parameters: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the chemical symbols that a network (found sound by ``check_network``) knows, in its order."""
    from ase.data import chemical_symbols

    if not NETWORKS[name].elements:
        return None
    return tuple(chemical_symbols[number] for number in _numbers(name, parameters))


def _numbers(name: str, parameters: Mapping[str, Any]) -> list[Any]:
    default = _DEFAULT_ATOM_TYPES if NETWORKS[name].elements == 'atom_types' else ()
    value = parameters.get(NETWORKS[name].elements, default)
    return list(value) if isinstance(value, (list, tuple, dict)) else []


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Return whether a value is made of numbers, words, lists and dictionaries with such keys alone."""
    if depth > 6:
        return False
    if isinstance(value, list):
        return all(_is_plain(item, depth + 1) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(item, depth + 1) for pair in value.items() for item in pair)
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return value is None or isinstance(value, (bool, int, float))
