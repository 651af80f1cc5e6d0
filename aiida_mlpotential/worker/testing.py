"""Checks that every backend has to pass; public, for authors of backends of their own."""

from __future__ import annotations

import dataclasses

import numpy as np

from .backends.base import Backend, Evaluation
from .frames import FloatArray, Frames


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """How far numbers may be apart: eV, eV/angstrom, eV/angstrom^3.

    The defaults suit a model in double precision; ``derivative`` is that of a central difference with ``step``.
    """

    energy: float = 1e-8
    forces: float = 1e-7
    stress: float = 1e-8
    derivative: float = 1e-5
    step: float = 2e-4


def check_backend(backend: Backend, frames: Frames, tolerances: Tolerances | None = None) -> None:
    """Raise an ``AssertionError`` that says what a backend does wrong.

    Checked are shapes and types, that atomic energies sum to the energy, that results do not depend on what else is in
    a batch nor on the order of atoms, that energies do not change and forces turn with a rotation, that forces and
    stress are the derivatives of the energy, and that the energy is the mean of the members.

    :param frames: at least two frames that the model knows, better of different size and with a crystal among them
    """
    limits = tolerances or Tolerances()
    request = frozenset(backend.properties - {'energy', 'hessian'})
    if backend.n_members == 1:
        request -= {'forces_std'}
    if not any(frames.pbc[i].all() for i in range(len(frames))):
        request -= {'stress'}
    reference = backend.evaluate(frames, request)
    _check_shapes(backend, frames, reference, request)
    _check_batching(backend, frames, reference, request, limits)
    if not backend.fixed_atom_order:
        _check_permutation(backend, frames, reference, limits)
    _check_rotation(backend, frames, reference, limits)
    _check_wrapping(backend, frames, reference, limits)
    if 'forces' in request:
        _check_forces(backend, frames, reference, limits)
    if 'stress' in request:
        _check_stress(backend, frames, reference, limits)
    _check_sums(frames, reference, limits)


def _check_shapes(backend: Backend, frames: Frames, result: Evaluation, request: frozenset[str]) -> None:
    n, atoms, members = len(frames), frames.n_atoms, backend.n_members
    shapes = {'energies': (n,), 'forces': (atoms, 3), 'stress': (n, 3, 3), 'forces_std': (atoms, 3)}
    shapes |= {'atomic_energies': (atoms,), 'charges': (atoms,)}
    for name, shape in shapes.items():
        values = getattr(result, name)
        if name == 'energies' or name in request:
            assert values is not None, f'{name} was asked for and is missing'
            assert values.shape == shape, f'{name} has shape {values.shape}, expected {shape}'
            assert values.dtype == np.float64, f'{name} is {values.dtype}, expected float64'
    if members > 1:
        assert result.member_energies is not None, 'an ensemble must give the energies of its members'
        assert result.member_energies.shape == (members, n), f'member_energies has shape {result.member_energies.shape}'
        _assert_close(result.member_energies.mean(axis=0), result.energies, 1e-7, 'the mean of the members')


def _check_sums(frames: Frames, result: Evaluation, limits: Tolerances) -> None:
    if result.atomic_energies is not None:
        sums = np.zeros(len(frames))
        np.add.at(sums, frames.frame_of_atom, result.atomic_energies)
        _assert_close(sums, result.energies, limits.energy, 'the sum of the atomic energies')


def _check_batching(
    backend: Backend, frames: Frames, result: Evaluation, request: frozenset[str], limits: Tolerances
) -> None:
    for index in range(len(frames)):
        alone = backend.evaluate(frames.select([index]), request)
        _assert_close(alone.energies, result.energies[[index]], limits.energy, f'energy of frame {index} alone')
        atoms = slice(frames.offsets[index], frames.offsets[index + 1])
        if alone.forces is not None and result.forces is not None:
            _assert_close(alone.forces, result.forces[atoms], limits.forces, f'forces of frame {index} alone')
        if alone.stress is not None and result.stress is not None:
            _assert_close(alone.stress, result.stress[[index]], limits.stress, f'stress of frame {index} alone')


def _check_permutation(backend: Backend, frames: Frames, result: Evaluation, limits: Tolerances) -> None:
    order = np.concatenate(
        [np.arange(b - 1, a - 1, -1) for a, b in zip(frames.offsets, frames.offsets[1:], strict=False)]
    )
    reversed_frames = dataclasses.replace(frames, numbers=frames.numbers[order], positions=frames.positions[order])
    other = backend.evaluate(reversed_frames, frozenset({'forces'} & backend.properties))
    _assert_close(other.energies, result.energies, limits.energy, 'energy with the atoms in another order')
    if other.forces is not None and result.forces is not None:
        _assert_close(other.forces, result.forces[order], limits.forces, 'forces with the atoms in another order')


def _check_rotation(backend: Backend, frames: Frames, result: Evaluation, limits: Tolerances) -> None:
    rotation = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
    rotated = dataclasses.replace(frames, positions=frames.positions @ rotation, cells=frames.cells @ rotation)
    other = backend.evaluate(rotated, frozenset({'forces'} & backend.properties))
    _assert_close(other.energies, result.energies, limits.energy, 'energy of the rotated frame')
    if other.forces is not None and result.forces is not None:
        _assert_close(other.forces, result.forces @ rotation, limits.forces, 'forces of the rotated frame')


def _check_wrapping(backend: Backend, frames: Frames, result: Evaluation, limits: Tolerances) -> None:
    """Move every other atom by whole periodic cell vectors: nothing may change."""
    steps = (np.arange(frames.n_atoms) % 2)[:, None] * frames.pbc[frames.frame_of_atom] * np.array([1, -2, 1])
    moved = frames.positions + np.einsum('ai,aij->aj', steps, frames.cells[frames.frame_of_atom])
    request = frozenset({'stress', 'forces'} & backend.properties) if result.stress is not None else frozenset()
    other = backend.evaluate(dataclasses.replace(frames, positions=moved), request)
    _assert_close(other.energies, result.energies, limits.energy, 'energy with unwrapped atoms')
    if other.stress is not None and result.stress is not None:
        _assert_close(other.stress, result.stress, limits.stress, 'stress with unwrapped atoms')


def _check_forces(backend: Backend, frames: Frames, result: Evaluation, limits: Tolerances) -> None:
    """Compare with central differences along one random direction for each frame."""
    direction = np.random.default_rng(11).normal(size=(frames.n_atoms, 3))
    ends = [
        backend.evaluate(
            dataclasses.replace(frames, positions=frames.positions + sign * limits.step * direction), frozenset()
        ).energies
        for sign in (-1, 1)
    ]
    numerical = -(ends[1] - ends[0]) / (2 * limits.step)
    assert result.forces is not None
    along = np.zeros(len(frames))
    np.add.at(along, frames.frame_of_atom, np.sum(result.forces * direction, axis=1))
    _assert_close(along, numerical, limits.derivative * np.sqrt(frames.counts), 'forces against central differences')


def _check_stress(backend: Backend, frames: Frames, result: Evaluation, limits: Tolerances) -> None:
    """Compare with central differences along one symmetric strain for each crystal."""
    random = np.random.default_rng(13).normal(size=(3, 3))
    strain = (random + random.T) / 2
    step = limits.step / 10  # a strain moves distant atoms far
    ends = []
    for sign in (-1, 1):
        deform = np.eye(3) + sign * step * strain
        strained = dataclasses.replace(frames, positions=frames.positions @ deform, cells=frames.cells @ deform)
        ends.append(backend.evaluate(strained, frozenset()).energies)
    assert result.stress is not None
    crystals = np.flatnonzero(frames.pbc.all(axis=1))
    volumes = np.abs(np.linalg.det(frames.cells[crystals]))
    numerical = (ends[1] - ends[0])[crystals] / (2 * step) / volumes
    along = np.einsum('nij,ij->n', result.stress[crystals], strain)
    _assert_close(along, numerical, 10 * limits.derivative / volumes, 'stress against central differences')


def _assert_close(found: FloatArray, expected: FloatArray, limit: float | FloatArray, what: str) -> None:
    difference = np.where(np.isnan(found) & np.isnan(expected), 0.0, np.abs(found - expected))
    worst = np.argmax(difference / limit)
    if not difference.flat[worst] <= np.broadcast_to(limit, difference.shape).flat[worst]:
        allowed = np.broadcast_to(limit, difference.shape).flat[worst]
        raise AssertionError(f'{what}: difference {difference.flat[worst]:.3g}, allowed {allowed:.3g}')
