"""The parameters of thermochemistry: what is refused, in words that say what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiida_mlpotential.worker.parameters import parameters_of, result_parameters, validate_parameters, with_defaults
from aiida_mlpotential.worker.parameters.thermochemistry import check_structures
from aiida_mlpotential.worker.thermochemistry import Settings

OWN = ('temperatures', 'gas_pressure', 'symmetry_number', 'spin_multiplicity', 'low_frequency_cutoff')


def test_defaults_are_those_of_the_field() -> None:
    """298.15 K, one atmosphere, a singlet; the point group tells the symmetry number; low modes are left out."""
    defaults = with_defaults({}, 'thermochemistry')
    assert {name: defaults[name] for name in OWN} == {
        'temperatures': [298.15],
        'gas_pressure': 101325.0,
        'symmetry_number': None,
        'spin_multiplicity': 1,
        'low_frequency_cutoff': 20.0,
    }
    assert Settings.of(defaults) == Settings()
    assert validate_parameters(defaults, 'thermochemistry') is None


def test_those_of_vibrations_are_there() -> None:
    """All of them; but a minimum is expected, and only what rounding makes of a mode is taken for noise."""
    vibrations, own = parameters_of('vibrations'), parameters_of('thermochemistry')
    assert set(own) == {*vibrations, *OWN}
    changed = [name for name in vibrations if own[name].default != vibrations[name].default]
    assert changed == ['expected', 'imaginary_cutoff']
    assert own['expected'].default == 'minimum'
    assert own['imaginary_cutoff'].default == 5.0
    assert own['precision'] == vibrations['precision']


def test_results_depend_on_all_of_them() -> None:
    """A job goes on with the results of an earlier one only when the conditions are the same."""
    assert set(OWN) <= set(result_parameters({}, 'thermochemistry'))


@pytest.mark.parametrize(
    'values',
    [
        {'temperatures': [0.5, 298.15, 3000]},
        {'temperatures': (300,)},
        {'gas_pressure': 100000},
        {'symmetry_number': 12},
        {'symmetry_number': [1, 2, 12]},
        {'spin_multiplicity': [2, 1]},
        {'low_frequency_cutoff': 0},
    ],
)
def test_what_is_allowed(values: dict[str, Any]) -> None:
    """Whole numbers where they make sense, and lists of one for each structure."""
    assert validate_parameters(values, 'thermochemistry') is None


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'temperatures': [298.15, -5]}, '-5 K is no temperature: give temperatures above 0 K'),
        ({'temperatures': [0]}, '0 K is no temperature'),
        ({'temperatures': []}, 'a list of 1 to 1000 temperatures in K'),
        ({'temperatures': 298.15}, 'a list of 1 to 1000 temperatures in K'),
        ({'temperatures': ['298']}, 'a list of 1 to 1000 temperatures in K'),
        ({'temperatures': [float('nan')]}, 'a list of 1 to 1000 temperatures in K'),
        ({'temperatures': [1e6]}, 'up to 100000'),
        ({'temperatures': [True]}, 'a list of'),
        ({'temperatures': [300.0] * 1001}, 'a list of 1 to 1000'),
        ({'gas_pressure': 0}, 'a pressure in Pa'),
        ({'gas_pressure': -101325}, 'a pressure in Pa'),
        ({'gas_pressure': '1 bar'}, 'a pressure in Pa'),
        ({'symmetry_number': 0}, 'an integer from 1'),
        ({'symmetry_number': [2, 0]}, 'an integer from 1'),
        ({'symmetry_number': []}, 'one for each structure'),
        ({'symmetry_number': 2.0}, 'an integer from 1'),
        ({'symmetry_number': 'C2v'}, 'an integer from 1'),
        ({'spin_multiplicity': 0}, 'an integer from 1'),
        ({'spin_multiplicity': None}, 'an integer from 1'),
        ({'spin_multiplicity': True}, 'an integer from 1'),
        ({'low_frequency_cutoff': -20}, 'a wavenumber in cm^-1 from 0'),
        ({'low_frequency_cutoff': None}, 'a wavenumber in cm^-1 from 0'),
        ({'expected': 'maximum'}, 'minimum'),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str) -> None:
    """One sentence with the key, the value and what is allowed."""
    complaint = validate_parameters(values, 'thermochemistry')
    assert complaint is not None
    assert message in complaint
    assert next(iter(values)) in complaint
    assert complaint.endswith('.')
    assert '\n' not in complaint


def _check(pbc: list[list[bool]], **values: Any) -> str | None:
    return check_structures(with_defaults(values, 'thermochemistry'), np.array(pbc, dtype=bool).reshape(-1, 3))


MOLECULE, CRYSTAL, WIRE = [False] * 3, [True] * 3, [False, False, True]


@pytest.mark.parametrize('name', ['symmetry_number', 'spin_multiplicity'])
def test_lists_have_a_number_for_each_structure(name: str) -> None:
    """Neither more nor fewer, also for a single structure; one number is for all."""
    assert _check([MOLECULE] * 3, **{name: [1, 2, 1]}) is None
    assert _check([MOLECULE] * 3, **{name: 2}) is None
    for number in (1, 2, 4):
        complaint = _check([MOLECULE] * 3, **{name: [1] * number})
        assert complaint is not None
        assert f'{name} has {number} values for 3 structures' in complaint
        assert 'one for each' in complaint


def test_crystals_are_refused_when_there_is_nothing_else() -> None:
    """With molecules among them they get a status of their own, and the molecules their results."""
    complaint = _check([CRYSTAL, WIRE])
    assert complaint is not None
    assert 'ideal gas' in complaint
    assert 'use vibrations' in complaint
    assert _check([CRYSTAL, MOLECULE]) is None
    assert _check([]) is None
