"""Hessians of many frames: one stream of full batches that can be gone on with, and fails for the guilty ones only."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.base import Backend, Evaluation
from aiida_mlpotential.worker.errors import FrameStatus, OutOfMemory, WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.hessian import (
    ANALYTIC,
    NO_MEMBERS,
    NOT_ANALYTIC,
    HessianStream,
    Rows,
    Source,
    hessians,
)
from aiida_mlpotential.worker.storage import hessian_offsets
from aiida_mlpotential.worker.tasks.evaluation import Evaluator


class Clusters(Backend):
    """Molecules of any size, harmonic: coordinates are joined by a matrix that depends on the number of atoms.

    It has three members, of which the second is the mean, and knows nothing of analytic derivatives.
    """

    name = 'clusters'
    properties = frozenset({'energy', 'forces', 'forces_std'})
    n_members = 3

    def __init__(self, fault=lambda frames: None):
        self.fault, self.sizes = fault, []

    @classmethod
    def load(cls, spec, directory, settings):
        raise AssertionError

    @staticmethod
    def matrix(atoms):
        random = np.random.default_rng(atoms).normal(size=(3 * atoms, 3 * atoms))
        return random + random.T

    def evaluate(self, frames, request):
        self.sizes.append(frames.n_atoms)
        self.fault(frames)
        positions = [frames.positions[i:j].ravel() for i, j in zip(frames.offsets, frames.offsets[1:], strict=False)]
        forces = np.concatenate([-(x @ self.matrix(len(x) // 3)) for x in positions]).reshape(-1, 3)
        members = np.stack([0.5 * forces, forces, 1.5 * forces]) if 'member_forces' in request else None
        return Evaluation(np.zeros(len(frames)), forces=forces, member_forces=members)


@pytest.fixture
def clusters(molecules):
    """Return ten molecules of one to twelve atoms."""
    return Frames.from_ase(molecules)


def _source(backend, budget=100, members=False):
    return Source(backend, Evaluator(backend, []), budget, members)


def _finished(stream, limit=None):
    """Return the matrices, those of the members, the errors and the number of batches, after so many batches."""
    matrices, members, errors = {}, {}, {}
    number = 0
    for number, finished in enumerate(stream.run(), 1):
        matrices.update(finished.matrices)
        members.update(finished.members)
        errors.update(finished.errors)
        if number == limit:
            break
    return matrices, members, errors, number


def test_small_molecules_share_batches_and_large_ones_fill_many(clusters):
    backend = Clusters()
    flat, errors, notes = hessians(_source(backend, budget=100), clusters)
    assert not errors and 'double precision' in notes[0] and len(notes) == 1
    expected = [Clusters.matrix(count).ravel() for count in clusters.counts]
    np.testing.assert_allclose(flat, np.concatenate(expected), rtol=0, atol=1e-7)
    displaced = np.sum(6 * clusters.counts**2)
    probes, batches = backend.sizes[:3], backend.sizes[3:]
    assert probes == [clusters.n_atoms] * 3
    assert max(batches) <= 100 and sum(batches) == displaced
    assert len(batches) <= displaced / (100 - 2 * clusters.counts.max()) + 1


def test_members_have_their_own_matrices(clusters):
    matrices, members, errors, _ = _finished(HessianStream(_source(Clusters(), members=True), clusters))
    assert not errors and sorted(matrices) == sorted(members) == list(range(10))
    for index, count in enumerate(clusters.counts):
        expected = Clusters.matrix(count) * np.array([0.5, 1, 1.5])[:, None, None]
        np.testing.assert_allclose(matrices[index], expected[1], rtol=0, atol=1e-7)
        np.testing.assert_allclose(members[index], expected, rtol=0, atol=1e-7)


def test_a_backend_without_forces_of_members_says_so(clusters):
    class Silent(Clusters):
        def evaluate(self, frames, request):
            return super().evaluate(frames, request - {'member_forces'})

    stream = HessianStream(_source(Silent(), members=True), clusters)
    matrices, members, _, _ = _finished(stream)
    assert len(matrices) == 10 and not members
    assert NO_MEMBERS in stream.notes


@pytest.mark.parametrize('members', [False, True])
@pytest.mark.parametrize('precision', ['single', 'double'])
def test_a_stream_that_ends_after_any_batch_goes_on_from_its_rows(clusters, members, precision):
    """As often as it is killed: no row is made twice, and the matrices are the same to the last bit."""
    backend = Clusters()
    backend.precision = precision
    whole, whole_members, _, _ = _finished(HessianStream(_source(backend, 150, members), clusters))
    rows = sum(backend.sizes)
    backend.sizes.clear()
    left, begun, found, found_members = np.arange(10), None, {}, {}
    for _ in range(1000):
        frames = clusters.select(left)
        stream = HessianStream(_source(backend, 150, members), frames, begun)
        parts = _finished(stream, limit=2)  # the probe, which is made again, and one batch
        for target, part in ((found, parts[0]), (found_members, parts[1])):
            target.update({int(left[local]): value for local, value in part.items()})
        done = np.array(sorted(parts[0]), dtype=np.int64)
        saved = None if stream.begun is None else stream.begun.to_arrays(int(left[stream.begun.frame]))
        left = np.delete(left, done)
        if not len(left):
            break
        begun = saved and Rows.from_arrays(int(np.flatnonzero(left == saved['frame'])[0]), saved)
    assert sorted(found) == list(range(10))
    for index in range(10):
        assert np.array_equal(found[index], whole[index])
        assert not members or np.array_equal(found_members[index], whole_members[index])
    if precision == 'single':
        assert sum(backend.sizes) == rows


def test_rows_of_any_frame_of_the_stream_are_gone_on_with(clusters):
    """A later run may have other frames before the one that was begun."""
    stream = HessianStream(_source(Clusters(), 24, members=True), clusters.select([3]))
    _finished(stream, limit=8)
    begun = Rows.from_arrays(7, stream.begun.to_arrays(99))
    backend = Clusters()
    order = [0, 1, 2, 4, 5, 6, 7, 3, 8, 9]
    matrices, _, errors, _ = _finished(HessianStream(_source(backend, 24, members=True), clusters.select(order), begun))
    assert not errors and begun.done == 36
    for local, index in enumerate(order):
        np.testing.assert_allclose(matrices[local], Clusters.matrix(clusters.counts[index]), rtol=0, atol=1e-7)
    rows = 3 * clusters.counts[order]
    rows[7] -= 7
    probes = 3 * (clusters.n_atoms - 12)
    assert sum(backend.sizes) == probes + np.sum(2 * rows * clusters.counts[order])


def test_what_is_under_way_is_one_frame_at_most(clusters):
    """A set of many molecules streams: matrices come out batch by batch, and only the rows of one frame are kept."""
    stream = HessianStream(_source(Clusters(), 100), clusters.select(np.tile(np.arange(10), 5)))
    seen = [len(finished.matrices) for finished in stream.run() if stream.begun is None or stream.begun.done]
    assert sum(seen) == 50 and max(seen) < 20
    assert stream.begun is None


def test_a_frame_that_fails_when_it_is_displaced_costs_no_other(clusters):
    """The benzene at hand cannot be evaluated once its third atom goes up."""
    start = clusters.positions[clusters.offsets[3] + 2, 2]

    def fault(frames):
        large = np.flatnonzero(frames.counts == 12)
        if np.any(frames.positions[frames.offsets[large] + 2, 2] > start + 1e-6):
            raise RuntimeError('no')

    matrices, _, errors, _ = _finished(HessianStream(_source(Clusters(fault)), clusters))
    assert {index: (error.status, error.message) for index, error in errors.items()} == {
        3: (FrameStatus.BACKEND_FAILED, 'RuntimeError: no')
    }
    assert sorted(matrices) == [index for index in range(10) if index != 3]
    np.testing.assert_allclose(matrices[7], Clusters.matrix(11), rtol=0, atol=1e-7)


def test_a_frame_that_fails_in_one_batch_is_left_out_of_the_next_ones(clusters):
    """One row of benzene is two copies, which fail together and then one by one."""
    benzene, attempts = clusters.select([3]).positions, []

    def fault(frames):
        if frames.counts[0] == 12 and np.abs(frames.positions[:12] - benzene).max() > 1e-6:
            attempts.append(len(frames))
            raise RuntimeError('no')

    _, errors, _ = hessians(_source(Clusters(fault), budget=12), clusters.select([0, 3, 7]))
    assert list(errors) == [1] and attempts == [2, 1, 1]


def test_a_frame_that_has_failed_is_not_displaced_any_further(clusters):
    """It fails when its float type is looked for: three batches of ten, halved four times to find it."""
    attempts = []

    def fault(frames):
        if np.any(frames.counts == 12):
            attempts.append(len(frames))
            raise RuntimeError('no')

    flat, errors, _ = hessians(_source(Clusters(fault)), clusters)
    assert list(errors) == [3]
    edges = hessian_offsets(clusters.offsets)
    missing = np.isnan(flat)
    assert missing[edges[3] : edges[4]].all() and missing.sum() == 36**2
    assert len(attempts) <= 3 * 5


def test_displaced_frames_that_do_not_fit_are_halved(clusters):
    def fault(frames):
        if frames.n_atoms > 60:
            raise OutOfMemory('full')

    whole, _, _ = hessians(_source(Clusters()), clusters)
    backend = Clusters(fault)
    found, errors, _ = hessians(_source(backend, budget=100), clusters)
    assert not errors and np.array_equal(found, whole)


def test_an_error_of_the_job_is_not_taken_for_one_of_a_frame(clusters):
    def fault(frames):
        raise WorkerError('ERROR_DEVICE_MISSING', 'gone')

    with pytest.raises(WorkerError, match='gone'):
        hessians(_source(Clusters(fault)), clusters)


class Analytic(Clusters):
    """It has second derivatives of itself; that of a molecule may be missing, or the batch may fail."""

    def __init__(self, missing=(), fault=lambda frames: None):
        super().__init__()
        self.missing, self.problem, self.asked = missing, fault, []

    def hessians(self, frames):
        self.asked.append(len(frames))
        self.problem(frames)
        matrices = [np.where(n in self.missing, np.nan, self.matrix(n)).ravel() for n in frames.counts]
        return np.concatenate(matrices)

    def member_hessians(self, frames):
        return np.array([[0.5], [1.0], [1.5]]) * self.hessians(frames)


@pytest.mark.parametrize('members', [False, True])
def test_analytic_second_derivatives_come_first(clusters, members):
    backend = Analytic()
    stream = HessianStream(_source(backend, members=members), clusters)
    matrices, of_members, errors, _ = _finished(stream)
    assert not errors and backend.asked == [10] and not backend.sizes
    assert stream.notes == [ANALYTIC]
    for index, count in enumerate(clusters.counts):
        np.testing.assert_allclose(matrices[index], Clusters.matrix(count), rtol=1e-12)
        if members:
            expected = Clusters.matrix(count) * np.array([0.5, 1, 1.5])[:, None, None]
            np.testing.assert_allclose(of_members[index], expected, rtol=1e-12)
    assert bool(of_members) == members


def test_what_the_backend_has_not_comes_from_differences(clusters):
    backend = Analytic(missing=(11,))
    stream = HessianStream(_source(backend, budget=1000), clusters)
    matrices, _, errors, _ = _finished(stream)
    assert not errors and sorted(matrices) == list(range(10))
    np.testing.assert_allclose(matrices[7], Clusters.matrix(11), rtol=0, atol=1e-7)
    assert set(backend.sizes[:3]) == {11} and sum(backend.sizes[3:]) == 6 * 11**2
    assert stream.notes[0] == ANALYTIC and 'differences' in stream.notes[1]


@pytest.mark.parametrize('error', [OutOfMemory('full'), RuntimeError('no')])
def test_analytic_derivatives_that_fail_are_asked_for_by_halves_then_left(clusters, error):
    def fault(frames):
        if np.any(frames.counts == 12):
            raise error

    stream = HessianStream(_source(Analytic(fault=fault)), clusters)
    matrices, _, errors, _ = _finished(stream)
    assert not errors and sorted(matrices) == list(range(10))
    np.testing.assert_allclose(matrices[3], Clusters.matrix(12), rtol=0, atol=1e-7)
    assert [note for note in stream.notes if NOT_ANALYTIC in note and type(error).__name__ in note]


def test_an_analytic_hessian_does_not_throw_away_rows_of_differences(clusters):
    """A checkpoint may be of a run whose backend could not."""
    slow = HessianStream(_source(Clusters(), 60), clusters)
    _finished(slow, limit=4)
    begun, backend = slow.begun, Analytic()
    left = 3 * clusters.counts[begun.frame] - begun.done
    matrices, _, _, _ = _finished(HessianStream(_source(backend, 60), clusters, begun))
    assert left > 0 and sum(backend.sizes) == 2 * left * clusters.counts[begun.frame]
    assert backend.asked == [9] and sorted(matrices) == list(range(10))


def test_an_error_of_the_job_in_analytic_derivatives_ends_the_job(clusters):
    def fault(frames):
        raise WorkerError('ERROR_DEVICE_MISSING', 'gone')

    with pytest.raises(WorkerError, match='gone'):
        hessians(_source(Analytic(fault=fault)), clusters)


def test_no_frames_have_no_hessians(clusters):
    flat, errors, notes = hessians(_source(Clusters()), clusters.select([]))
    assert flat.shape == (0,) and not errors and not notes
