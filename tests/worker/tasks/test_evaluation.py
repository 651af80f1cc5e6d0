"""Evaluation of batches: the frames at fault are found, and cost no other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.base import Backend, Evaluation
from aiida_mlpotential.worker.errors import FrameError, FrameStatus, OutOfMemory, WorkerError
from aiida_mlpotential.worker.storage import hessian_offsets
from aiida_mlpotential.worker.tasks.evaluation import Evaluator, arrays_of

REQUEST = frozenset({'forces', 'stress', 'atomic_energies', 'member_forces', 'hessian'})


class Fake(Backend):
    """Two members; every number of a frame is the x of its first atom, so that rows cannot be mixed up unseen."""

    name = 'fake'
    properties = REQUEST
    n_members = 2

    def __init__(self, fault=lambda frames: None):
        self.fault = fault
        self.sizes = []

    @classmethod
    def load(cls, spec, directory, settings):
        raise AssertionError

    def evaluate(self, frames, request):
        self.sizes.append(len(frames))
        self.fault(frames)
        x = frames.positions[frames.offsets[:-1], 0]
        atoms = x[frames.frame_of_atom]
        forces = np.repeat(atoms[:, None], 3, axis=1)
        return Evaluation(
            x,
            np.stack([x, x]),
            forces,
            np.repeat(x, 9).reshape(-1, 3, 3),
            atomic_energies=atoms,
            member_forces=np.stack([forces, forces]),
            hessian=np.repeat(x, np.diff(hessian_offsets(frames.offsets))),
        )


@pytest.fixture
def frames(copper):
    """Return frames of different sizes, whose first atom is at x = 10 times the number of the frame."""
    frames = copper(6)
    positions = frames.positions.copy()
    positions[frames.offsets[:-1], 0] = 10.0 * np.arange(6)
    return dataclasses.replace(frames, positions=positions)


def _fails(*numbers):
    """Return a fault of the frames with these numbers."""

    def fault(frames):
        bad = np.isin(frames.positions[frames.offsets[:-1], 0] / 10, numbers)
        if bad.any():
            raise RuntimeError('no')

    return fault


def test_a_sound_batch_is_one_call(frames):
    backend = Fake()
    evaluation, errors = Evaluator(backend, []).evaluate(frames, REQUEST)
    assert backend.sizes == [6] and not errors
    np.testing.assert_array_equal(evaluation.energies, 10.0 * np.arange(6))


def test_frames_at_fault_are_found_and_all_others_have_their_own_numbers(frames):
    evaluation, errors = Evaluator(Fake(_fails(1, 4)), []).evaluate(frames, REQUEST)
    assert {index: error.status for index, error in errors.items()} == {
        1: FrameStatus.BACKEND_FAILED,
        4: FrameStatus.BACKEND_FAILED,
    }
    expected, _ = Evaluator(Fake(), []).evaluate(frames, REQUEST)
    bad = np.isin(np.arange(6), [1, 4])
    rows = {
        'energies': (0, bad),
        'member_energies': (1, bad),
        'forces': (0, bad[frames.frame_of_atom]),
        'stress': (0, bad),
        'atomic_energies': (0, bad[frames.frame_of_atom]),
        'member_forces': (1, bad[frames.frame_of_atom]),
        'hessian': (0, np.repeat(bad, np.diff(hessian_offsets(frames.offsets)))),
    }
    for name, (axis, wrong) in rows.items():
        found = getattr(evaluation, name)
        assert np.isnan(np.compress(wrong, found, axis=axis)).all(), name
        np.testing.assert_array_equal(
            np.compress(~wrong, found, axis=axis), np.compress(~wrong, getattr(expected, name), axis=axis)
        )


def test_what_is_not_finite_is_an_error(frames):
    positions = frames.positions.copy()
    positions[frames.offsets[2], 0] = np.nan
    _, errors = Evaluator(Fake(), []).evaluate(dataclasses.replace(frames, positions=positions), frozenset({'forces'}))
    assert {index: error.status for index, error in errors.items()} == {2: FrameStatus.NON_FINITE_RESULT}


def test_all_may_fail(frames):
    evaluation, errors = Evaluator(Fake(_fails(*range(6))), []).evaluate(frames, frozenset({'forces'}))
    assert len(errors) == 6
    assert np.isnan(evaluation.energies).all() and np.isnan(evaluation.forces).all()


def test_a_batch_that_does_not_fit_is_halved_and_later_ones_at_once(frames):
    def fault(frames):
        if len(frames) > 2:
            raise OutOfMemory('full')

    backend, notes = Fake(fault), []
    evaluator = Evaluator(backend, notes)
    _, errors = evaluator.evaluate(frames, frozenset())
    assert not errors and len(notes) == 1 and 'smaller' in notes[0]
    tried = len(backend.sizes)
    evaluator.evaluate(frames, frozenset())
    assert 6 not in backend.sizes[tried:]
    assert len(notes) == 1


def test_an_error_of_the_job_ends_the_job(frames):
    def fault(frames):
        raise WorkerError('ERROR_DEVICE_MISSING', 'gone')

    with pytest.raises(WorkerError, match='gone'):
        Evaluator(Fake(fault), []).evaluate(frames, frozenset())


def test_a_frame_that_the_backend_refuses_keeps_its_reason(frames):
    def fault(frames):
        raise FrameError(FrameStatus.ATOM_ORDER, 'other atoms')

    parts = list(Evaluator(Fake(fault), []).parts(frames, frozenset()))
    assert sorted(int(part[0]) for part, _ in parts) == list(range(6))
    assert {outcome.status for _, outcome in parts} == {FrameStatus.ATOM_ORDER}


def test_forces_of_members_are_not_stored(frames):
    evaluation, _ = Evaluator(Fake(), []).evaluate(frames, REQUEST)
    arrays = arrays_of(evaluation, frames)
    assert 'member_forces' not in arrays
    assert {'energies', 'forces', 'energy_std', 'qbc'} <= set(arrays)
