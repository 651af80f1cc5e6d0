"""Geometry optimizations through the engine: real jobs on this machine, with a calculator that needs milliseconds."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS

from aiida_mlpotential.calculations.geometry_optimization import GeometryOptimizationCalculation
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.data.trajectories import TrajectorySetData

CODES = GeometryOptimizationCalculation.exit_codes
TIGHT = {'force_tolerance': 1e-3, 'precision': 'double'}


def cluster(seed=0, scale=0.1):
    """Return four copper atoms out of place."""
    atoms = Atoms('Cu4', positions=[[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [1.2, 0.7, 2.0]])
    atoms.positions += np.random.default_rng(seed).normal(scale=scale, size=(4, 3))
    return atoms


def crystal(strain=0.02):
    atoms = bulk('Cu', cubic=True)
    atoms.set_cell(atoms.cell.array * (1 + strain), scale_atoms=True)
    atoms.rattle(0.02, seed=3)
    return atoms


@pytest.fixture
def run(python_code, emt_model):
    """Return a function that runs a job and returns outputs and node."""

    def function(**inputs):
        return run_get_node(GeometryOptimizationCalculation, code=python_code, model=emt_model, **inputs)

    return function


def named(atoms):
    """Return a structure whose kinds have names and a mass of their own."""
    structure = orm.StructureData(cell=atoms.cell.array, pbc=atoms.pbc)
    for index, position in enumerate(atoms.positions):
        structure.append_atom(
            symbols='Cu', name='Cu1' if index == 0 else 'Cu', position=position, mass=60.0 + (index == 0)
        )
    structure.label = 'a cluster'
    return structure


def test_one_structure_comes_back_as_what_it_was(run):
    atoms = cluster()
    structure = named(atoms)
    outputs, node = run(structure=structure, parameters=TIGHT)
    assert node.is_finished_ok, node.exit_message
    final = outputs['output_structure']
    assert final.label == 'a cluster'
    assert [kind.name for kind in final.kinds] == ['Cu1', 'Cu']
    assert [kind.mass for kind in final.kinds] == [61.0, 60.0]
    assert [site.kind_name for site in final.sites] == ['Cu1', 'Cu', 'Cu', 'Cu']

    atoms.calc = EMT()
    initial = atoms.get_potential_energy()
    LBFGS(atoms, logfile=None).run(fmax=1e-3)
    summary = outputs['output_parameters'].get_dict()
    assert summary['energy'] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert summary['initial_energy'] == pytest.approx(initial, abs=1e-9)
    assert summary['energy_change'] == pytest.approx(summary['energy'] - initial, abs=1e-9)
    assert summary['converged'] is True
    assert 0 < summary['steps'] == int(outputs['results'].get_array('steps')[0])
    assert summary['max_force'] < 1e-3
    found = final.get_ase()
    found.calc = EMT()
    assert found.get_potential_energy() == pytest.approx(summary['energy'], abs=1e-9)
    assert np.abs(found.get_all_distances() - atoms.get_all_distances()).max() < 0.01
    assert 'positions' not in outputs['results'].get_arraynames()
    assert 'trajectory' not in outputs


def test_results_are_those_of_the_final_structures(run):
    outputs, _ = run(
        structures=StructureSetData.from_ase([cluster(0), cluster(1)], labels=['a', 'b']), parameters=TIGHT
    )
    for atoms in outputs['results'].to_ase():
        energy = atoms.get_potential_energy()
        atoms.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
        assert atoms.info['status'] == 'OK'
    pytest.importorskip('pandas')
    table = outputs['results'].to_dataframe()
    assert table['label'].tolist() == ['a', 'b']
    assert (table['steps'] > 0).all()


def test_a_crystal_relaxes_with_its_cell(run):
    atoms = crystal()
    outputs, node = run(structure=orm.StructureData(ase=atoms), parameters={**TIGHT, 'optimize_cell': True})
    assert node.is_finished_ok, node.exit_message
    initial = atoms.get_volume()
    atoms.calc = EMT()
    LBFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3)
    summary = outputs['output_parameters'].get_dict()
    assert summary['energy'] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert summary['initial_volume'] == pytest.approx(initial)
    assert summary['volume'] == pytest.approx(atoms.get_volume(), abs=0.05)
    final = outputs['output_structure']
    assert final.get_cell_volume() == pytest.approx(summary['volume'])
    np.testing.assert_allclose(np.linalg.norm(final.cell, axis=1), atoms.cell.lengths(), atol=1e-3)
    assert final.pbc == (True, True, True)


def test_the_cell_is_kept_if_nobody_asks(run):
    atoms = crystal()
    outputs, node = run(structure=orm.StructureData(ase=atoms))
    assert node.is_finished_ok, node.exit_message
    np.testing.assert_array_equal(outputs['output_structure'].cell, atoms.cell.array)
    assert 'volume' not in outputs['output_parameters'].get_dict()


def test_a_set_keeps_order_labels_and_failed_structures(run):
    broken = cluster(2)
    broken.positions[0] = np.nan
    structures = [cluster(0), broken, crystal(), bulk('Si')]
    outputs, node = run(structures=StructureSetData.from_ase(structures, labels=['a', 'b', 'c', 'd']))
    assert node.exit_status == CODES.ERROR_SOME_STRUCTURES_FAILED.status
    final = outputs['output_structures']
    assert final.labels == ('a', 'b', 'c', 'd')
    np.testing.assert_array_equal(final.get_ase(1).positions, broken.positions)
    np.testing.assert_array_equal(final.get_ase(3).positions, structures[3].positions)
    assert not np.allclose(final.get_ase(0).positions, structures[0].positions)
    summary = outputs['output_parameters'].get_dict()
    assert summary['status_counts'] == {'OK': 2, 'NON_FINITE_INPUT': 1, 'UNSUPPORTED_ELEMENT': 1}
    assert summary['n_converged'] == 2
    assert outputs['results'].base.attributes.get('status_counts') == summary['status_counts']
    assert outputs['results'].base.attributes.get('steps_max') == summary['steps_max'] > 0


def test_what_does_not_converge_has_its_own_exit_code_and_goes_on(run):
    structures = StructureSetData.from_ase([cluster(0), cluster(1)], labels=['a', 'b']).store()
    outputs, first = run(structures=structures, parameters={**TIGHT, 'max_steps': 2})
    assert first.exit_status == CODES.ERROR_NOT_CONVERGED.status
    assert '2 of 2; a: NOT_CONVERGED' in first.exit_message
    frame = outputs['results'].frame(0)
    assert (frame.status.name, frame.ok, frame.extra['steps']) == ('NOT_CONVERGED', False, 2)
    last = outputs['output_structures'].get_ase(0)
    last.calc = EMT()
    assert last.get_potential_energy() == pytest.approx(frame.energy, abs=1e-9)
    assert frame.energy < frame.extra['initial_energies']

    outputs, node = run(
        structures=structures, parameters={**TIGHT, 'max_steps': 200}, parent_folder=first.outputs.remote_folder
    )
    assert node.is_finished_ok, node.exit_message
    assert (outputs['results'].get_array('steps') > 2).all()
    whole, _ = run(structures=structures, parameters={**TIGHT, 'max_steps': 200})
    np.testing.assert_allclose(outputs['results'].energies, whole['results'].energies, atol=1e-6)


def test_a_single_structure_that_does_not_converge_keeps_its_last_geometry(run):
    atoms = cluster()
    outputs, node = run(structure=orm.StructureData(ase=atoms), parameters={**TIGHT, 'max_steps': 1})
    assert node.exit_status == CODES.ERROR_NOT_CONVERGED.status
    summary = outputs['output_parameters'].get_dict()
    assert (summary['converged'], summary['status'], summary['steps']) == (False, 'NOT_CONVERGED', 1)
    assert summary['energy_change'] < 0
    assert not np.allclose(outputs['output_structure'].get_ase().positions, atoms.positions)


def test_trajectories_are_nodes(run):
    outputs, node = run(structure=orm.StructureData(ase=cluster()), parameters={**TIGHT, 'trajectory': 1})
    assert node.is_finished_ok, node.exit_message
    trajectory = outputs['trajectory']
    assert isinstance(trajectory, orm.TrajectoryData)
    steps = outputs['output_parameters']['steps']
    assert trajectory.get_stepids().tolist() == list(range(steps + 1))
    energies = trajectory.get_array('energies')
    assert energies[0] == pytest.approx(outputs['output_parameters']['initial_energy'])
    assert energies[-1] == pytest.approx(outputs['output_parameters']['energy'])
    np.testing.assert_allclose(trajectory.get_positions()[-1], outputs['output_structure'].get_ase().positions)

    structures = [cluster(0), crystal()]
    outputs, node = run(structures=StructureSetData.from_ase(structures), parameters={**TIGHT, 'trajectory': 2})
    assert node.is_finished_ok, node.exit_message
    assert isinstance(outputs['trajectory'], TrajectorySetData)
    for index, atoms in enumerate(outputs['output_structures'].get_frames()):
        np.testing.assert_allclose(outputs['trajectory'].get_ase(index)[-1].positions, atoms.positions)
        np.testing.assert_array_equal(outputs['trajectory'].get_ase(index)[0].positions, structures[index].positions)
