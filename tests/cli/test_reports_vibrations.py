"""The report of a vibrational analysis: character, zero-point energy, frequencies with their spread."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from aiida_mlpotential.cli import reports_vibrations as reports
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.units import KCAL_PER_MOL

WATER = [0.0] * 6 + [1600.0, 3700.25, 3800.0]
SADDLE = [0.0] * 6 + [-500.0, 1600.0, 3700.0]


@pytest.fixture
def structures(aiida_profile_clean) -> StructureSetData:
    """Return two geometries of water."""
    return StructureSetData.from_ase([molecule('H2O')] * 2, ['water', 'saddle'])


@pytest.fixture
def results(make_results):
    """Return a minimum and a saddle point that was not wanted."""
    return make_results(
        [3, 3],
        [FrameStatus.OK, FrameStatus.WRONG_CHARACTER],
        energies=[-10.0, -9.0],
        frequencies=[*WATER, *SADDLE],
        frequency_std=[0.0] * 6 + [1.0, 2.5, 3.0] + [0.0] * 6 + [40.0, 5.0, 6.0],
        zero_point_energies=np.array([13.0, 9.0]) * KCAL_PER_MOL,
        n_rigid=np.array([6, 6], 'i4'),
        n_imaginary=np.array([0, 1], 'i4'),
        stationary=np.array([1, 1], 'i4'),
    )


def test_table(structures, results) -> None:
    """A row for each structure, with its kind of stationary point."""
    text = reports.format_results(results, structures)
    lines = text.strip().splitlines()
    assert lines[2].split() == ['0', 'water', 'H2O', '-10.000000', '13.000', 'minimum', '1600.0', '3800.0', 'OK']
    assert 'transition state' in lines[3]
    assert 'WRONG_CHARACTER' in lines[3]
    assert '1 of 2 structures analysed, 1 failed.' in text


def test_frequencies_with_their_spread(structures, results) -> None:
    """Of a few structures all frequencies are listed, imaginary ones with an i, translations and rotations not."""
    text = reports.format_results(results, structures)
    assert 'Frequencies of water (cm⁻¹ ± spread over the members; i: imaginary):' in text
    assert '1600.0 ± 1.0' in text
    assert '3700.2 ± 2.5' in text
    assert '500.0i± 40.0' in text
    assert ' 0.0 ' not in text


def test_many_structures_have_no_list(make_results, aiida_profile_clean) -> None:
    """The frequencies of ten structures would fill the terminal."""
    structures = StructureSetData.from_ase([molecule('H2O')] * 10)
    ones = np.ones(10, 'i4')
    results = make_results(
        [3] * 10,
        [0] * 10,
        energies=-ones,
        frequencies=WATER * 10,
        zero_point_energies=ones,
        n_rigid=6 * ones,
        n_imaginary=0 * ones,
        stationary=ones,
    )
    assert 'Frequencies' not in reports.format_results(results, structures)


@pytest.mark.parametrize(
    ('imaginary', 'stationary', 'expected'),
    [
        (0, 1, 'minimum'),
        (2, 1, 'saddle point of order 2'),
        (0, 0, 'not stationary'),
        (1, 1, 'transition state'),
        (1, 0, 'not stationary'),
        (-1, -1, ''),
    ],
)
def test_character(make_results, imaginary: int, stationary: int, expected: str) -> None:
    """Forces that are too large are said before the number of imaginary modes means anything."""
    results = make_results([3], [0], n_imaginary=np.array([imaginary], 'i4'), stationary=np.array([stationary], 'i4'))
    assert reports.character(results, 0) == expected


def test_structure_without_a_result(make_results) -> None:
    """It has no modes to show."""
    results = make_results([3], [4], n_rigid=np.array([-1], 'i4'), frequencies=[np.nan] * 9)
    assert reports.vibrations_of(results, 0).tolist() == []
    assert reports.frequency_lines(results, 0) == []
