"""Cells as coordinates: the numbers are those of ASE's FrechetCellFilter, and forces are derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.units import GPa
from scipy.linalg import logm

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization import cells
from aiida_mlpotential.worker.optimization.cells import CellRules, full_mask

CASES = {
    'all free': ({}, CellRules()),
    'pressure': ({'scalar_pressure': 0.03}, CellRules(pressure=0.03)),
    'mask': ({'mask': [1, 0, 1, 1, 1, 0]}, CellRules(mask=full_mask([1, 0, 1, 1, 1, 0]))),
    'fixed volume': ({'constant_volume': True}, CellRules(fixed_volume=True)),
    'hydrostatic': ({'hydrostatic_strain': True}, CellRules(hydrostatic=True)),
}


@pytest.fixture
def random():
    return np.random.default_rng(3)


def test_a_gigapascal_is_that_of_ase():
    assert pytest.approx(GPa, rel=1e-8) == cells.GPA


@pytest.mark.parametrize(('keywords', 'rules'), CASES.values(), ids=CASES)
def test_coordinates_and_forces_are_those_of_ase(keywords, rules, random):
    """So the same largest force means the same in both."""
    atoms = bulk('Cu', cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    filtered = FrechetCellFilter(atoms, **keywords)
    reference = atoms.cell.array[None].copy()
    strain = random.normal(size=(3, 3)) * 0.05
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    frames = Frames.from_ase([atoms])
    deformation = cells.deformations(reference, frames.cells)
    logs = cells.logarithm(deformation)
    found = cells.cell_forces(frames, atoms.get_stress(voigt=False)[None], deformation, logs, rules)
    np.testing.assert_allclose(found[0], filtered.get_forces()[-3:], atol=1e-12)
    # ASE adds the logarithm of the number of atoms, which is a constant.
    np.testing.assert_allclose(4 * (logs[0] + np.log(4) * np.eye(3)), filtered.get_positions()[-3:], atol=1e-12)


def test_what_is_left_of_the_stress_is_what_ase_tests(random):
    """The criterion on the stress is that of ASE, pressure, mask and all."""
    for keywords, rules in CASES.values():
        atoms = bulk('Al', cubic=True)
        atoms.calc = EMT()
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + random.normal(size=(3, 3)) * 0.03), scale_atoms=True)
        filtered = FrechetCellFilter(atoms, **keywords)
        filtered.get_forces()
        left = rules.pressed(atoms.get_stress(voigt=False)[None])[0]
        np.testing.assert_allclose([left[0, 0], left[1, 1], left[2, 2], left[1, 2], left[0, 2], left[0, 1]],
                                   filtered.stress, atol=1e-12)  # fmt: skip


def test_logarithms_of_many_matrices_at_once(random):
    matrices = np.eye(3) + 0.2 * random.normal(size=(20, 3, 3))
    matrices[0] = [[1, 0.4, 0], [0, 1, 0], [0, 0, 1]]  # a shear, which has no three eigenvectors
    matrices[1], matrices[2] = np.eye(3), 3 * np.eye(3)
    for matrix, found in zip(matrices, cells.logarithm(matrices), strict=True):
        np.testing.assert_allclose(found, logm(matrix), atol=1e-11)
    assert cells.logarithm(np.zeros((0, 3, 3))).shape == (0, 3, 3)


def test_a_masked_component_stays_as_it_was(random):
    rules = CellRules(mask=full_mask([True, True, False, False, False, True]))
    deformation = cells.masked(cells.exponential(random.normal(size=(4, 3, 3))), rules)
    assert np.all(deformation[:, 2] == [0, 0, 1]) and np.all(deformation[:, :2, 2] == 0)


def test_a_fixed_volume_with_a_mask_keeps_the_area_that_is_free():
    """Only what is free shares the trace: a fixed length gets no force that would never vanish."""
    rules = CellRules(mask=full_mask([True, True, False, False, False, True]), fixed_volume=True)
    left = rules.pressed(np.diag([3.0, 1.0, 7.0])[None])[0]
    np.testing.assert_allclose(left, np.diag([1.0, -1.0, 0.0]))


def test_rules_of_parameters():
    parameters = {'optimize_cell': True, 'pressure': 2, 'cell_mask': None, 'fixed_volume': False, 'hydrostatic': True}
    rules = CellRules.of(parameters)
    assert rules.pressure == pytest.approx(2 * GPa, rel=1e-8)
    assert rules.hydrostatic and not rules.fixed_volume and rules.mask.all()
    assert CellRules.of({**parameters, 'optimize_cell': False}) is None
