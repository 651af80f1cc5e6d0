"""A committee: means, spread and members of several parameter sets of one backend."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from aiida_mlpotential.worker.backends import catalogue, load_backend
from aiida_mlpotential.worker.backends import committee as module
from aiida_mlpotential.worker.backends.base import Backend, Evaluation, Settings
from aiida_mlpotential.worker.backends.committee import Committee, split
from aiida_mlpotential.worker.errors import WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.testing import check_backend

SPEC = ModelSpec(
    'three',
    'pairs',
    '0' * 64,
    files={f'model/member-{index:03d}/k.txt': '0' * 64 for index in range(3)},
    committee=3,
    ensemble_size=3,
)


class Pairs(Backend):
    """Springs between all pairs of atoms of a molecule; the constant stands in the file."""

    name = 'pairs'
    properties = frozenset({'energy', 'forces', 'atomic_energies', 'forces_std'})
    notes = ('springs',)

    def __init__(self, constant):
        self.constant = constant

    @classmethod
    def load(cls, spec, directory, settings):
        (path,) = spec.files
        return cls(float((directory / path).read_text()))

    def evaluate(self, frames, request):
        atomic, forces = np.zeros(frames.n_atoms), np.zeros((frames.n_atoms, 3))
        for start, stop in zip(frames.offsets, frames.offsets[1:], strict=False):
            vectors = frames.positions[start:stop, None] - frames.positions[None, start:stop]
            atomic[start:stop] = self.constant / 4 * (vectors**2).sum(axis=(1, 2))
            forces[start:stop] = -self.constant * vectors.sum(axis=1)
        energies = np.bincount(frames.frame_of_atom, atomic, minlength=len(frames))
        return Evaluation(
            energies,
            forces=forces if 'forces' in request else None,
            atomic_energies=atomic if 'atomic_energies' in request else None,
        )

    def details(self):
        return {'kind': 'springs', 'constant': self.constant}


@pytest.fixture
def constants():
    return np.array([1.0, 1.5, 2.75])


@pytest.fixture
def committee(tmp_path, constants, monkeypatch) -> Committee:
    entry = dataclasses.replace(catalogue.BACKENDS['ase'], module='pairs', cls='Pairs')
    monkeypatch.setitem(catalogue.BACKENDS, 'pairs', entry)
    monkeypatch.setattr('aiida_mlpotential.worker.backends.get_backend', lambda name: Pairs)
    for path, constant in zip(SPEC.files, constants, strict=True):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(str(constant))
    backend = load_backend(SPEC, tmp_path, Settings())
    assert isinstance(backend, Committee)
    return backend


@pytest.fixture
def frames(molecules) -> Frames:
    return Frames.from_ase([atoms for atoms in molecules if len(atoms) > 1])


def test_it_keeps_the_contract(committee, frames):
    check_backend(committee, frames)


def test_mean_members_and_spread_are_those_of_the_formulas(committee, frames, constants):
    unit = Pairs(1.0).evaluate(frames, frozenset({'forces', 'atomic_energies'}))
    found = committee.evaluate(frames, frozenset({'forces', 'forces_std', 'atomic_energies'}))
    np.testing.assert_allclose(found.member_energies, constants[:, None] * unit.energies, rtol=1e-12)
    np.testing.assert_allclose(found.energies, constants.mean() * unit.energies, rtol=1e-12)
    np.testing.assert_allclose(found.forces, constants.mean() * unit.forces, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.atomic_energies, constants.mean() * unit.atomic_energies, rtol=1e-12)
    spread = np.std(constants, ddof=1)
    np.testing.assert_allclose(found.forces_std, spread * np.abs(unit.forces), rtol=1e-9, atol=1e-12)


def test_the_forces_of_the_members_are_those_of_each(committee, frames, constants):
    unit = Pairs(1.0).evaluate(frames, frozenset({'forces'})).forces
    found = committee.evaluate(frames, frozenset({'member_forces'}))
    np.testing.assert_allclose(found.member_forces, constants[:, None, None] * unit, rtol=1e-12, atol=1e-12)
    assert found.forces is None
    assert found.forces_std is None


def test_hessians_are_the_mean_of_those_of_the_members(committee, frames, constants, monkeypatch):
    monkeypatch.setattr(Pairs, 'hessians', lambda self, frames: self.constant * np.arange(5.0))
    np.testing.assert_allclose(committee.member_hessians(frames), constants[:, None] * np.arange(5.0))
    np.testing.assert_allclose(committee.hessians(frames), constants.mean() * np.arange(5.0))


def test_a_member_without_hessians_leaves_all_to_differences(committee, frames, monkeypatch):
    assert committee.hessians(frames) is None
    monkeypatch.setattr(Pairs, 'hessians', lambda self, frames: None if self.constant > 2 else np.zeros(5))
    assert committee.hessians(frames) is None
    assert committee.member_hessians(frames) is None


def test_what_is_not_asked_for_is_left_out(committee, frames):
    assert committee.evaluate(frames, frozenset()).forces is None
    only_spread = committee.evaluate(frames, frozenset({'forces_std'}))
    assert only_spread.forces is None
    assert only_spread.forces_std is not None


def test_what_all_members_say_is_said_once(committee):
    assert committee.notes == ('springs',)
    assert committee.details() == {'kind': 'springs', 'committee': 3}
    assert 'forces_std' in committee.properties
    assert committee.n_members == 3


def test_each_member_gets_its_own_files():
    assert [list(member.files) for member in split(SPEC)] == [[path] for path in SPEC.files]
    assert {member.committee for member in split(SPEC)} == {0}


def test_more_than_nine_members_are_not_mixed_up():
    files = {f'model/member-{index:03d}/k': '0' * 64 for index in range(12)}
    members = split(dataclasses.replace(SPEC, files=files, committee=12))
    assert [list(member.files) for member in members] == [[path] for path in files]


def test_a_member_without_files_is_an_error():
    with pytest.raises(WorkerError, match='member-003') as caught:
        split(dataclasses.replace(SPEC, committee=4))
    assert caught.value.label == 'ERROR_MODEL_MISSING'


def test_ensembles_cannot_be_members(committee, tmp_path, monkeypatch):
    monkeypatch.setattr(Pairs, 'n_members', 8)
    with pytest.raises(WorkerError, match='member 0 of the committee three has 8 members'):
        load_backend(SPEC, tmp_path, Settings())


def test_a_member_that_leaves_out_a_property_is_an_error(committee, frames):
    committee.properties |= {'charges'}
    with pytest.raises(WorkerError, match='left out'):
        committee.evaluate(frames, frozenset({'charges'}))
    assert module._AVERAGED == ('forces', 'stress', 'atomic_energies', 'charges')
