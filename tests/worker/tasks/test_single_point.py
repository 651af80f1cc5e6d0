"""Single point: a batch that fails is taken apart until the frame at fault stands alone."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.base import Backend, Evaluation
from aiida_mlpotential.worker.errors import FrameError, FrameStatus, OutOfMemory, WorkerError
from aiida_mlpotential.worker.tasks.single_point import SinglePoint


class Fake(Backend):
    """A backend of three members whose energy is the sum of x, and which fails as it is told."""

    name = 'fake'
    properties = frozenset({'energy', 'forces', 'forces_std', 'stress'})
    n_members = 3

    def __init__(self, fault=lambda frames: None):
        self.fault = fault
        self.sizes = []

    @classmethod
    def load(cls, spec, directory, settings):
        return cls()

    def evaluate(self, frames, request):
        self.sizes.append(frames.n_atoms)
        self.fault(frames)
        energies = np.bincount(frames.frame_of_atom, weights=frames.positions[:, 0], minlength=len(frames))
        members = energies + np.array([[-1.0], [0.0], [1.0]]) * frames.counts
        forces = np.tile([-1.0, 0.0, 0.0], (frames.n_atoms, 1))
        return Evaluation(energies, members, forces if 'forces' in request else None)


@pytest.fixture
def run(make_context, copper):
    """Return a function that runs the task over a fake backend."""

    def function(backend, number=12, **parameters):
        context = make_context(SinglePoint, backend, copper(number), **parameters)
        SinglePoint().run(context)
        return context

    return function


def _energies(context):
    frames = context.frames
    return np.bincount(frames.frame_of_atom, weights=frames.positions[:, 0], minlength=len(frames))


def test_statistics_are_stored_with_the_energies(run):
    context = run(Fake(), batch_atoms=9)
    assert context.store.names == ('energies', 'forces', 'member_energies', 'energy_std', 'qbc')
    assert (context.store.status == FrameStatus.OK).all()
    for index, count in enumerate(context.frames.counts):
        assert context.store.read('energies', index) == pytest.approx(_energies(context)[index])
        assert context.store.read('energy_std', index) == pytest.approx(count)
        assert context.store.read('qbc', index) == pytest.approx(np.sqrt(count))


def test_a_frame_that_raises_fails_alone(run):
    def fault(frames):
        if 'cu5' in frames.labels:
            raise ZeroDivisionError('by nothing')

    context = run(Fake(fault))
    assert np.flatnonzero(context.store.status == FrameStatus.BACKEND_FAILED).tolist() == [5]
    assert (context.store.status == FrameStatus.OK).sum() == 11
    assert context.messages == {5: 'ZeroDivisionError: by nothing'}


@pytest.mark.parametrize('error', [OutOfMemory('card'), MemoryError('host')])
def test_out_of_memory_halves_the_batch_and_later_ones(run, error):
    def fault(frames):
        if frames.n_atoms > 6:
            raise error

    backend = Fake(fault)
    context = run(backend, number=24, batch_atoms=30)
    assert (context.store.status == FrameStatus.OK).all()
    assert sum(size > 6 for size in backend.sizes) <= 4
    assert 'out of memory with batches of' in context.notes[0]


def test_a_frame_too_large_for_the_memory_fails_alone(run):
    def fault(frames):
        if max(frames.counts) > 2:
            raise OutOfMemory

    context = run(Fake(fault))
    large = context.frames.counts > 2
    assert (context.store.status[large] == FrameStatus.OUT_OF_MEMORY).all()
    assert (context.store.status[~large] == FrameStatus.OK).all()


def test_a_result_that_is_not_finite_is_not_stored(run):
    class Broken(Fake):
        def evaluate(self, frames, request):
            result = super().evaluate(frames, request)
            for index, label in enumerate(frames.labels):
                if label == 'cu3':
                    result.forces[frames.offsets[index]] = np.inf
            return result

    context = run(Broken())
    assert np.flatnonzero(context.store.status == FrameStatus.NON_FINITE_RESULT).tolist() == [3]
    assert np.isnan(context.store.read('energies', 3))
    assert np.isnan(context.store.read('forces', 3)).all()
    assert np.isnan(context.store.read('member_energies', 3)).all()
    assert np.isfinite(context.store.read('forces', 4)).all()


def test_an_error_of_the_whole_job_is_not_taken_for_one_of_a_frame(run):
    def fault(frames):
        raise WorkerError('ERROR_DEVICE_MISSING', 'gone')

    with pytest.raises(WorkerError, match='gone'):
        run(Fake(fault))


def test_a_frame_without_a_hessian_fails_alone(run):
    class Brittle(Fake):
        """A backend that cannot evaluate frame 5 once one of its atoms has moved."""

        def evaluate(self, frames, request):
            for index, label in enumerate(frames.labels):
                first = frames.positions[frames.offsets[index] : frames.offsets[index + 1]]
                if label == 'cu5' and self.known.setdefault('here', first.copy()).tolist() != first.tolist():
                    raise FrameError(FrameStatus.BACKEND_FAILED, 'it moved')
            return super().evaluate(frames, request)

    backend = Brittle()
    backend.properties |= {'hessian'}
    backend.known = {}
    context = run(backend, properties=['energy', 'hessian'])
    assert np.flatnonzero(context.store.status == FrameStatus.BACKEND_FAILED).tolist() == [5]
    assert context.messages == {5: 'it moved'}
    assert (context.store.status == FrameStatus.OK).sum() == 11
    for index in (4, 6):
        hessian = context.store.read('hessian', index)
        assert hessian.shape == ((3 * context.frames.counts[index]) ** 2,)
        assert np.abs(hessian).max() == pytest.approx(0, abs=1e-9)
    assert any(note.startswith('hessians: ') for note in context.notes)
