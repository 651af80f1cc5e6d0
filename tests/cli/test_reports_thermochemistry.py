"""The report of thermochemistry: parts, totals at each temperature, spread, and the modes that were left out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from aiida import orm
from ase.build import molecule

from aiida_mlpotential.cli import reports_thermochemistry as reports
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.units import KCAL_PER_MOL

KCAL, CAL = KCAL_PER_MOL, KCAL_PER_MOL / 1000
PARTS = ('translation', 'rotation', 'vibration')


@pytest.fixture
def results(make_results):
    """Return water at two temperatures, with the numbers in kcal/mol easy to tell apart."""
    pair = np.ones((1, 2))
    arrays = {f'internal_energy_{part}': (index + 1) * KCAL * pair for index, part in enumerate(PARTS)}
    arrays |= {f'heat_capacity_{part}': (index + 4) * CAL * pair for index, part in enumerate(PARTS)}
    arrays |= {f'entropy_{part}': (index + 7) * CAL * pair for index, part in enumerate((*PARTS, 'electronic'))}
    return make_results(
        [3],
        [0],
        energies=[-2.0],
        zero_point_energies=[13 * KCAL],
        internal_energies=-2.0 + 19 * KCAL * pair,
        enthalpies=-2.0 + 20 * KCAL * pair,
        entropies=34 * CAL * pair,
        heat_capacities=15 * CAL * pair,
        gibbs_energies=-2.0 + np.array([[9.8, 6.4]]) * KCAL,
        gibbs_energies_quasi_rrho=-2.0 + np.array([[9.7, 6.3]]) * KCAL,
        gibbs_energy_std=np.array([[0.25, 0.5]]) * KCAL,
        frequencies=[0.0] * 6 + [-30.0, 12.5, 3700.0],
        n_rigid=np.array([6], 'i4'),
        n_imaginary=np.array([1], 'i4'),
        n_excluded=np.array([1], 'i4'),
        stationary=np.array([1], 'i4'),
        symmetry_numbers=np.array([2], 'i4'),
        **arrays,
    )


@pytest.fixture
def text(results, aiida_profile_clean) -> str:
    """Return the whole report."""
    structures = StructureSetData.from_ase([molecule('H2O')], ['water'])
    parameters = orm.Dict({'temperatures': [300.0, 400.0], 'gas_pressure': 1e5})
    inputs = {'parameters': parameters}
    node = SimpleNamespace(inputs=_Inputs(inputs))
    return reports.format_results(results, structures, node)


class _Inputs(dict):
    """Inputs by name, as attributes too."""

    def __getattr__(self, name: str) -> object:
        return self[name]


def _row(text: str, first: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [first])


def test_line_of_a_structure(text: str) -> None:
    """Energies that contain the electronic one are in eV, with the spread of the Gibbs energy."""
    row = _row(text, '0')
    assert row[1:5] == ['water', 'H2O', '-2.000000', '13.000']
    assert row[5:7] == [f'{-2 + 20 * KCAL:.6f}', f'{-2 + 9.8 * KCAL:.6f}']
    assert row[7:9] == ['0.250', f'{-2 + 9.7 * KCAL:.6f}']
    assert 'H and G at 300 K and 1 bar' in text


def test_parts(text: str) -> None:
    """Translation, rotation and vibration add up; electrons have an entropy only."""
    assert _row(text, 'translation')[1:] == ['1.000', '7.000', '4.000']
    assert _row(text, 'rotation')[1:] == ['2.000', '8.000', '5.000']
    assert _row(text, 'vibration')[1:] == ['3.000', '9.000', '6.000']
    assert _row(text, 'electronic')[1:] == ['10.000']
    assert _row(text, 'total')[1:] == ['6.000', '34.000', '15.000']
    assert 'symmetry number 2' in text


def test_every_temperature(text: str) -> None:
    """A line each: U, H, TS, G, quasi-RRHO and the spread, without the electronic energy."""
    assert _row(text, '300')[1:] == ['19.000', '20.000', '10.200', '9.800', '9.700', '0.250']
    assert _row(text, '400')[1:] == ['19.000', '20.000', '13.600', '6.400', '6.300', '0.500']


def test_point_group(results) -> None:
    """Where the symmetry number was found, the point group that it comes from is named."""
    parameters = {'temperatures': [300.0, 400.0], 'gas_pressure': 1e5}
    assert 'water at 300 K and 1 bar, symmetry number 2:' in reports.details(results, 0, 'water', parameters)
    results.set_array('point_groups', np.array(['C2v']))
    assert 'water at 300 K and 1 bar, point group C2v, symmetry number 2:' in reports.details(
        results, 0, 'water', parameters
    )


def test_without_members(results) -> None:
    """A model with one member has no column for a spread."""
    results.delete_array('gibbs_energy_std')
    table = reports.totals_table(results, 0, [300.0, 400.0])
    assert 'std' not in table
    assert _row(table, '400')[-1] == '6.300'


def test_defaults_of_a_calculation() -> None:
    """What was not given is what the worker takes."""
    parameters = reports.parameters_of_node(SimpleNamespace(inputs={}))
    assert reports.conditions(parameters) == '298.15 K and 1.01325 bar'
