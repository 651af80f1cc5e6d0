"""Generalised coordinates: forces are the derivatives of the enthalpy by them, and steps go where they say."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization.cells import CellRules, full_mask
from aiida_mlpotential.worker.optimization.coordinates import Coordinates, at, concatenate

MASK = full_mask([True, False, True, True, True, False])


def crystal(seed=1):
    """Return a rattled, sheared cell of copper."""
    random = np.random.default_rng(seed)
    atoms = bulk('Cu', cubic=True)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.05 * random.normal(size=(3, 3))), scale_atoms=True)
    atoms.positions += 0.1 * random.normal(size=(4, 3))
    return atoms


def evaluate(coordinates):
    """Return enthalpies, and forces on the coordinates."""
    energies, forces, stress = [], [], []
    for atoms in coordinates.frames:
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        stress.append(atoms.get_stress(voigt=False))
    return coordinates.enthalpies(np.array(energies)), coordinates.forces(np.concatenate(forces), np.array(stress))


@pytest.fixture
def deformed():
    """Return a maker of coordinates of two crystals whose cells are deformed already."""

    def make(rules):
        references = Frames.from_ase([crystal(1), crystal(2)])
        start = Coordinates.of(references, rules, references.cells)
        steps = 0.05 * np.random.default_rng(9).normal(size=(14, 3))
        steps[start.rows.cells] *= 4
        return start.moved(steps)

    return make


@pytest.mark.parametrize('rules', [CellRules(), CellRules(pressure=0.05)], ids=['free', 'pressure'])
def test_forces_are_the_derivatives_of_the_enthalpy(deformed, rules):
    here = deformed(rules)
    _, forces = evaluate(here)
    random, step = np.random.default_rng(4), 1e-5
    for _ in range(3):
        direction = random.normal(size=forces.shape)
        ends = [evaluate(here.moved(sign * step * direction))[0] for sign in (-1, 1)]
        expected = -(ends[1] - ends[0]) / (2 * step)
        np.testing.assert_allclose(here.rows.dot(forces, direction), expected, atol=1e-6)


@pytest.mark.parametrize('rules', [CellRules(), CellRules(mask=MASK)], ids=['free', 'mask'])
def test_a_step_is_that_of_ase(rules):
    """Cell and positions after a step are those that ASE's filter sets."""
    atoms = crystal()
    frames = Frames.from_ase([atoms])
    here = Coordinates.of(frames, rules, frames.cells)
    filtered = FrechetCellFilter(atoms, mask=None if rules.mask.all() else [1, 0, 1, 1, 1, 0])
    steps = 0.1 * np.random.default_rng(6).normal(size=(7, 3))
    for _ in range(2):
        filtered.set_positions(filtered.get_positions() + steps)
        here = here.moved(steps)
    np.testing.assert_allclose(here.frames.cells[0], atoms.cell.array, atol=1e-12)
    np.testing.assert_allclose(here.frames.positions, atoms.positions, atol=1e-12)


def test_the_coordinates_of_a_step_add_up(deformed):
    here = deformed(CellRules())
    steps = 0.02 * np.random.default_rng(2).normal(size=(14, 3))
    np.testing.assert_allclose(here.moved(steps).values(), here.values() + steps, atol=1e-12)


def test_the_same_coordinates_from_the_geometry_alone(deformed):
    """A later run knows the cells of the job and those of the end, and nothing else."""
    here = deformed(CellRules())
    again = Coordinates.of(here.frames, here.rules, here.references)
    np.testing.assert_allclose(again.values(), here.values(), atol=1e-12)


def test_steps_and_displacements_are_one_another(deformed):
    here = deformed(CellRules())
    steps = np.random.default_rng(8).normal(size=(8, 3))
    np.testing.assert_allclose(here.coordinate_steps(here.real_steps(steps)), steps, atol=1e-12)
    rows = here.rows
    padded = np.zeros((rows.n_rows, 3))
    padded[rows.atoms] = 1e-3 * steps
    moved = here.moved(padded).frames.positions - here.frames.positions
    np.testing.assert_allclose(moved, 1e-3 * here.real_steps(steps), atol=1e-12)


def test_without_cells_the_coordinates_are_the_positions():
    frames = Frames.from_ase([molecule('H2O'), bulk('Cu')])
    here = Coordinates.of(frames, None, frames.cells)
    assert here.values() is frames.positions
    np.testing.assert_array_equal(here.moved(np.ones((4, 3))).frames.positions, frames.positions + 1)
    np.testing.assert_array_equal(here.moved(np.ones((4, 3))).frames.cells, frames.cells)
    assert here.enthalpies(np.array([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_frames_are_selected_and_joined(deformed):
    here = deformed(CellRules())
    parts = [here.select(np.array([index])) for index in range(2)]
    both = parts[0].joined(parts[1])
    np.testing.assert_array_equal(both.values(), here.values())
    np.testing.assert_array_equal(both.references, here.references)
    swapped = concatenate(parts[1].frames, parts[0].frames)
    np.testing.assert_array_equal(swapped.cells, here.frames.cells[::-1])
    assert at(here.frames, here.frames.positions + 1).cells is here.frames.cells
