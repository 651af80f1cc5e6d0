"""The options of a model, by backend: what the file cannot say, checked at import and again in the job."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

from ..registry import ANI_FAMILIES
from .catalogue import BACKENDS

#: Angstrom or bohr: no model looks further.
_LONGEST = 1000


@dataclasses.dataclass(frozen=True)
class Option:
    """One option."""

    allowed: str
    help: str
    check: Callable[[Any], bool]
    #: True for what the file itself says; a user has no need to state it.
    from_file: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_length(value: Any) -> bool:
    return _is_number(value) and 0 < value <= _LONGEST


def _one_of(*values: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in values


def _is_order(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(item, int) and not isinstance(item, bool) and 0 < item < 119 for item in value)
    )


_KEYWORDS = Option(
    'an object of JSON values', 'Further keyword arguments of the calculator.', lambda value: isinstance(value, Mapping)
)
_LENGTH = f'a length, larger than 0 and at most {_LONGEST}'
_NUMBER = 'a finite number'

#: The options of each backend; the packages behind ASE's calculators have those of the last entry.
OPTIONS: dict[str, dict[str, Option]] = {
    'torchani': {
        'form': Option('a text', 'Form of the file.', _is_text, from_file=True),
        'family': Option(
            ', '.join(ANI_FAMILIES),
            'Of a state dict: it has the cutoffs and the activation of these.',
            _one_of(*ANI_FAMILIES),
        ),
        'cutoff_fn': Option('cosine, smooth', 'Of a state dict: cutoff function.', _one_of('cosine', 'smooth')),
        'activation': Option('celu, gelu', 'Of a state dict: activation of the networks.', _one_of('celu', 'gelu')),
        'radial_cutoff': Option(_LENGTH, 'Of a state dict: radial cutoff.', _is_length),
        'angular_cutoff': Option(_LENGTH, 'Of a state dict: angular cutoff.', _is_length),
        'species': Option(
            'indices, atomic_numbers',
            'What a module of another make takes for the elements.',
            _one_of('indices', 'atomic_numbers'),
        ),
    },
    'schnetpack': {
        'energy_key': Option('a text', 'Which output is the energy, where it is not clear.', _is_text),
        'cutoff': Option(_LENGTH, 'How far the model looks, where it does not say; in its unit.', _is_length),
        'total_charge': Option(_NUMBER, 'Charge of every structure, for models that take one.', _is_number),
        'spin_multiplicity': Option(_NUMBER, 'Spin of every structure, for models that take one.', _is_number),
    },
    'sgdml': {
        'atom_order': Option('a list of atomic numbers', 'The atoms in the order of the model.', _is_order, True),
    },
    'pinn': {
        'network': Option('a text', 'Network of the model.', _is_text, from_file=True),
        'e_unit': Option(_NUMBER, 'Factor that the model has on its energies.', _is_number, from_file=True),
    },
    'ase': {
        'calculator': Option('an import path', 'Class of the calculator.', _is_text),
        'kwargs': _KEYWORDS,
        'device_argument': Option('a text', 'Keyword argument that takes the device.', _is_text),
        'model_argument': Option('a text', 'Keyword argument that takes the parameter file.', _is_text),
        'precision_argument': Option('a text', 'Keyword argument that takes float32 or float64.', _is_text),
    },
    '': {'kwargs': _KEYWORDS},
}


def options_of(backend: str) -> dict[str, Option]:
    """Return the options that the models of a backend may have."""
    return OPTIONS['' if BACKENDS[backend].family is not None else backend]


def validate_options(backend: str, options: Mapping[str, Any]) -> str | None:
    """Return one sentence on the first option that is unknown or not valid, or ``None`` if all are well."""
    known = options_of(backend)
    for key, value in options.items():
        option = known.get(key)
        if option is None:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f'did you mean {close[0]!r}? ' if close else ''
            return f'unknown option {key!r} of a model of {backend}; {hint}there are {", ".join(known)}'
        if not option.check(value):
            return f'the option {key} = {value!r} is not valid; it must be {option.allowed}'
    return None
