"""The parameters of thermochemistry: those of vibrations, and the conditions of the ideal gas."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..frames import BoolArray
from . import vibrations
from .base import Parameter, is_integer_up_to, is_number

_MAX_TEMPERATURES = 1000
_MAX_TEMPERATURE = 100_000  # K: no molecule is left there
_MIN_PRESSURE, _MAX_PRESSURE = 1e-20, 1e12  # Pa
_MAX_CUTOFF = 1000  # cm^-1: above it there are bonds
_MAX_NUMBER = 1000  # of symmetry and spin
#: Parameters of which there may be one for each structure.
_FOR_EACH = ('symmetry_number', 'spin_multiplicity')


def _are_temperatures(value: Any) -> bool | str:
    if not isinstance(value, (list, tuple)):
        return False
    for item in value:
        if is_number(item) and item <= 0:
            return f'{item!r} K is no temperature: give temperatures above 0 K'
    return 1 <= len(value) <= _MAX_TEMPERATURES and all(is_number(item, 0, _MAX_TEMPERATURE) for item in value)


def _is_number_or_list(value: Any) -> bool:
    items = value if isinstance(value, (list, tuple)) else [value]
    return len(items) > 0 and all(is_integer_up_to(item, _MAX_NUMBER) for item in items)


_OWN: tuple[Parameter, ...] = (
    Parameter(
        'temperatures',
        [298.15],
        f'a list of 1 to {_MAX_TEMPERATURES} temperatures in K, each above 0 and up to {_MAX_TEMPERATURE}',
        'Temperatures (K), written one by one: thermochemistry is computed at each.',
        _are_temperatures,
        affects_results=True,
    ),
    Parameter(
        'gas_pressure',
        101325.0,
        f'a pressure in Pa from {_MIN_PRESSURE} to {_MAX_PRESSURE}',
        'Pressure of the ideal gas (Pa): 101325 is one atmosphere, 100000 one bar.',
        lambda value: is_number(value, _MIN_PRESSURE, _MAX_PRESSURE),
        affects_results=True,
    ),
    Parameter(
        'symmetry_number',
        None,
        f'null (from the point group), an integer from 1 to {_MAX_NUMBER}, or a list of one for each structure',
        'Rotational symmetry number: in how many ways a molecule can be turned into itself; of no meaning for atoms.',
        lambda value: value is None or _is_number_or_list(value),
        affects_results=True,
    ),
    Parameter(
        'spin_multiplicity',
        1,
        f'an integer from 1 to {_MAX_NUMBER}, or a list of one for each structure',
        'Degeneracy of the electronic ground state: 1 for singlets, 2 for doublets, 3 for triplets.',
        _is_number_or_list,
        affects_results=True,
    ),
    Parameter(
        'low_frequency_cutoff',
        20.0,
        f'a wavenumber in cm^-1 from 0 to {_MAX_CUTOFF}',
        'Real modes below this (cm^-1) are left out of all sums, and listed; those of quasi-RRHO have all real modes.',
        lambda value: is_number(value, 0, _MAX_CUTOFF),
        affects_results=True,
    ),
)


#: Other defaults than those of vibrations. The formulas are those of a minimum, unless somebody says otherwise; and an
#: imaginary mode that is left out costs most of a kcal/mol, so that only what rounding can make is taken for noise.
_DEFAULTS: Mapping[str, Any] = {'expected': 'minimum', 'imaginary_cutoff': 5.0}


def _inherited(parameter: Parameter) -> Parameter:
    """Return a parameter of vibrations with the default that it has here."""
    return dataclasses.replace(parameter, default=_DEFAULTS.get(parameter.name, parameter.default))


ROWS: tuple[Parameter, ...] = (*_OWN, *(_inherited(parameter) for parameter in vibrations.ROWS))


def check_structures(parameters: Mapping[str, Any], pbc: BoolArray) -> str | None:
    """Return one sentence on why these parameters do not go with the structures of a job, or ``None`` if they do.

    :param parameters: all parameters of the job
    :param pbc: which structures are periodic in which direction, ``(n, 3)``
    """
    for name in _FOR_EACH:
        value = parameters[name]
        if isinstance(value, (list, tuple)) and len(value) != len(pbc):
            return (
                f'parameters: {name} has {len(value)} values for {len(pbc)} structures: '
                'give one number for all of them, or one for each in their order.'
            )
    if len(pbc) and bool(np.all(np.any(pbc, axis=1))):
        return (
            'structures: all are periodic, but thermochemistry is that of an ideal gas of molecules: '
            'remove the periodic boundaries (pbc) of molecules, and use vibrations for crystals.'
        )
    return None
