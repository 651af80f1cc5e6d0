"""Parsing optimizations: what goes in comes out as nodes of the same kind, whatever is wrong with some of it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from aiida import orm
from ase.build import bulk

from aiida_mlpotential.calculations.geometry_optimization import GeometryOptimizationCalculation
from aiida_mlpotential.data.structures import StructureSetData

CODES = GeometryOptimizationCalculation.exit_codes


def crystals():
    """Return three copper crystals out of place."""
    found = [bulk('Cu', cubic=True) * (n, 1, 1) for n in (1, 2, 1)]
    for seed, atoms in enumerate(found):
        atoms.rattle(0.03, seed=seed)
    return found


@pytest.fixture
def job(finish, emt_model):
    """Return a finished job with cells and trajectories of three crystals."""
    structures = StructureSetData.from_ase(crystals(), labels=['a', 'b', 'c'])
    return finish('geometry_optimization', structures, emt_model, {'optimize_cell': True, 'trajectory': 1})


@pytest.fixture
def single(finish, emt_model):
    """Return a finished job of one crystal."""
    return finish('geometry_optimization', orm.StructureData(ase=crystals()[0]), emt_model, {'trajectory': 1})


def test_all_outputs(job):
    outputs, node = job.parse()
    assert node.exit_status in (None, 0)
    assert set(outputs) == {'results', 'output_parameters', 'output_structures', 'trajectory'}
    final = outputs['output_structures'].get_frames()
    np.testing.assert_array_equal(final.positions, job.load('positions'))
    np.testing.assert_array_equal(final.cells, job.load('cells'))
    assert final.labels == ('a', 'b', 'c')
    assert final.pbc.all()
    assert not {'positions', 'cells'} & set(outputs['results'].get_arraynames())
    assert not {'positions', 'cells'} & set(outputs['output_parameters']['properties'])
    assert outputs['trajectory'].recorded == (0, 1, 2)


def test_one_structure(single):
    outputs, _ = single.parse()
    assert set(outputs) == {'results', 'output_parameters', 'output_structure', 'trajectory'}
    assert isinstance(outputs['trajectory'], orm.TrajectoryData)
    np.testing.assert_allclose(outputs['output_structure'].get_ase().positions, single.load('positions'))


@pytest.mark.parametrize('status', ['NOT_CONVERGED', 'EXPLODED', 'BROKE_APART', 'SPREAD_TOO_LARGE'])
def test_what_failed_with_a_geometry_keeps_it(job, status):
    from aiida_mlpotential.worker.errors import FrameStatus

    job.save('status', np.array([0, FrameStatus[status], 0], dtype='i1'))
    outputs, node = job.parse()
    expected = 'ERROR_NOT_CONVERGED' if status == 'NOT_CONVERGED' else 'ERROR_SOME_STRUCTURES_FAILED'
    assert node.exit_status == CODES[expected].status
    np.testing.assert_array_equal(outputs['output_structures'].get_frames().positions, job.load('positions'))
    assert outputs['results'].frame(1).energy is not None


def test_what_failed_without_a_geometry_keeps_that_of_the_input(job):
    job.save('status', np.array([2, 1, 0], dtype='i1'))
    outputs, node = job.parse()
    assert node.exit_status == CODES.ERROR_INCOMPLETE.status
    final, before = outputs['output_structures'].get_frames(), crystals()
    for index in (0, 1):
        np.testing.assert_array_equal(final.to_ase(index).positions, before[index].positions)
        np.testing.assert_array_equal(final.cells[index], before[index].cell.array)
    assert not np.allclose(final.to_ase(2).positions, before[2].positions)


def test_an_explosion_before_the_first_step_leaves_the_input(job):
    positions = job.load('positions')
    positions[:4] = np.nan
    job.save('positions', positions)
    job.save('status', np.array([12, 0, 0], dtype='i1'))
    outputs, _ = job.parse()
    final = outputs['output_structures'].get_frames()
    np.testing.assert_array_equal(final.to_ase(0).positions, crystals()[0].positions)


def test_a_single_structure_without_a_geometry_gives_none(single):
    single.save('status', np.array([8], dtype='i1'))
    outputs, node = single.parse()
    assert node.exit_status == CODES.ERROR_ALL_STRUCTURES_FAILED.status
    assert 'output_structure' not in outputs
    assert outputs['output_parameters']['converged'] is False


@pytest.mark.slow
def test_different_failures_have_the_common_exit_code(job):
    job.save('status', np.array([11, 12, 0], dtype='i1'))
    _, node = job.parse()
    assert node.exit_status == CODES.ERROR_SOME_STRUCTURES_FAILED.status
    job.save('status', np.array([11, 12, 11], dtype='i1'))
    _, node = job.parse()
    assert node.exit_status == CODES.ERROR_ALL_STRUCTURES_FAILED.status
    job.save('status', np.array([11, 11, 11], dtype='i1'))
    _, node = job.parse()
    assert node.exit_status == CODES.ERROR_NOT_CONVERGED.status
    assert '3 of 3; a: NOT_CONVERGED' in node.exit_message


def test_the_scheduler_has_the_last_word(job):
    job.save('status', np.array([11, 0, 0], dtype='i1'))
    outputs, node = job.parse(exit_status=120)
    assert node.exit_status == 120
    assert 'Not converged' in node.exit_message
    assert 'output_structures' in outputs


@pytest.mark.parametrize('state', ['stopped', 'running'])
def test_a_job_with_nothing_finished_can_be_gone_on_with(job, state):
    job.change_info(state=state)
    job.save('status', np.array([1, 1, 1], dtype='i1'))
    outputs, node = job.parse()
    assert node.exit_status == CODES.ERROR_INCOMPLETE.status
    assert outputs['output_structures'].labels == ('a', 'b', 'c')


@pytest.mark.parametrize('name', ['positions', 'cells', 'steps', 'initial_energies'])
def test_an_array_that_was_cut_short(job, name):
    path = job.directory / 'arrays' / f'{name}.npy'
    path.write_bytes(path.read_bytes()[:-3])
    outputs, node = job.parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status
    assert name in node.exit_message
    assert 'output_parameters' in outputs


def test_good_structures_without_coordinates_are_refused(job):
    positions = job.load('positions')
    positions[0, 0] = np.inf
    job.save('positions', positions)
    outputs, node = job.parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status
    assert 'where the status is OK' in node.exit_message
    assert 'results' in outputs


@pytest.mark.parametrize('kind', ['job', 'single'])
def test_damaged_trajectories_cost_nothing_else(kind, request):
    item, name = request.getfixturevalue(kind), {'job': 'output_structures', 'single': 'output_structure'}[kind]
    (item.directory / 'trajectory' / 'header.json').write_text('{}')
    outputs, node = item.parse()
    assert node.exit_status == CODES.ERROR_RESULTS_INVALID.status
    assert 'header.json is not the header' in node.exit_message
    assert {'results', name, 'output_parameters'} == set(outputs)


def test_a_job_without_trajectories(job):
    shutil.rmtree(job.directory / 'trajectory')
    outputs, node = job.parse()
    assert node.exit_status in (None, 0)
    assert 'trajectory' not in outputs
