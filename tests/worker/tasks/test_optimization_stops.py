"""Optimizations that are stopped or killed, and go on; and the trajectories that they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ase.build import bulk
from waiting import wait_for

from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames, sha256_of
from aiida_mlpotential.worker.runner import run_job
from aiida_mlpotential.worker.schema import FRAMES_FILE, JOB_FILE, RESULTS_FILE, JobSpec
from aiida_mlpotential.worker.tasks.geometry_optimization import GeometryOptimization
from aiida_mlpotential.worker.trajectory import read_directory


def read(context, name):
    context.store.sync()
    return np.load(context.directory / 'arrays' / f'{name}.npy')


def run(context):
    GeometryOptimization().run(context)
    context.store.sync()
    return context


class After:
    """Says after a number of questions that somebody asked to stop."""

    def __init__(self, number):
        self.left = number

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.slow
@pytest.mark.parametrize('optimizer', ['LBFGS', 'FIRE'])
@pytest.mark.parametrize('cell', [False, True])
def test_a_soft_stop_at_any_time_changes_nothing(make_context, emt, tmp_path, optimizer, cell, crystals):
    """Stopped and taken up again and again, the job ends with the very numbers of an undisturbed one."""
    frames = crystals(4)
    parameters = {'optimizer': optimizer, 'optimize_cell': cell, 'batch_atoms': 6, 'max_steps': 400}
    one = run(make_context(GeometryOptimization, emt, frames, tmp_path / 'one', **parameters))
    stops = 0
    for _ in range(200):
        context = make_context(
            GeometryOptimization, emt, frames, tmp_path / 'two', stopping=After(3 + stops % 7), **parameters
        )
        run(context)
        if not (context.store.status == FrameStatus.PENDING).any():
            break
        stops += 1
        assert (tmp_path / 'two' / 'checkpoint' / 'state.npz').exists()
    assert stops > 2
    assert (context.store.status == FrameStatus.OK).all()
    for name in ('energies', 'positions', 'steps', 'initial_energies'):
        np.testing.assert_allclose(read(context, name), read(one, name), atol=1e-9)
    assert not (tmp_path / 'two' / 'checkpoint' / 'state.npz').exists()


def test_a_soft_stop_of_another_optimizer(make_context, emt, crystals):
    frames = crystals().select([3])
    stopped = run(make_context(GeometryOptimization, emt, frames, stopping=After(4), optimizer='FIRE2'))
    assert stopped.store.status.tolist() == [FrameStatus.PENDING]
    context = run(make_context(GeometryOptimization, emt, frames, optimizer='FIRE2'))
    assert context.store.status.tolist() == [FrameStatus.OK]
    assert read(context, 'steps')[0] > 4
    assert any('under way' in note for note in context.notes)


@pytest.mark.parametrize(
    ('first', 'second'), [('LBFGS', 'FIRE'), ('FIRE', 'LBFGS'), ('FIRE2', 'LBFGS'), ('LBFGS', 'BFGS')]
)
def test_a_change_of_the_optimizer_goes_on_from_the_geometries(make_context, emt, crystals, first, second):
    """Steps are counted on, and the first energy stays that of the first geometry."""
    frames = crystals().select([3])
    stopped = run(make_context(GeometryOptimization, emt, frames, stopping=After(3), optimizer=first))
    assert stopped.store.status.tolist() == [FrameStatus.PENDING]
    before = stopped.checkpoints.load()
    context = run(make_context(GeometryOptimization, emt, frames, optimizer=second, stopping=After(0)))
    after = context.checkpoints.load()
    for name in ('positions', 'steps', 'initial_energy', 'floor'):
        np.testing.assert_array_equal(after[name], before[name])
    assert (str(before['optimizer']), str(after['optimizer'])) == (first, second)
    context = run(make_context(GeometryOptimization, emt, frames, optimizer=second))
    assert context.store.status.tolist() == [FrameStatus.OK]
    assert read(context, 'steps')[0] > before['steps'][0] > 0
    assert read(context, 'initial_energies')[0] == before['initial_energy'][0]


def test_frames_that_a_later_run_finished_are_not_taken_up_again(make_context, emt, monkeypatch, crystals):
    """A checkpoint may be older than the results: what is finished stays finished."""
    frames = crystals()
    run(make_context(GeometryOptimization, emt, frames, stopping=After(5)))
    path = make_context(GeometryOptimization, emt, frames).directory / 'checkpoint' / 'state.npz'
    old = path.read_bytes()
    done = run(make_context(GeometryOptimization, emt, frames))
    before = {name: read(done, name) for name in ('energies', 'steps')}
    path.write_bytes(old)
    monkeypatch.delattr(type(emt), 'evaluate')  # whatever is evaluated now is a mistake
    again = run(make_context(GeometryOptimization, emt, frames))
    for name, values in before.items():
        np.testing.assert_array_equal(read(again, name), values)


def _write_job(directory, frames, model, **parameters):
    directory.mkdir()
    frames.write(directory / FRAMES_FILE)
    job = JobSpec('geometry_optimization', model, parameters, sha256_of(directory / FRAMES_FILE))
    (directory / JOB_FILE).write_text(job.to_json())
    return job


def _start(directory):
    return subprocess.Popen(
        [sys.executable, '-m', 'aiida_mlpotential.worker', JOB_FILE],
        cwd=directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


def _wait_for_another(path):
    age = path.stat().st_mtime_ns
    wait_for(lambda: path.stat().st_mtime_ns != age)


@pytest.mark.slow
def test_a_killed_job_goes_on_and_ends_with_the_same_minima(tmp_path, slow_emt):
    frames = Frames.from_ase([bulk('Cu', cubic=True) * 2] * 6)
    random = np.random.default_rng(5)
    frames = Frames(
        frames.numbers,
        frames.positions + random.normal(scale=0.12, size=frames.positions.shape),
        frames.offsets,
        frames.cells,
        frames.pbc,
    )
    parameters = {'checkpoint_interval': 0, 'trajectory': 2, 'force_tolerance': 1e-3, 'batch_atoms': 100}
    one, two = tmp_path / 'one', tmp_path / 'two'
    job = _write_job(one, frames, slow_emt, **parameters)
    assert run_job(lambda: job, one)
    _write_job(two, frames, slow_emt, **parameters)
    checkpoint = two / 'checkpoint' / 'state.npz'
    for turn in range(3):
        process = _start(two)
        wait_for(checkpoint.exists)
        _wait_for_another(checkpoint)
        time.sleep(0.15 * turn)
        assert process.poll() is None, 'the job was at its end before it was killed'
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert _start(two).wait(timeout=120) == 0
    info = json.loads((two / RESULTS_FILE).read_text())
    assert info['state'] == 'finished' and info['counts']['ok'] == 6
    for name, limit in (('energies', 1e-6), ('steps', 0)):
        ours, theirs = (np.load(path / 'arrays' / f'{name}.npy') for path in (two, one))
        np.testing.assert_allclose(ours, theirs, atol=limit)
    trajectories = [read_directory(path / 'trajectory') for path in (one, two)]
    for index in range(6):
        expected, found = (item.frame(index) for item in trajectories)
        np.testing.assert_array_equal(found.steps, expected.steps)
        np.testing.assert_allclose(found.positions, expected.positions, atol=1e-6)


def test_a_trajectory_has_each_interval_and_the_last_step(make_context, emt, crystals):
    frames = crystals()
    context = run(make_context(GeometryOptimization, emt, frames, trajectory=3))
    found = read_directory(context.directory / 'trajectory')
    assert found.frames == tuple(range(6))
    for index, last in enumerate(read(context, 'steps')):
        one = found.frame(index)
        assert one.steps.tolist() == sorted({*range(0, last + 1, 3), last})
        assert one.energies[0] == read(context, 'initial_energies')[index]
        assert one.energies[-1] == read(context, 'energies')[index]
        assert one.max_forces[-1] < 0.01
        rows = slice(frames.offsets[index], frames.offsets[index + 1])
        np.testing.assert_array_equal(one.positions[-1], read(context, 'positions')[rows])


def test_nothing_to_do(make_context, emt, crystals):
    """All frames failed their checks: the task ends at once."""
    context = make_context(GeometryOptimization, emt, crystals(2))
    context.fail(np.array([0, 1]), FrameStatus.ATOMS_TOO_CLOSE, 'too close')
    run(context)
    assert (context.store.status == FrameStatus.ATOMS_TOO_CLOSE).all()
