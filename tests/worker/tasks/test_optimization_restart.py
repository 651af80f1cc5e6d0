"""Going on after a kill at a bad moment: between two files, or after the results and before the next checkpoint."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.backends import load_backend
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.storage import ResultsStore
from aiida_mlpotential.worker.tasks.geometry_optimization import GeometryOptimization

PARAMETERS = {'force_tolerance': 1e-3, 'precision': 'double'}


class After:
    """Asks to stop after some rounds."""

    def __init__(self, rounds):
        self._left = rounds

    def __call__(self):
        self._left -= 1
        return self._left < 0


@pytest.fixture
def emt(tmp_path, job):
    return load_backend(job.model, tmp_path, Settings())


@pytest.fixture
def frames(copper):
    return copper(4)


@pytest.fixture
def run(make_context, emt, frames):
    """Return a function that runs the task in the same directory and returns its context."""

    def function(**parameters):
        context = make_context(GeometryOptimization, emt, frames, **PARAMETERS | parameters)
        GeometryOptimization().run(context)
        context.store.close()
        return context

    return function


def _values(context, name):
    return np.load(context.directory / 'arrays' / f'{name}.npy')


def test_a_kill_between_two_files_of_an_end_leaves_no_end(run, make_context, emt, frames, monkeypatch, tmp_path):
    """The steps are there and the positions are not: the frame begins where the job got it."""
    expected = run(directory=tmp_path / 'undisturbed')

    class Killed(BaseException):
        pass

    write_rows = ResultsStore._write_rows

    def killed(self, name, *arguments):
        if name == 'positions':
            raise Killed
        write_rows(self, name, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ResultsStore, '_write_rows', killed)
        with pytest.raises(Killed):
            run()
    found = run()
    assert (_values(found, 'steps') >= 0).all()
    assert found.store.status.tolist() == [FrameStatus.OK] * len(frames)
    for name in ('energies', 'positions', 'steps'):
        np.testing.assert_array_equal(_values(found, name), _values(expected, name))


def test_an_end_that_is_later_than_the_checkpoint_is_where_to_go_on(run):
    """Else the steps since the checkpoint were made twice, and the limit reached at the same place again."""
    limit = {'max_steps': 3, 'force_tolerance': 1e-9}
    state = run(stopping=After(2), **limit).checkpoints.load()
    first = run(**limit)
    steps = _values(first, 'steps')
    unconverged = first.store.status == FrameStatus.NOT_CONVERGED
    assert unconverged.any() and steps[unconverged].tolist() == [3] * int(unconverged.sum())
    first.checkpoints.save(state)
    second = run(**limit)
    assert (_values(second, 'steps')[unconverged] > 3).all()


def test_a_checkpoint_that_is_later_than_an_end_is_where_to_go_on(run):
    limit = {'max_steps': 3, 'force_tolerance': 1e-9}
    run(**limit)
    stopped = run(stopping=After(2), **limit)
    assert (stopped.checkpoints.load()['steps'] > 3).all()
    assert any('under way' in note for note in run(**limit).notes)
