"""Geometry optimizations through the engine: real jobs on this machine, with a calculator that needs milliseconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.common.folders import SandboxFolder
from aiida.engine import run_get_node
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS

from aiida_mlpotential.calculations import monitors
from aiida_mlpotential.calculations.geometry_optimization import GeometryOptimizationCalculation
from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData, ModelInfo
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.data.trajectories import TrajectorySetData
from aiida_mlpotential.worker.trajectory import RECORD

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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_single_structure_that_does_not_converge_keeps_its_last_geometry(run):
    atoms = cluster()
    outputs, node = run(structure=orm.StructureData(ase=atoms), parameters={**TIGHT, 'max_steps': 1})
    assert node.exit_status == CODES.ERROR_NOT_CONVERGED.status
    summary = outputs['output_parameters'].get_dict()
    assert (summary['converged'], summary['status'], summary['steps']) == (False, 'NOT_CONVERGED', 1)
    assert summary['energy_change'] < 0
    assert not np.allclose(outputs['output_structure'].get_ase().positions, atoms.positions)


@pytest.mark.slow
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


def _calcinfo(python_code, emt_model, **inputs):
    """Return what a job would send and copy, without sending it, and the files that it would send."""
    process = instantiate_process(
        get_manager().get_runner(), GeometryOptimizationCalculation, code=python_code, model=emt_model, **inputs
    )
    with SandboxFolder() as folder:
        return process.prepare_for_submission(folder), sorted(path.name for path in Path(folder.abspath).iterdir())


def test_checkpoints_and_trajectories_of_the_parent_are_copied(python_code, emt_model, localhost, tmp_path):
    parent = orm.RemoteData(computer=localhost, remote_path=str(tmp_path)).store()
    inputs = {'structure': orm.StructureData(ase=cluster()), 'parent_folder': parent}
    calcinfo, files = _calcinfo(python_code, emt_model, **inputs)
    assert [item[1:] for item in calcinfo.remote_copy_list] == [
        (f'{tmp_path}/arrays/status.npy', 'parent/status.npy'),  # first: see tests/worker/test_live_copies.py
        (f'{tmp_path}/arrays', 'parent/arrays'),
        (f'{tmp_path}/checkpoint', 'parent/checkpoint'),
        (f'{tmp_path}/parent', 'parent/parent'),
    ]
    assert 'parent' in files  # over SSH nobody else makes it
    assert 'trajectory' not in calcinfo.retrieve_list
    calcinfo, _ = _calcinfo(python_code, emt_model, **inputs, parameters={'trajectory': 1})
    assert calcinfo.remote_copy_list[3][1:] == (f'{tmp_path}/trajectory', 'parent/trajectory')
    assert 'trajectory' in calcinfo.retrieve_list


@pytest.mark.slow
def test_nothing_is_copied_of_another_job(run, python_code, emt_model):
    structure = orm.StructureData(ase=cluster()).store()
    _, single = run_get_node(SinglePointCalculation, code=python_code, model=emt_model, structure=structure)
    inputs = {'structure': structure, 'parent_folder': single.outputs.remote_folder}
    calcinfo, files = _calcinfo(python_code, emt_model, **inputs)
    assert calcinfo.remote_copy_list == []
    assert 'parent' in files
    outputs, node = run(**inputs)
    assert node.is_finished_ok, node.exit_message
    assert 'the parent folder has no results of this very job: began anew' in outputs['output_parameters']['notes']


@pytest.mark.slow
@pytest.mark.parametrize('missing', [('checkpoint',), ('checkpoint', 'trajectory', 'arrays')])
def test_a_parent_that_was_killed_early_is_no_obstacle(run, missing):
    inputs = {'structures': StructureSetData.from_ase([cluster(0)]).store(), 'parameters': {**TIGHT, 'trajectory': 1}}
    _, first = run(**inputs)
    work = Path(first.outputs.remote_folder.get_remote_path())
    for name in missing:
        shutil.rmtree(work / name)
    outputs, node = run(**inputs, parent_folder=first.outputs.remote_folder)
    assert node.is_finished_ok, node.exit_message
    assert outputs['results'].energies[0] == pytest.approx(first.outputs.results.energies[0], abs=1e-9)
    assert len(outputs['trajectory'].recorded) == 1


@pytest.mark.slow
def test_a_job_that_is_asked_to_stop_goes_on_from_its_checkpoint(run, monkeypatch):
    atoms = bulk('Cu') * (4, 4, 4)
    atoms.rattle(0.2, seed=1)
    inputs = {
        'structure': orm.StructureData(ase=atoms),
        'parameters': {**TIGHT, 'optimizer': 'FIRE', 'force_tolerance': 1e-5, 'max_steps': 5000, 'trajectory': 1},
    }

    def after_some_steps(node, seconds):
        """Ask when there is something under way, however slow the machine."""
        records = Path(node.get_remote_workdir()) / 'trajectory' / 'records.bin'
        return 'there are steps' if records.exists() and records.stat().st_size > 5 * RECORD.itemsize else None

    monkeypatch.setattr(monitors, '_reason', after_some_steps)
    monitor = orm.Dict({'entry_point': 'mlpotential.soft_stop'})
    outputs, first = run(**inputs, monitors={'stop': monitor})
    assert first.exit_status == CODES.ERROR_INCOMPLETE.status, first.exit_message
    assert 'asked to stop after 0 of 1' in first.exit_message
    assert outputs['results'].n_pending == 1
    assert 'output_structure' not in outputs
    begun = outputs['trajectory'].get_stepids()
    assert len(begun) > 5

    outputs, node = run(**inputs, parent_folder=first.outputs.remote_folder)
    assert node.is_finished_ok, node.exit_message
    note = 'went on with 1 optimizations that an earlier run had under way'
    assert note in outputs['output_parameters']['notes']
    steps = outputs['output_parameters']['steps']
    assert steps > begun[-1]
    assert outputs['trajectory'].get_stepids().tolist() == list(range(steps + 1))
    whole, undisturbed = run(**inputs)
    assert undisturbed.is_finished_ok, undisturbed.exit_message
    assert steps == whole['output_parameters']['steps']
    assert outputs['output_parameters']['energy'] == pytest.approx(whole['output_parameters']['energy'], abs=1e-8)


@pytest.mark.parametrize(
    ('structures', 'parameters', 'text'),
    [
        ([cluster()], {'max_steps': 0}, 'max_steps = 0'),
        ([cluster()], {'max_steps': -3}, 'max_steps = -3'),
        ([cluster()], {'optimize_cell': True}, r'structure: optimize_cell: Not periodic in three directions'),
        ([cluster()] * 2, {'optimize_cell': True}, r'done for none of them; the first: optimize_cell: Not periodic'),
        ([cluster()], {'keep_symmetry': True}, r'structure: keep_symmetry: Not periodic in three directions'),
        ([cluster()], {'pressure': 1.0}, 'pressure means nothing while the cell is kept'),
        ([cluster()], {'constraints': [{'kind': 'atoms', 'atoms': [4]}]}, 'structure: .*atom 4'),
        ([cluster()] * 2, {'constraints': [{'kind': 'bond', 'atoms': [0, 9]}]}, 'none of them; the first: .*atom 9'),
        (
            [cluster()] * 2,
            {'constraints': [{'kind': 'atoms', 'atoms': [0], 'structures': [2]}]},
            'constraint 0 names structure 2, but there are only 2',
        ),
        ([cluster()] * 2, {'optimizer': 'BFGS'}, 'the optimizer BFGS takes one structure, these are 2'),
        ([cluster()], {'optimizer': 'Newton'}, 'optimizer = .Newton. is not valid'),
        ([cluster()], {'max_qbc': 0.01}, 'max_qbc asks for a spread, but EMT has one member'),
    ],
)
def test_what_cannot_be_is_said_before_submission(run, structures, parameters, text):
    inputs = {'structure': orm.StructureData(ase=structures[0])}
    if len(structures) > 1:
        inputs = {'structures': StructureSetData.from_ase(structures)}
    with pytest.raises(ValueError, match=text):
        run(**inputs, parameters=parameters)


@pytest.mark.slow
def test_a_few_impossible_structures_fail_on_their_own(run):
    structures = StructureSetData.from_ase([crystal(), cluster()], labels=['a', 'b'])
    constraints = [{'kind': 'atoms', 'atoms': [0], 'structures': [0]}]
    outputs, node = run(structures=structures, parameters={'optimize_cell': True, 'constraints': constraints})
    assert node.exit_status == CODES.ERROR_SOME_STRUCTURES_FAILED.status, node.exit_message
    assert 'b: NO_CELL' in node.exit_message
    assert outputs['results'].n_ok == 1


def test_a_model_without_stress_cannot_optimize_cells(python_code, tmp_path, file_facts):
    path = tmp_path / 'model.npz'
    path.write_bytes(b'parameters that nobody reads before the validator refuses')
    model = ModelData.from_file(path, backend='sgdml', elements=['Cu'], info=ModelInfo(energy_unit='eV'))
    with pytest.raises(ValueError, match='has no stress; it has'):
        run_get_node(
            GeometryOptimizationCalculation,
            code=python_code,
            model=model,
            structure=orm.StructureData(ase=crystal()),
            parameters={'optimize_cell': True},
        )


@pytest.mark.slow
def test_the_space_group_is_sent_and_kept(run):
    atoms = bulk('Cu', cubic=True)
    atoms.set_cell(atoms.cell.array * 1.03, scale_atoms=True)
    outputs, node = run(
        structure=orm.StructureData(ase=atoms), parameters={**TIGHT, 'optimize_cell': True, 'keep_symmetry': True}
    )
    assert node.is_finished_ok, node.exit_message
    with node.base.repository.open('symmetry.npz', 'rb') as handle, np.load(handle) as file:
        rotations = file['rotations']
    # the 192 operations of the cubic cell are the products of its 48 rotations and 4 translations
    assert len(np.unique(rotations, axis=0)) == 48
    assert (rotations == np.eye(3)).all(axis=(1, 2)).sum() == 4
    lengths = np.linalg.norm(outputs['output_structure'].cell, axis=1)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-12)
    assert 3.5 < lengths[0] < 3.7


def test_a_space_group_that_is_not_found_is_said_before_submission(run, monkeypatch):
    from aiida_mlpotential.calculations import geometry_optimization as module
    from aiida_mlpotential.symmetry.libraries import MissingLibraryError

    inputs = {'structure': orm.StructureData(ase=crystal()), 'parameters': {'keep_symmetry': True}}
    monkeypatch.setattr(module, 'symmetry_arrays', lambda frames, tolerance: {'operation_offsets': np.array([0, 0])})
    with pytest.raises(ValueError, match='structure: its space group was not found'):
        run(**inputs)

    def missing(frames, tolerance):
        raise MissingLibraryError('run `pip install aiida-mlpotential[symmetry]`')

    monkeypatch.setattr(module, 'symmetry_arrays', missing)
    with pytest.raises(ValueError, match='pip install aiida-mlpotential'):
        run(**inputs)
