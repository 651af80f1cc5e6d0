"""Hessians: exact where the answer is known, many frames in one stream of batches, resumable, and for crystals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_mlpotential.worker.backends import load_backend
from aiida_mlpotential.worker.backends.base import Backend, Evaluation, Settings
from aiida_mlpotential.worker.errors import FrameError, FrameStatus, OutOfMemory, WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.hessian import (
    ANALYTIC,
    NO_MEMBERS,
    NOT_ANALYTIC,
    HessianStream,
    Rows,
    Source,
    hessian,
    hessians,
)
from aiida_mlpotential.worker.registry import PRETRAINED
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.storage import hessian_offsets
from aiida_mlpotential.worker.tasks.evaluation import Evaluator

EMT = ModelSpec('EMT', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'})


class Springs(Backend):
    """Every pair of atoms is joined by an anharmonic spring; the second derivatives are known."""

    name = 'springs'
    properties = frozenset({'energy', 'forces'})

    def __init__(self, matrix, precision='double'):
        self.matrix = matrix
        self.precision = precision
        self.sizes = []

    @classmethod
    def load(cls, spec, directory, settings):
        raise AssertionError

    def evaluate(self, frames, request):
        self.sizes.append(frames.n_atoms)
        x = frames.positions.reshape(len(frames), -1)
        forces = -(x @ self.matrix) - 4 * x**3
        return Evaluation(np.zeros(len(frames)), forces=forces.reshape(-1, 3))


@pytest.fixture
def springs():
    random = np.random.default_rng(3).normal(size=(9, 9))
    return Springs(random + random.T)


@pytest.fixture
def water(molecules):
    return Frames.from_ase([molecules[1]])


def test_the_second_derivatives_are_those_of_the_formula(springs, water):
    expected = springs.matrix + np.diag(12 * water.positions.ravel() ** 2)
    found = hessian(springs, water, budget=1000).reshape(9, 9)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.array_equal(found, found.T)


def test_batches_keep_to_the_budget_and_change_nothing(springs, water):
    whole = hessian(springs, water, budget=10_000)
    springs.sizes.clear()
    parts = hessian(springs, water, budget=12)  # two displaced coordinates of three atoms, both ways
    assert springs.sizes == [3, 3, 3, 12, 12, 12, 12, 6]  # the first three tell the float type
    assert np.array_equal(whole, parts)
    assert np.array_equal(hessian(springs, water, budget=1), parts)


def test_single_precision_takes_a_longer_step_and_a_difference_of_fourth_order(springs, water):
    """With two points the cubic term of the forces would add 4 (1e-2)^2."""
    springs.precision = 'single'
    wide = hessian(springs, water, budget=1000).reshape(9, 9)
    assert springs.sizes == [3 * 2 * 2 * 9]
    expected = springs.matrix + np.diag(12 * water.positions.ravel() ** 2)
    np.testing.assert_allclose(wide, expected, rtol=0, atol=1e-9)
    assert np.array_equal(hessian(springs, water, budget=1), np.ravel(wide))


def test_forces_of_single_precision_are_noticed(springs, water, monkeypatch):
    """A calculator of ASE may compute in single precision and not say so."""
    exact, steps = hessian(springs, water, budget=1000), []
    evaluate = springs.evaluate

    def rounded(frames, request):
        forces = evaluate(frames, request).forces.astype(np.float32).astype(np.float64)
        steps.append(np.abs(frames.positions - np.tile(water.positions, (len(frames), 1))).max())
        return Evaluation(np.zeros(len(frames)), forces=forces)

    monkeypatch.setattr(springs, 'evaluate', rounded)
    np.testing.assert_allclose(hessian(springs, water, budget=1000), exact, rtol=0, atol=1e-3)
    assert steps[-1] == pytest.approx(1e-2)


@pytest.mark.parametrize('factor', [1.0, 0.043])
def test_forces_are_known_for_single_precision_after_a_conversion_or_a_mean(springs, water, monkeypatch, factor):
    """They are not float32 numbers any more; a step of double precision would give noise of 1 eV/angstrom^2."""
    exact, steps = hessian(springs, water, budget=1000) * factor, []
    evaluate = springs.evaluate

    def converted(frames, request):
        rough = dataclasses.replace(frames, positions=frames.positions.astype(np.float32).astype(np.float64))
        first = evaluate(rough, request).forces.astype(np.float32).astype(np.float64)
        second = (1.1 * evaluate(rough, request).forces).astype(np.float32).astype(np.float64)
        steps.append(np.abs(frames.positions - np.tile(water.positions, (len(frames), 1))).max())
        return Evaluation(np.zeros(len(frames)), forces=factor * (first + second) / 2.1)

    monkeypatch.setattr(springs, 'evaluate', converted)
    np.testing.assert_allclose(hessian(springs, water, budget=1000), exact, rtol=0, atol=1e-3)
    assert steps[-1] == pytest.approx(1e-2)


def test_atoms_that_feel_nothing_have_no_second_derivatives(springs, water):
    springs.matrix = np.zeros((9, 9))
    still = dataclasses.replace(water, positions=np.zeros_like(water.positions))
    assert np.abs(hessian(springs, still, budget=1000)).max() < 1e-9


def test_a_backend_without_forces_fails_the_frame(springs, water, monkeypatch):
    monkeypatch.setattr(springs, 'evaluate', lambda frames, request: Evaluation(np.zeros(len(frames))))
    with pytest.raises(FrameError, match='no forces'):
        hessian(springs, water, budget=100)


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


def test_a_crystal_does_not_care_about_translation():
    """The acoustic sum rule: all images of an atom move with it."""
    atoms = bulk('Cu', cubic=True)
    atoms.rattle(0.03, seed=1)
    frame = Frames.from_ase([atoms])
    matrix = hessian(load_backend(EMT, Path(), Settings()), frame, budget=1000).reshape(4, 3, 4, 3)
    assert np.abs(matrix).max() > 1
    np.testing.assert_allclose(matrix.sum(axis=2), 0, atol=1e-5)


def test_a_job_stores_the_matrices_one_after_the_other(job):
    info = job.run(properties=['energy', 'hessian'])
    assert info['state'] == 'finished', info['error']
    assert info['units']['hessian'] == 'eV/angstrom^2'
    sizes = (3 * job.frames.counts) ** 2
    found = job.array('hessian')
    assert found.shape == (sizes.sum(),)
    last = hessian(load_backend(EMT, Path(), Settings()), job.frames.select([6]), budget=100)
    np.testing.assert_allclose(found[-sizes[-1] :], last, rtol=0, atol=1e-12)


def test_a_frame_that_fails_has_no_matrix(job):
    positions = job.frames.positions.copy()
    positions[job.frames.offsets[1] : job.frames.offsets[2]] = np.nan
    job.frames = dataclasses.replace(job.frames, positions=positions)
    job.run(properties=['energy', 'hessian'])
    starts = np.concatenate([[0], np.cumsum((3 * job.frames.counts) ** 2)])
    missing = np.isnan(job.array('hessian'))
    assert missing[starts[1] : starts[2]].all()
    assert not missing[: starts[1]].any()
    assert not missing[starts[2] :].any()


@pytest.mark.parametrize('name', ['ANI-1x', 'ANI-1ccx', 'ANI-2x'])
def test_the_published_models_have_the_reference_hessian(shared_data, tmp_path, name):
    """Against torch's automatic second derivatives of water, which jump with the sign of an argument of CELU."""
    pytest.importorskip('torch')
    from aiida_mlpotential.worker.backends.torchani.convert import read_state_dict

    model = PRETRAINED[name]
    folder = shared_data / 'models' / 'torchani'
    reference = json.loads((folder / 'reference.json').read_text())[model.state_dict.removesuffix('_state_dict.pt')]
    (tmp_path / 'model').mkdir()
    read_state_dict(folder / model.state_dict, model).write(tmp_path / 'model' / model.file)
    spec = ModelSpec(name, 'torchani', model.sha256, {f'model/{model.file}': ''}, energy_unit='Hartree')
    backend = load_backend(spec, tmp_path, Settings(device='cpu', precision='double'))
    water = next(item for item in reference['structures'] if item['name'] == 'H2O')
    frame = Frames.from_ase([Atoms(water['numbers'], water['positions'])])
    found = hessian(backend, frame, budget=4096).reshape(9, 9)
    np.testing.assert_allclose(found, reference['hessian_H2O_ev_per_ang2'], rtol=0, atol=5e-6)
