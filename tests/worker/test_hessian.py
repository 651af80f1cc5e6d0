"""Hessians: exact where the answer is known, in either precision, for crystals, and as a job stores them."""

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
from aiida_mlpotential.worker.errors import FrameError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.hessian import Source, hessians
from aiida_mlpotential.worker.registry import PRETRAINED
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.tasks.evaluation import Evaluator

EMT = ModelSpec('EMT', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'})


def hessian(backend, frame, budget):
    """Return the Hessian of a single frame, or raise why it has none."""
    flat, errors, _ = hessians(Source(backend, Evaluator(backend, []), budget), frame)
    if errors:
        raise errors[0]
    return flat


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


def _source(backend, budget=100, members=False):
    return Source(backend, Evaluator(backend, []), budget, members)


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


def test_forces_of_single_precision_that_do_not_change_over_the_probe_are_noticed(springs, water, monkeypatch):
    """Far from the origin a calculator that rounds positions does not see it."""
    water = dataclasses.replace(water, positions=water.positions + 100.0)
    evaluate, steps = springs.evaluate, []

    def rounded(frames, request):
        steps.append(np.abs(frames.positions - np.tile(water.positions, (len(frames), 1))).max())
        rough = (frames.positions.astype(np.float32) - np.float32(100)).astype(np.float64)
        return Evaluation(np.zeros(len(frames)), forces=0.043 * evaluate(_moved(frames, rough), request).forces)

    monkeypatch.setattr(springs, 'evaluate', rounded)
    hessian(springs, water, budget=1000)
    assert steps[-1] == pytest.approx(1e-2)


def _moved(frames, positions):
    return dataclasses.replace(frames, positions=positions)


def test_forces_of_single_precision_that_are_straight_by_chance_are_noticed():
    """Of two atoms on a line one number is all there is to see, and its rounding may be as straight as the truth."""

    class Line(Springs):
        def evaluate(self, frames, request):
            self.sizes.append(frames.n_atoms)
            self.reach = max(self.reach, np.abs(frames.positions[:, 1]).max())
            lengths = frames.positions[1::2, 0] - frames.positions[::2, 0]
            forces = np.zeros((len(frames), 2, 3))
            forces[:, 0, 0] = (7.0 * lengths).astype(np.float32)
            forces[:, 1] = -forces[:, 0]
            return Evaluation(np.zeros(len(frames)), forces=forces.reshape(-1, 3))

    frames = Frames.from_ase([Atoms('H2', [[0, 0, 0], [0.5 + 0.003 * index, 0, 0]]) for index in range(300)])
    backend = Line(None)
    backend.reach = 0.0
    hessians(_source(backend, 10_000), frames)
    assert sum(backend.sizes) == 2 * 300 * (3 + 4 * 6)  # two steps either way, of each


def test_atoms_that_feel_nothing_have_no_second_derivatives(springs, water):
    springs.matrix = np.zeros((9, 9))
    still = dataclasses.replace(water, positions=np.zeros_like(water.positions))
    assert np.abs(hessian(springs, still, budget=1000)).max() < 1e-9


def test_atoms_that_feel_nothing_are_not_taken_for_single_precision(springs, water, monkeypatch):
    monkeypatch.setattr(
        springs, 'evaluate', lambda frames, request: Evaluation(np.zeros(1), forces=0 * frames.positions)
    )
    flat, errors, notes = hessians(_source(springs, 1000), water)
    assert np.array_equal(flat, np.zeros(81)) and not errors
    assert len(notes) == 1 and 'double precision' in notes[0]


def test_a_backend_without_forces_fails_the_frame(springs, water, monkeypatch):
    monkeypatch.setattr(springs, 'evaluate', lambda frames, request: Evaluation(np.zeros(len(frames))))
    with pytest.raises(FrameError, match='no forces'):
        hessian(springs, water, budget=100)


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
