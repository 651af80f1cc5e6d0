"""A run goes on from the directory of another one whose worker was still at work when the files were copied.

AiiDA gives a job up that is killed or ends with an exception; its worker may still compute, where the scheduler was not
told or did not listen. Arrays and status are then copied at different times.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT

from aiida_mlpotential.worker.errors import FrameStatus

OK, PENDING, NOT_CONVERGED = FrameStatus.OK, FrameStatus.PENDING, FrameStatus.NOT_CONVERGED
OPEN_FILES = Path('/proc/self/fd')
PARAMETERS = {'force_tolerance': 1e-4, 'max_steps': 4}


@pytest.fixture
def two_runs(job, copper, tmp_path):
    """Return the arrays of an optimization that needed another run, before and after that one, and the job."""
    job.frames, job.task = copper(3), 'geometry_optimization'
    job.run(**PARAMETERS)
    before, after = tmp_path / 'before', tmp_path / 'after'
    for _ in range(20):
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(job.directory / 'arrays', before)
        job.run(**PARAMETERS)
        if (job.array('status') == OK).all():
            break
    shutil.copytree(job.directory / 'arrays', after)
    return before, after, job


@pytest.fixture
def go_on(two_runs, tmp_path):
    """Return a function that goes on in a new directory from what is in its parent."""

    def function(fill):
        directory = tmp_path / 'new'
        parent = directory / 'parent'
        parent.mkdir(parents=True)
        fill(parent)
        job = dataclasses.replace(two_runs[2], directory=directory)
        job.run(**PARAMETERS)
        return job

    return function


def energies_at(job):
    """Return the energies of the geometries in the results."""
    positions, offsets = job.array('positions'), job.array('offsets')
    found = []
    for index, atoms in enumerate(job.frames):
        atoms.positions = positions[offsets[index] : offsets[index + 1]]
        atoms.calc = EMT()
        found.append(atoms.get_potential_energy())
    return np.array(found)


def test_the_runs_differ(two_runs):
    before, after, _ = two_runs
    assert NOT_CONVERGED in np.load(before / 'status.npy')
    assert not np.array_equal(np.load(before / 'positions.npy'), np.load(after / 'positions.npy'))


@pytest.mark.parametrize('late', ['positions', 'energies', 'forces', 'steps'])
def test_old_geometries_never_get_new_energies(two_runs, go_on, late):
    """One array was copied before the worker wrote the end of the structures, all others and the status after it."""
    before, after, _ = two_runs

    def copy(parent):
        shutil.copy(before / 'status.npy', parent)
        shutil.copytree(after, parent / 'arrays')
        shutil.copy(before / f'{late}.npy', parent / 'arrays')

    job = go_on(copy)
    assert (job.array('status') == OK).all()
    np.testing.assert_allclose(job.array('energies'), energies_at(job), rtol=0, atol=1e-10)
    np.testing.assert_allclose(job.array('energies'), np.load(after / 'energies.npy'), rtol=0, atol=1e-6)
    assert np.abs(job.array('forces')).max() <= 1e-4


def test_what_was_finished_when_the_copy_began_is_not_computed_again(two_runs, go_on):
    _, after, _ = two_runs

    def copy(parent):
        shutil.copytree(after, parent / 'arrays')
        status = np.load(after / 'status.npy')
        status[1] = PENDING
        np.save(parent / 'status.npy', status)

    job = go_on(copy)
    assert 'went on with the results of 2 structures of an earlier run' in job.info()['notes']
    assert (job.array('status') == OK).all()
    for index in (0, 2):
        assert job.array('energies')[index] == np.load(after / 'energies.npy')[index]


@pytest.mark.parametrize('status', [None, b'', b'no array', 'of others'])
def test_a_copy_without_the_status_before_it_is_taken_as_it_is(two_runs, go_on, status):
    """An older version did not copy it, or the disk was full: the arrays are what there is to go by."""
    _, after, _ = two_runs

    def copy(parent):
        shutil.copytree(after, parent / 'arrays')
        if status == 'of others':
            np.save(parent / 'status.npy', np.zeros(7, 'i1'))
        elif status is not None:
            (parent / 'status.npy').write_bytes(status)

    assert 'went on with the results of 3 structures of an earlier run' in go_on(copy).info()['notes']


@pytest.fixture
def order(monkeypatch):
    """Return what is written to a job's files and forced onto the disk, in this order."""
    found, write, force = [], os.pwrite, os.fsync

    def name(handle):
        return (OPEN_FILES / str(handle)).readlink().name.removesuffix('.npy')

    def pwrite(handle, *args):
        found.append(('write', name(handle)))
        return write(handle, *args)

    def fsync(handle):
        found.append(('force', name(handle)))
        force(handle)

    monkeypatch.setattr('aiida_mlpotential.worker.storage.os.pwrite', pwrite)
    monkeypatch.setattr('aiida_mlpotential.worker.storage.os.fsync', fsync)
    return found


@pytest.mark.skipif(not OPEN_FILES.exists(), reason='names of open files are those of Linux')
def test_new_values_are_on_the_disk_before_they_count(two_runs, order):
    """A crash of the machine writes pages in any order: old values would stand beside a status of the new ones."""
    before, _, job = two_runs
    shutil.rmtree(job.directory / 'arrays')
    shutil.copytree(before, job.directory / 'arrays')
    order.clear()
    job.run(**PARAMETERS)
    assert (job.array('status') == OK).all()
    marks = [place for place, item in enumerate(order) if item == ('write', 'status')]
    first = order.index(('write', 'energies'))
    assert marks[0] < first
    assert ('force', 'status') in order[marks[0] : first], 'that the old values do not count any more'
    for mark in (place for place in marks if place > first):
        last = max(place for place in range(mark) if order[place] == ('write', 'energies'))
        assert {('force', 'energies'), ('force', 'positions')} <= set(order[last:mark])


@pytest.mark.skipif(not OPEN_FILES.exists(), reason='names of open files are those of Linux')
def test_nothing_waits_for_the_disk_where_nothing_is_replaced(job, copper, order):
    job.frames = copper(4)
    job.run(batch_atoms=1)
    writes = [place for place, item in enumerate(order) if item == ('write', 'energies')]
    assert len(writes) == 4
    assert ('force', 'energies') not in order[writes[0] : writes[-1]]
