"""Units: the same constants as the libraries whose numbers we reproduce."""

from __future__ import annotations

import ase.units
import pytest

from aiida_mlpotential.worker.units import DISTANCE_UNITS, ENERGY_UNITS


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('eV', 1.0),
        ('Hartree', ase.units.Hartree),
        ('kcal/mol', ase.units.kcal / ase.units.mol),
        ('kJ/mol', ase.units.kJ / ase.units.mol),
    ],
)
def test_energy_units_agree_with_ase(name, value):
    assert ENERGY_UNITS[name] == pytest.approx(value, rel=1e-15)


def test_bohr_agrees_with_ase():
    assert DISTANCE_UNITS['bohr'] == pytest.approx(ase.units.Bohr, rel=1e-15)
