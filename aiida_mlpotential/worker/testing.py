"""Checks that every backend has to pass; public, for authors of backends of their own."""

from __future__ import annotations

import dataclasses

import numpy as np

from .backends.base import Backend, Evaluation
from .frames import FloatArray, Frames, IntArray
from .storage import hessian_offsets


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """How far numbers may be apart: eV, eV/angstrom, eV/angstrom^2, eV/angstrom^3.

    The defaults suit a model in double precision; ``derivative`` is that of a central difference of energies with
    ``step``, ``hessian`` that of one of forces with ``hessian_step``.
    """

    energy: float = 1e-8
    forces: float = 1e-7
    stress: float = 1e-8
    derivative: float = 1e-5
    step: float = 2e-4
    hessian: float = 1e-4
    hessian_step: float = 1e-5


#: Quantities with a row for each atom, and the tolerance that each quantity has.
_OF_ATOMS = ('forces', 'forces_std', 'member_forces', 'atomic_energies', 'charges')
_LIMITS = {'energies': 'energy', 'member_energies': 'energy', 'atomic_energies': 'energy', 'stress': 'stress'}
_LIMITS |= dict.fromkeys(('forces', 'forces_std', 'member_forces', 'charges'), 'forces')


def check_backend(backend: Backend, frames: Frames, tolerances: Tolerances | None = None) -> None:
    """Raise an ``AssertionError`` that says what a backend does wrong.

    Checked are shapes and types, that atomic energies sum to the energy, that no result depends on what else is in a
    batch, on what else is asked for, on the order of atoms, on where the structure lies, or on which image of an atom
    is given, that energies do not change and forces and stress turn with a rotation, that forces and stress are the
    derivatives of the energy, that the stress is symmetric and there for crystals only, that the energy is the mean of
    the members, that ``forces_std`` is the sample standard deviation of their forces, that ``member_forces`` are these
    forces, and that analytic Hessians, where there are any, are symmetric, those of each frame alone, the derivatives
    of the forces, and the mean of those of the members.

    :param frames: at least two frames that the model knows, better of different size and with a crystal among them
    """
    limits = tolerances or Tolerances()
    request = frozenset(backend.properties - {'energy', 'hessian'})
    if backend.n_members == 1:
        request -= {'forces_std'}
    elif 'forces_std' in request:
        request |= {'member_forces'}
    if not any(frames.pbc[i].all() for i in range(len(frames))):
        request -= {'stress'}
    reference = backend.evaluate(frames, request)
    _check_shapes(backend, frames, reference, request)
    _check_batching(backend, frames, reference, request, limits)
    bare = dataclasses.replace(backend.evaluate(frames, frozenset()), member_energies=None)
    _assert_same(bare, Evaluation(reference.energies), limits, 'when nothing else is asked for')
    if not backend.fixed_atom_order:
        _check_permutation(backend, frames, reference, request, limits)
    _check_rotation(backend, frames, reference, request, limits)
    _check_places(backend, frames, reference, request, limits)
    if 'forces' in request:
        _check_forces(backend, frames, reference, limits)
    if 'forces_std' in request:
        _check_spread(backend, frames, reference, limits)
    if 'member_forces' in request:
        _check_member_forces(backend, frames, reference, limits)
    if 'stress' in request:
        _check_stress(backend, frames, reference, limits)
    _check_sums(frames, reference, limits)
    _check_hessians(backend, frames, limits)


def _check_shapes(backend: Backend, frames: Frames, result: Evaluation, request: frozenset[str]) -> None:
    n, atoms, members = len(frames), frames.n_atoms, backend.n_members
    shapes = {'energies': (n,), 'forces': (atoms, 3), 'stress': (n, 3, 3), 'forces_std': (atoms, 3)}
    shapes |= {'atomic_energies': (atoms,), 'charges': (atoms,), 'member_forces': (members, atoms, 3)}
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
        alone = frames.select([index])
        found = backend.evaluate(alone, request)
        _check_shapes(backend, alone, found, request)
        _assert_same(found, _of_frame(result, frames, index), limits, f'of frame {index} alone')


def _of_frame(result: Evaluation, frames: Frames, index: int) -> Evaluation:
    """Return what belongs to one frame of a batch."""
    parts = _atoms_of(result, np.arange(frames.offsets[index], frames.offsets[index + 1]))
    members = None if result.member_energies is None else result.member_energies[:, [index]]
    stress = None if result.stress is None else result.stress[[index]]
    return Evaluation(result.energies[[index]], member_energies=members, stress=stress, **parts)


def _atoms_of(result: Evaluation, atoms: IntArray) -> dict[str, FloatArray]:
    """Return the rows of some atoms of all that has rows of atoms."""
    found = {name: getattr(result, name) for name in _OF_ATOMS if getattr(result, name) is not None}
    return {name: np.take(values, atoms, axis=int(name == 'member_forces')) for name, values in found.items()}


def _check_permutation(
    backend: Backend, frames: Frames, result: Evaluation, request: frozenset[str], limits: Tolerances
) -> None:
    order = np.concatenate(
        [np.arange(b - 1, a - 1, -1) for a, b in zip(frames.offsets, frames.offsets[1:], strict=False)]
    )
    reversed_frames = dataclasses.replace(frames, numbers=frames.numbers[order], positions=frames.positions[order])
    expected = dataclasses.replace(result, **_atoms_of(result, order))
    found = backend.evaluate(reversed_frames, request)
    _assert_same(found, expected, limits, 'with the atoms in another order')


def _check_rotation(
    backend: Backend, frames: Frames, result: Evaluation, request: frozenset[str], limits: Tolerances
) -> None:
    """Turn and mirror everything, which makes left-handed cells of right-handed ones."""
    rotation = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
    rotation *= -np.sign(np.linalg.det(rotation))
    rotated = dataclasses.replace(frames, positions=frames.positions @ rotation, cells=frames.cells @ rotation)
    expected = dataclasses.replace(
        result,
        forces=None if result.forces is None else result.forces @ rotation,
        member_forces=None if result.member_forces is None else result.member_forces @ rotation,
        stress=None if result.stress is None else rotation.T @ result.stress @ rotation,
        forces_std=None,  # of components, which do not turn
    )
    found = dataclasses.replace(backend.evaluate(rotated, request), forces_std=None)
    _assert_same(found, expected, limits, 'of the rotated frame')


def _check_places(
    backend: Backend, frames: Frames, result: Evaluation, request: frozenset[str], limits: Tolerances
) -> None:
    """Move every other atom by whole periodic cell vectors, and then everything by some way: nothing may change."""
    steps = (np.arange(frames.n_atoms) % 2)[:, None] * frames.pbc[frames.frame_of_atom] * np.array([1, -2, 1])
    moved = frames.positions + np.einsum('ai,aij->aj', steps, frames.cells[frames.frame_of_atom])
    ways = np.random.default_rng(17).uniform(-3.0, 3.0, size=(len(frames), 3))[frames.frame_of_atom]
    for positions, what in ((moved, 'with unwrapped atoms'), (frames.positions + ways, 'of the frame elsewhere')):
        found = backend.evaluate(dataclasses.replace(frames, positions=positions), request)
        _assert_same(found, result, limits, what)


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


def _check_spread(backend: Backend, frames: Frames, result: Evaluation, limits: Tolerances) -> None:
    """Compare the spread of one force of each frame with central differences of the energies of the members."""
    random = np.random.default_rng(19)
    atoms = frames.offsets[:-1] + random.integers(0, frames.counts)
    axes = random.integers(0, 3, size=len(frames))
    ends = []
    for sign in (-1, 1):
        positions = frames.positions.copy()
        positions[atoms, axes] += sign * limits.step
        members = backend.evaluate(dataclasses.replace(frames, positions=positions), frozenset()).member_energies
        assert members is not None, 'member_energies is missing when nothing else is asked for'
        ends.append(members)
    numerical = np.std((ends[1] - ends[0]) / (2 * limits.step), axis=0, ddof=1)
    assert result.forces_std is not None
    found = result.forces_std[atoms, axes]
    _assert_close(found, numerical, 2 * limits.derivative, 'forces_std against central differences of the members')


def _check_member_forces(backend: Backend, frames: Frames, result: Evaluation, limits: Tolerances) -> None:
    """Compare with the mean and the spread, which are those of the same forces, and ask for nothing else."""
    assert result.member_forces is not None
    if result.forces is not None:
        _assert_close(result.member_forces.mean(axis=0), result.forces, limits.forces, 'the mean of member_forces')
    if result.forces_std is not None:
        spread = np.std(result.member_forces, axis=0, ddof=1)
        _assert_close(spread, result.forces_std, limits.forces, 'the spread of member_forces')
    alone = backend.evaluate(frames, frozenset({'member_forces'}))
    _assert_same(alone, Evaluation(result.energies, member_forces=result.member_forces), limits, 'asked for alone')
    assert alone.forces is None, 'forces are there though only member_forces were asked for'


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
    others = np.delete(result.stress, crystals, axis=0)
    assert np.isnan(others).all(), 'stress has to be NaN where a frame is not periodic in three directions'
    _assert_close(result.stress, result.stress.transpose(0, 2, 1), limits.stress, 'the symmetry of the stress')
    volumes = np.abs(np.linalg.det(frames.cells[crystals]))
    numerical = (ends[1] - ends[0])[crystals] / (2 * step) / volumes
    along = np.einsum('nij,ij->n', result.stress[crystals], strain)
    _assert_close(along, numerical, 10 * limits.derivative / volumes, 'stress against central differences')


def _check_hessians(backend: Backend, frames: Frames, limits: Tolerances) -> None:
    """Compare with differences of the forces along one random direction of each frame."""
    flat = backend.hessians(frames)
    of_members = backend.member_hessians(frames)
    if backend.n_members > 1:
        assert (flat is None) == (of_members is None), 'hessians and member_hessians are there both or neither'
    if flat is None:
        return
    edges = hessian_offsets(frames.offsets)
    assert flat.shape == (edges[-1],), f'hessians have shape {flat.shape}, expected {(edges[-1],)}'
    assert flat.dtype == np.float64, f'hessians are {flat.dtype}, expected float64'
    if of_members is not None:
        shape = (backend.n_members, edges[-1])
        assert of_members.shape == shape, f'member_hessians have shape {of_members.shape}, expected {shape}'
        _assert_close(of_members.mean(axis=0), flat, limits.hessian, 'the mean of member_hessians')
    way = np.random.default_rng(23).normal(size=(frames.n_atoms, 3))
    ends = []
    for sign in (-1, 1):
        moved = dataclasses.replace(frames, positions=frames.positions + sign * limits.hessian_step * way)
        forces = backend.evaluate(moved, frozenset({'forces'})).forces
        assert forces is not None, 'forces is missing when nothing else is asked for'
        ends.append(forces)
    numerical = (ends[0] - ends[1]) / (2 * limits.hessian_step)
    for index in range(len(frames)):
        part = flat[edges[index] : edges[index + 1]]
        alone = backend.hessians(frames.select([index]))
        assert alone is not None, f'the hessian of frame {index} alone is missing'
        _assert_close(alone, part, limits.hessian, f'the hessian of frame {index} alone')
        if np.isnan(part).all():
            continue
        matrix = part.reshape(3 * frames.counts[index], -1)
        _assert_close(matrix, matrix.T, limits.hessian, f'the symmetry of the hessian of frame {index}')
        atoms = slice(frames.offsets[index], frames.offsets[index + 1])
        found = (matrix @ way[atoms].ravel()).reshape(-1, 3)
        what = f'the hessian of frame {index} against central differences of the forces'
        _assert_close(found, numerical[atoms], limits.hessian, what)


def _assert_same(found: Evaluation, expected: Evaluation, limits: Tolerances, what: str) -> None:
    """Compare all that is in the second evaluation."""
    for name, tolerance in _LIMITS.items():
        wanted, value = getattr(expected, name), getattr(found, name)
        if wanted is not None:
            assert value is not None, f'{name} {what} is missing'
            _assert_close(value, wanted, getattr(limits, tolerance), f'{name} {what}')


def _assert_close(found: FloatArray, expected: FloatArray, limit: float | FloatArray, what: str) -> None:
    difference = np.where(np.isnan(found) & np.isnan(expected), 0.0, np.abs(found - expected))
    worst = np.argmax(difference / limit)
    if not difference.flat[worst] <= np.broadcast_to(limit, difference.shape).flat[worst]:
        allowed = np.broadcast_to(limit, difference.shape).flat[worst]
        raise AssertionError(f'{what}: difference {difference.flat[worst]:.3g}, allowed {allowed:.3g}')
