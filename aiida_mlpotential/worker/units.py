"""Conversion factors between the units that backends use and the package's own: eV and angstrom.

The constants are those of CODATA 2014 as ase and torchani use them: numbers agree with theirs to the last digit.
"""

from __future__ import annotations

HARTREE = 27.211386024367243  # eV, CODATA 2014
BOHR = 0.5291772105638411  # angstrom, CODATA 2014
KCAL_PER_MOL = 0.04336410390059322  # eV
KJ_PER_MOL = 0.010364269574711572  # eV

#: Energy units by name, in eV.
ENERGY_UNITS: dict[str, float] = {
    'eV': 1.0,
    'Hartree': HARTREE,
    'kcal/mol': KCAL_PER_MOL,
    'kJ/mol': KJ_PER_MOL,
}

#: Distance units by name, in angstrom.
DISTANCE_UNITS: dict[str, float] = {'angstrom': 1.0, 'bohr': BOHR}
