"""Normal modes: of springs whose answer is known, against ASE, and of all that makes trouble."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.data import atomic_masses
from ase.vibrations import VibrationsData

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.vibrations import (
    ENERGY_OF_WAVENUMBER,
    WAVENUMBER_OF_ONE,
    analyse,
    largest_forces,
    wavenumbers,
)

#: Bent, linear and near-linear molecules turn up in any orientation.
TILT = (37.0, (1, 2, -0.7))


def springs(atoms, scale=30.0):
    """Return the Hessian of springs between all atoms, at rest where these are, ``(3 N, 3 N)``."""
    matrix = np.zeros((3 * len(atoms),) * 2)
    for i in range(len(atoms)):
        for j in range(i):
            line = atoms.positions[i] - atoms.positions[j]
            way = np.zeros((len(atoms), 3))
            way[i], way[j] = line, -line
            matrix += scale / np.linalg.norm(line) ** 4 * np.outer(way, way)
    return matrix


def bend(atoms, constant=3.0):
    """Return what makes three atoms in a row stiff: the Hessian of half the constant times (a - 2 b + c)^2 across."""
    axis = (atoms.positions[2] - atoms.positions[0]) / atoms.get_distance(0, 2)
    way = np.kron([1.0, -2.0, 1.0], np.eye(3) - np.outer(axis, axis))
    return constant * way.T @ way


def carbon_dioxide(off_axis=0.0):
    """Return a tilted molecule whose carbon is beside the line of its oxygen atoms, in order O, C, O."""
    atoms = Atoms('OCO', [[-1.16, 0, 0], [0, off_axis, 0], [1.16, 0, 0]])
    atoms.rotate(*TILT)
    return atoms


def one(atoms, hessian, members=None):
    """Return the modes of one structure."""
    return analyse(Frames.from_ase([atoms]), hessian[None], None if members is None else np.asarray(members)[None])


def of_ase(atoms, hessian):
    """Return the wavenumbers that ASE finds, sorted, imaginary ones negative."""
    found = VibrationsData.from_2d(atoms, hessian).get_frequencies()
    return np.sort(np.where(found.imag != 0, -np.abs(found.imag), found.real))


def test_the_constants_are_those_of_ase():
    assert pytest.approx(units._hbar * 1e10 / np.sqrt(units._e * units._amu) / units.invcm, rel=1e-12) == (
        WAVENUMBER_OF_ONE
    )
    assert pytest.approx(units.invcm, rel=1e-12) == ENERGY_OF_WAVENUMBER
    np.testing.assert_allclose(wavenumbers(np.array([-4.0, 0, 1])), [-2 * WAVENUMBER_OF_ONE, 0, WAVENUMBER_OF_ONE])


def test_two_atoms_vibrate_with_their_reduced_mass():
    atoms = Atoms('HCl', [[0, 0, 0], [0.3, 0.4, 1.2]])
    modes = one(atoms, springs(atoms, 30.0 * atoms.get_distance(0, 1) ** 2))
    mass = atomic_masses[1] * atomic_masses[17] / atomic_masses[[1, 17]].sum()
    assert modes.n_rigid.tolist() == [5] and modes.linear.tolist() == [True]
    assert np.array_equal(modes.frequencies[0, :5], np.zeros(5))
    assert modes.frequencies[0, 5] == pytest.approx(WAVENUMBER_OF_ONE * np.sqrt(30 / mass))
    assert modes.zero_point_energies[0] == pytest.approx(modes.frequencies[0, 5] * units.invcm / 2)


@pytest.mark.parametrize('name', ['H2O', 'C2H6', 'CH4', 'CH3CH2OH'])
def test_the_wavenumbers_are_those_of_ase_where_there_is_nothing_to_project_out(name):
    atoms = molecule(name)
    atoms.rotate(*TILT)
    hessian = springs(atoms)
    modes = one(atoms, hessian)
    assert modes.n_rigid.tolist() == [6] and modes.linear.tolist() == [False]
    np.testing.assert_allclose(modes.frequencies[0, 6:], of_ase(atoms, hessian)[6:], rtol=0, atol=1e-6)
    data = VibrationsData.from_2d(atoms, hessian)
    assert modes.zero_point_energies[0] == pytest.approx(data.get_zero_point_energy().real, abs=1e-6)


def test_modes_have_length_one_and_diagonalise_the_hessian():
    atoms = molecule('CH3CH2OH')
    modes = one(atoms, springs(atoms))
    masses = np.repeat(atoms.get_masses(), 3)
    np.testing.assert_allclose(np.linalg.norm(modes.modes[0], axis=1), 1)
    np.testing.assert_allclose(modes.reduced_masses[0], (masses * modes.modes[0] ** 2).sum(axis=1))
    eigenvalues = (modes.frequencies[0] / WAVENUMBER_OF_ONE) ** 2
    np.testing.assert_allclose(
        springs(atoms) @ modes.modes[0].T, (masses[:, None] * modes.modes[0].T) * eigenvalues, rtol=0, atol=1e-9
    )
    overlaps = (modes.modes[0] * masses) @ modes.modes[0].T
    np.testing.assert_allclose(overlaps, np.diag(modes.reduced_masses[0]), rtol=0, atol=1e-9)


def test_translations_come_first_then_rotations():
    atoms = molecule('CH3CH2OH')
    modes = one(atoms, springs(atoms)).modes[0].reshape(-1, 9, 3)
    np.testing.assert_allclose(modes[:3], np.broadcast_to(np.eye(3)[:, None] / 3, (3, 9, 3)), rtol=0, atol=1e-12)
    centred = atoms.positions - atoms.get_center_of_mass()
    for turn in modes[3:6]:
        axis = np.linalg.lstsq(
            np.concatenate([np.cross(np.eye(3)[k], centred).reshape(-1, 1) for k in range(3)], 1),
            turn.ravel(),
            rcond=None,
        )[0]
        np.testing.assert_allclose(np.cross(axis, centred), turn, rtol=0, atol=1e-12)


def test_what_is_left_of_translations_and_rotations_does_not_mix_with_vibrations():
    """A Hessian that is not exact has a soft rotation; without projection it would shift the modes above it."""
    atoms = molecule('C2H6')
    hessian = springs(atoms)
    clean = one(atoms, hessian)
    masses = np.repeat(atoms.get_masses(), 3)
    rigid, soft = clean.modes[0, :6] * masses, clean.modes[0, 6] * masses
    spoilt = hessian + 0.02 * rigid.T @ rigid + 0.5 * (np.outer(rigid[4], soft) + np.outer(soft, rigid[4]))
    np.testing.assert_allclose(one(atoms, spoilt).frequencies, clean.frequencies, rtol=0, atol=1e-6)
    assert np.abs(of_ase(atoms, spoilt)[6:] - clean.frequencies[0, 6:]).max() > 1


def test_imaginary_modes_are_negative_and_have_no_zero_point():
    atoms = molecule('H2O')
    modes = one(atoms, springs(atoms))
    masses = np.repeat(atoms.get_masses(), 3)
    weighted = modes.modes[0] * masses / np.sqrt(modes.reduced_masses[0])[:, None]
    wanted = np.array([-300.0, -12.0, 1500.0])
    hessian = weighted[6:].T @ np.diag(np.sign(wanted) * (wanted / WAVENUMBER_OF_ONE) ** 2) @ weighted[6:]
    saddle = one(atoms, hessian)
    np.testing.assert_allclose(saddle.frequencies[0, 6:], wanted, rtol=0, atol=1e-6)
    assert [int(saddle.n_imaginary(cutoff)[0]) for cutoff in (0.0, 20.0, 400.0)] == [2, 1, 0]
    assert saddle.zero_point_energies[0] == pytest.approx(750 * units.invcm)


def test_a_linear_molecule_has_both_of_its_bends():
    atoms = carbon_dioxide()
    modes = one(atoms, springs(atoms) + bend(atoms))
    assert modes.n_rigid.tolist() == [5] and modes.linear.tolist() == [True]
    assert modes.frequencies[0, 5] == pytest.approx(modes.frequencies[0, 6], abs=1e-6)
    assert modes.frequencies[0, 5] > 300


@pytest.mark.parametrize('off_axis', [1e-4, 0.009, 0.03, 0.09])
@pytest.mark.parametrize('constant', [3.0, -3.0])
def test_a_linear_molecule_that_is_not_well_optimized_is_linear(off_axis, constant):
    """As that of the last atom's noise, or a saddle point between two bent minima; both bends must be there."""
    atoms = carbon_dioxide(off_axis)
    modes = one(atoms, springs(atoms) + bend(atoms, constant))
    assert modes.linear.tolist() == [True]
    expected = one(carbon_dioxide(), springs(carbon_dioxide()) + bend(carbon_dioxide(), constant))
    bends = slice(5, 7)
    np.testing.assert_allclose(modes.frequencies[0, bends], expected.frequencies[0, bends], rtol=0.02)


@pytest.mark.parametrize('off_axis', [0.03, 0.09, 0.2])
def test_a_molecule_that_is_slightly_bent_at_rest_is_not_linear(off_axis):
    """Turning it about its long axis costs nothing: that is a rotation, whatever the angle."""
    atoms = carbon_dioxide(off_axis)
    modes = one(atoms, springs(atoms))
    assert modes.n_rigid.tolist() == [6] and modes.linear.tolist() == [False]
    np.testing.assert_allclose(modes.frequencies[0, 6:], of_ase(atoms, springs(atoms))[6:], rtol=0, atol=1e-5)


def test_water_is_not_linear_however_stiff():
    """Its oxygen is 0.07 angstrom from the axis of its smallest moment of inertia, the hydrogens are not."""
    atoms = molecule('H2O')
    assert one(atoms, springs(atoms) + 5 * np.eye(9)).linear.tolist() == [False]


def test_an_atom_has_translations_only():
    modes = one(Atoms('O', [[1, 2, 3]]), np.zeros((3, 3)))
    assert modes.n_rigid.tolist() == [3] and modes.linear.tolist() == [False]
    assert np.array_equal(modes.frequencies, np.zeros((1, 3)))
    np.testing.assert_allclose(modes.modes[0], np.eye(3))
    np.testing.assert_allclose(modes.reduced_masses[0], atomic_masses[8])
    assert modes.zero_point_energies.tolist() == [0]


@pytest.mark.parametrize('pbc', [(True, True, True), (True, True, False), (False, False, True)])
def test_whatever_is_periodic_has_three_translations(pbc):
    """Turning a crystal, a slab or a wire against its images costs energy."""
    atoms = bulk('Cu', cubic=True)
    atoms.pbc = pbc
    modes = one(atoms, springs(atoms) + np.diag(np.ones(12)))
    assert modes.n_rigid.tolist() == [3] and modes.linear.tolist() == [False]
    assert np.all(modes.frequencies[0, 3:] > 0)


def test_frames_of_one_size_together_are_as_each_alone():
    """Linear, bent and periodic ones among them."""
    bent, crystal = carbon_dioxide(0.3), carbon_dioxide()
    crystal.cell, crystal.pbc = np.eye(3) * 9, True
    structures = [molecule('H2O'), carbon_dioxide(), bent, crystal, molecule('HCN')]
    hessians = np.stack([springs(atoms) + bend(atoms) for atoms in structures])
    members = np.stack([0.9 * hessians, hessians, 1.2 * hessians], axis=1)
    together = analyse(Frames.from_ase(structures), hessians, members)
    assert together.n_rigid.tolist() == [6, 5, 6, 3, 5]
    for index, atoms in enumerate(structures):
        alone = one(atoms, hessians[index], members[index])
        for name in ('frequencies', 'modes', 'reduced_masses', 'member_frequencies'):
            expected = getattr(alone, name)[0]
            np.testing.assert_allclose(getattr(together, name)[index], expected, rtol=0, atol=1e-7, err_msg=name)


def test_members_are_in_the_order_of_the_modes_of_the_mean():
    """The stretches of the second member have changed places, and its bend is imaginary."""
    atoms = molecule('H2O')
    modes = one(atoms, springs(atoms))
    masses = np.repeat(atoms.get_masses(), 3)
    weighted = (modes.modes[0] * masses / np.sqrt(modes.reduced_masses[0])[:, None])[6:]
    own = np.array([[1600.0, 3600, 3700], [-200.0, 3750, 3650]])
    matrices = [weighted.T @ np.diag(np.sign(row) * (row / WAVENUMBER_OF_ONE) ** 2) @ weighted for row in own]
    found = one(atoms, matrices[0], matrices).member_frequencies
    assert found.shape == (1, 2, 9)
    assert np.array_equal(found[0, :, :6], np.zeros((2, 6)))
    np.testing.assert_allclose(found[0, :, 6:], own, rtol=0, atol=1e-5)


def test_there_are_no_members_where_none_were_given():
    atoms = molecule('H2O')
    assert one(atoms, springs(atoms)).member_frequencies is None


def test_the_sign_of_a_mode_does_not_depend_on_the_diagonalisation():
    atoms = molecule('CH3CH2OH')
    modes = one(atoms, springs(atoms)).modes[0]
    sizes = np.abs(modes)
    first = np.argmax(sizes > 0.999999 * sizes.max(axis=1, keepdims=True), axis=1)
    assert np.all(modes[np.arange(len(modes)), first] > 0)


def test_the_largest_force_is_that_on_an_atom():
    frames = Frames.from_ase([molecule('H2'), molecule('O'), molecule('H2O')])
    forces = np.array([[0, 0, 1], [0.6, 0, 0.9], [0, -2, 0], [3, 0, 4], [0, 0, 0], [1, 1, 1]], dtype=float)
    np.testing.assert_allclose(largest_forces(frames, forces), [np.sqrt(1.17), 2, 5])
