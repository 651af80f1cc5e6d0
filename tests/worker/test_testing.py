"""check_backend: it must catch every promise that a backend breaks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.ase import AseBackend
from aiida_mlpotential.worker.backends.base import Evaluation, Settings
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.testing import Tolerances, _check_hessians, check_backend

SPEC = ModelSpec('EMT', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'})
LOOSE = Tolerances(energy=1e-7, forces=1e-6)


def _wrong_shape(frames, result):
    return {'energies': result.energies[:, None]}


def _no_forces(frames, result):
    return {'forces': None}


def _single_type(frames, result):
    return {'energies': result.energies.astype(np.float32)}


def _wrong_force(frames, result):
    return {} if result.forces is None else {'forces': 1.01 * result.forces}


def _wrong_stress(frames, result):
    return {} if result.stress is None else {'stress': -result.stress}


def _batch_dependent(frames, result):
    return {'energies': result.energies + 1e-5 * len(frames)}


def _wrong_sum(frames, result):
    return {} if result.atomic_energies is None else {'atomic_energies': result.atomic_energies + 1e-3}


def _turned(frames, result):
    return {'energies': result.energies + 1e-4 * frames.positions[frames.offsets[:-1], 0]}


def _twisted_stress(frames, result):
    return {} if result.stress is None else {'stress': result.stress + np.triu(np.full((3, 3), 1e-3), 1)}


def _stress_of_signed_volume(frames, result):
    signs = np.sign(np.linalg.det(frames.cells))
    return {} if result.stress is None else {'stress': result.stress * signs[:, None, None]}


def _in_input_order(frames, result):
    """Atomic energies that go by the row rather than by the atom."""
    if result.atomic_energies is None:
        return {}
    ramp = np.concatenate([np.linspace(-0.1, 0.1, count) if count > 1 else [0.0] for count in frames.counts])
    return {'atomic_energies': result.atomic_energies + ramp}


def _leaks_into_atomic_energies(frames, result):
    """Atomic energies that still sum to the energy, but depend on what else is in the batch."""
    return _in_input_order(frames, result) if len(frames) > 1 else {}


def _forces_of_one_frame_are_missing(frames, result):
    return {'forces': None} if len(frames) == 1 else {}


def _depends_on_the_place(frames, result):
    """Forces that are right in the cell only."""
    if result.forces is None:
        return {}
    fractional = np.einsum('ax,axy->ay', frames.positions, np.linalg.inv(frames.cells)[frames.frame_of_atom])
    outside = (np.abs(fractional - 0.5) > 0.7).any(axis=1)
    return {'forces': result.forces + 1e-3 * outside[:, None]}


def _depends_on_the_request(frames, result):
    return {'energies': result.energies + (1e-3 if result.stress is not None else 0.0)}


@pytest.mark.parametrize(
    ('fault', 'text'),
    [
        (_wrong_shape, 'shape'),
        (_no_forces, 'forces was asked for'),
        (_single_type, 'float32'),
        (_wrong_force, 'forces against central differences'),
        (_wrong_stress, 'stress against central differences'),
        (_batch_dependent, 'alone'),
        (_wrong_sum, 'sum of the atomic energies'),
        (_turned, 'order|rotated|unwrapped'),
        (_twisted_stress, 'stress of the rotated|symmetry'),
        (_stress_of_signed_volume, 'stress of the rotated'),
        (_leaks_into_atomic_energies, 'atomic_energies of frame [01] alone'),
        (_in_input_order, 'atomic_energies with the atoms in another order'),
        (_forces_of_one_frame_are_missing, 'forces was asked for'),
        (_depends_on_the_place, 'forces with unwrapped atoms'),
        (_depends_on_the_request, 'when nothing else is asked for'),
    ],
)
def test_a_broken_promise_is_found(copper, fault, text):
    class Broken(AseBackend):
        def evaluate(self, frames, request):
            result = super().evaluate(frames, request)
            return dataclasses.replace(result, **fault(frames, result))

    with pytest.raises(AssertionError, match=text):
        check_backend(Broken.load(SPEC, Path(), Settings()), copper(3), LOOSE)


def test_members_must_average_to_the_energy(copper):
    class Members(AseBackend):
        n_members = 2

        def evaluate(self, frames, request):
            result = super().evaluate(frames, request)
            return dataclasses.replace(result, member_energies=np.stack([result.energies, result.energies + 1]))

    with pytest.raises(AssertionError, match='mean of the members'):
        check_backend(Members.load(SPEC, Path(), Settings()), copper(3), LOOSE)


def test_a_stress_of_a_molecule_is_found(copper):
    frames = copper(3)
    frames = dataclasses.replace(frames, pbc=frames.pbc & (np.arange(3) < 2)[:, None])

    class Broken(AseBackend):
        def evaluate(self, frames, request):
            result = super().evaluate(frames, request)
            return dataclasses.replace(result, stress=None if result.stress is None else np.nan_to_num(result.stress))

    check_backend(AseBackend.load(SPEC, Path(), Settings()), frames, LOOSE)
    with pytest.raises(AssertionError, match='NaN'):
        check_backend(Broken.load(SPEC, Path(), Settings()), frames, LOOSE)


class Pair(AseBackend):
    """An ensemble of two members: EMT, and EMT with everything larger by a tenth."""

    n_members = 2
    ddof = 1
    tilt = 0.0  # of the forces of one member against the other: the mean stays, the spread does not
    offset = 0.0

    def evaluate(self, frames, request):
        own = request - {'forces_std', 'member_forces'} | {'forces'}
        result = super().evaluate(frames, own)
        members = np.stack([result.energies, 1.1 * result.energies])
        samples = np.stack([result.forces, 1.1 * result.forces])
        return dataclasses.replace(
            result,
            energies=result.energies * 1.05,
            member_energies=members,
            **{
                name: None if getattr(result, name) is None or name not in request else getattr(result, name) * 1.05
                for name in ('forces', 'stress', 'atomic_energies')
            },
            forces_std=np.std(samples, axis=0, ddof=self.ddof) if 'forces_std' in request else None,
            member_forces=self.told(samples) if 'member_forces' in request else None,
        )

    def told(self, samples):
        return samples + self.offset + self.tilt * np.array([-1, 1])[:, None, None]


@pytest.fixture
def pair():
    backend = Pair.load(SPEC, Path(), Settings())
    backend.properties |= {'forces_std'}
    return backend


def test_a_sound_ensemble_passes(pair, copper):
    check_backend(pair, copper(3), LOOSE)


def test_a_spread_with_another_divisor_is_found(pair, copper):
    pair.ddof = 0
    with pytest.raises(AssertionError, match='forces_std against central differences'):
        check_backend(pair, copper(3), LOOSE)


@pytest.mark.parametrize(
    ('fault', 'text'),
    [
        ({'offset': 1e-3}, 'the mean of member_forces|member_forces of the rotated'),
        ({'tilt': 1e-3}, 'the spread of member_forces|member_forces of the rotated'),
    ],
)
def test_forces_of_other_members_are_found(pair, copper, fault, text):
    vars(pair).update(fault)
    with pytest.raises(AssertionError, match=text):
        check_backend(pair, copper(3), LOOSE)


@pytest.mark.parametrize(
    ('scales', 'text'), [((1.01, 1.01), 'the mean of member_forces'), ((1.0, 1.0), 'the spread of member_forces')]
)
def test_member_forces_that_turn_rightly_and_are_wrong_are_found(pair, copper, monkeypatch, scales, text):
    def wrong(self, samples):
        mean = samples.mean(axis=0)
        return np.stack([scales[0] * mean, scales[1] * mean])

    monkeypatch.setattr(Pair, 'told', wrong)
    with pytest.raises(AssertionError, match=text):
        check_backend(pair, copper(3), LOOSE)


def test_missing_member_forces_are_found(pair, copper, monkeypatch):
    monkeypatch.setattr(Pair, 'told', lambda self, samples: None)
    with pytest.raises(AssertionError, match='member_forces was asked for and is missing'):
        check_backend(pair, copper(3), LOOSE)


class Springs(AseBackend):
    """Springs to the origin that get stiffer, whose Hessians are known: two members of the same constant."""

    properties = frozenset({'energy', 'forces'})
    n_members = 2
    factors = (0.5, 1.5)

    def evaluate(self, frames, request):
        energies = np.zeros(len(frames))
        np.add.at(energies, frames.frame_of_atom, (frames.positions**4).sum(axis=1))
        return Evaluation(energies, np.stack([energies, energies]), forces=-4 * frames.positions**3)

    def hessians(self, frames):
        return np.concatenate([np.diag(12 * atoms.positions.ravel() ** 2).ravel() for atoms in frames])

    def member_hessians(self, frames):
        flat = self.hessians(frames)
        return None if flat is None else np.stack([factor * flat for factor in self.factors])


def _check_springs(frames):
    _check_hessians(Springs.load(SPEC, Path(), Settings()), frames, Tolerances(hessian=1e-5))


def test_sound_hessians_pass(copper):
    _check_springs(copper(3))


@pytest.mark.parametrize(
    ('fault', 'text'),
    [
        (lambda flat, frames: flat[:-1], 'hessians have shape'),
        (lambda flat, frames: flat.astype('f4'), 'float32'),
        (lambda flat, frames: 1.001 * flat, 'against central differences of the forces'),
        (lambda flat, frames: flat + 1e-3 * len(frames), 'of frame 0 alone'),
        (lambda flat, frames: None if len(frames) == 1 else flat, 'alone is missing'),
    ],
)
def test_wrong_hessians_are_found(copper, monkeypatch, fault, text):
    right = Springs.hessians
    monkeypatch.setattr(Springs, 'hessians', lambda self, frames: fault(right(self, frames), frames))
    with pytest.raises(AssertionError, match=text):
        _check_springs(copper(3))


def test_a_hessian_that_is_not_symmetric_is_found(copper, monkeypatch):
    def twisted(self, frames):
        matrices = [np.diag(12 * atoms.positions.ravel() ** 2) for atoms in frames]
        return np.concatenate([(matrix + np.triu(np.full_like(matrix, 1e-3), 1)).ravel() for matrix in matrices])

    monkeypatch.setattr(Springs, 'hessians', twisted)
    with pytest.raises(AssertionError, match='symmetry of the hessian'):
        _check_springs(copper(3))


def test_members_must_average_to_the_hessian(copper, monkeypatch):
    monkeypatch.setattr(Springs, 'factors', (1.0, 1.1))
    with pytest.raises(AssertionError, match='the mean of member_hessians'):
        _check_springs(copper(3))


def test_an_ensemble_has_hessians_of_all_or_of_none(copper, monkeypatch):
    monkeypatch.setattr(Springs, 'member_hessians', lambda self, frames: None)
    with pytest.raises(AssertionError, match='both or neither'):
        _check_springs(copper(3))
    monkeypatch.setattr(Springs, 'hessians', lambda self, frames: None)
    _check_springs(copper(3))


def test_a_hessian_left_to_differences_is_no_fault(copper, monkeypatch):
    right = Springs.hessians

    def some(self, frames):
        flat = right(self, frames)
        flat[: 9 * frames.counts[0] ** 2] = np.nan if frames.counts[0] == 1 else flat[: 9 * frames.counts[0] ** 2]
        return flat

    monkeypatch.setattr(Springs, 'hessians', some)
    frames = copper(3)
    assert frames.counts[0] == 1
    _check_springs(frames)


def test_a_member_that_depends_on_the_batch_is_found(pair, copper, monkeypatch):
    evaluate = Pair.evaluate

    def leaking(self, frames, request):
        result = evaluate(self, frames, request)
        spread = result.member_energies - result.energies
        return dataclasses.replace(result, member_energies=result.energies + spread * len(frames))

    monkeypatch.setattr(Pair, 'evaluate', leaking)
    with pytest.raises(AssertionError, match='member_energies of frame 0 alone'):
        check_backend(pair, copper(3), LOOSE)
