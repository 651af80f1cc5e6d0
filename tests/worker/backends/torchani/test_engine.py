"""The batched engine against torchani structure by structure, finite differences and published reference values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from aiida_mlpotential.worker.backends.torchani import networks
from aiida_mlpotential.worker.backends.torchani.convert import read_state_dict
from aiida_mlpotential.worker.backends.torchani.engine import AniEngine
from aiida_mlpotential.worker.backends.torchani.interop import from_torchani
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.registry import PRETRAINED
from aiida_mlpotential.worker.units import HARTREE

torch = pytest.importorskip('torch')
pytest.importorskip('torchani')

EVERYTHING = frozenset({'forces', 'stress', 'forces_std', 'member_forces'})
FORCES = frozenset({'forces', 'stress'})


def engine_of(model, precision='double', **options):
    return AniEngine(from_torchani(model), precision=precision, **options)


def torchani_results(model, atoms):
    """Member energies (eV) and their forces by torchani, one structure at a time."""
    positions = torch.tensor(atoms.positions[None], requires_grad=True)
    cell, pbc = (torch.tensor(atoms.cell.array), torch.tensor(atoms.pbc)) if atoms.pbc.any() else (None, None)
    numbers = torch.tensor(atoms.numbers[None])
    energies = model((numbers, positions), cell, pbc, ensemble_values=True).energies[:, 0]
    # Without any neighbour torchani's energy does not depend on the positions.
    forces = [
        torch.autograd.grad(energy, positions, retain_graph=True, allow_unused=True)[0]
        if energy.requires_grad
        else None
        for energy in energies
    ]
    zero = torch.zeros_like(positions)
    stacked = -torch.stack([(zero if force is None else force)[0] for force in forces])
    return energies.detach().numpy() * HARTREE, stacked.numpy() * HARTREE


@pytest.mark.parametrize('members', [1, 2, 5])
def test_as_torchani(members, random_model, molecules, crystals):
    model = random_model(members)
    structures = [*molecules[:4], crystals[0], *molecules[4:], crystals[1]]
    result = engine_of(model).evaluate(Frames.from_ase(structures), EVERYTHING)
    begin = 0
    for index, atoms in enumerate(structures):
        energies, forces = torchani_results(model, atoms)
        end = begin + len(atoms)
        np.testing.assert_allclose(result.member_energies[:, index], energies, rtol=0, atol=1e-9)
        assert result.energies[index] == pytest.approx(energies.mean(), abs=1e-9)
        # torch differentiates celu with an alpha rounded to float32, hence no closer.
        np.testing.assert_allclose(result.forces[begin:end], forces.mean(axis=0), rtol=2e-7, atol=2e-7)
        np.testing.assert_allclose(result.member_forces[:, begin:end], forces, rtol=2e-7, atol=2e-7)
        if members > 1:
            np.testing.assert_allclose(result.forces_std[begin:end], forces.std(axis=0, ddof=1), rtol=2e-7, atol=2e-7)
        begin = end
    assert np.isnan(result.forces_std).all() == (members == 1)


def test_results_are_worth_comparing(random_model, molecules):
    result = engine_of(random_model(3)).evaluate(Frames.from_ase(molecules), EVERYTHING)
    assert np.abs(result.forces).max() > 1
    assert result.forces_std.max() > 0.1
    assert result.member_energies.std(axis=0).max() > 0.1


@pytest.mark.parametrize('precision', ['single', 'double'])
def test_batch_does_not_matter(precision, random_model, molecules, crystals, monkeypatch):
    engine = engine_of(random_model(2), precision)
    structures = [*crystals, *molecules]
    alone = [engine.evaluate(Frames.from_ase([atoms]), FORCES) for atoms in structures]
    tolerance = 2e-4 if precision == 'single' else 1e-10
    for limit in (engine.chunk_atoms, 20):
        monkeypatch.setattr(engine, 'chunk_atoms', limit)
        for order in (list(range(len(structures))), list(range(len(structures)))[::-1]):
            result = engine.evaluate(Frames.from_ase([structures[index] for index in order]), FORCES)
            expected_forces = np.concatenate([alone[index].forces for index in order])
            np.testing.assert_allclose(result.forces, expected_forces, atol=tolerance)
            np.testing.assert_allclose(result.energies, [alone[k].energies[0] for k in order], atol=tolerance)
            np.testing.assert_allclose(result.stress, [alone[k].stress[0] for k in order], atol=tolerance)


def test_single_is_close_to_double(random_model, molecules):
    model = random_model(3)
    double = engine_of(model).evaluate(Frames.from_ase(molecules), EVERYTHING)
    single = engine_of(model, 'single').evaluate(Frames.from_ase(molecules), EVERYTHING)
    assert np.any(single.energies != double.energies)
    np.testing.assert_allclose(single.energies, double.energies, rtol=0, atol=2e-4)
    np.testing.assert_allclose(single.forces, double.forces, rtol=0, atol=1e-3)


def test_self_energies_are_added_in_double(random_model):
    parameters = from_torchani(random_model(2))
    big = np.array([-0.6, -38.1, -54.7, -75.2, -1e6 / 3])
    frames = Frames.from_ase([molecule('CH3SH')])
    first, second = (
        AniEngine(dataclasses.replace(parameters, self_energies=values)).evaluate(frames)
        for values in (big, np.zeros(5))
    )
    expected = (big[1] + 4 * big[0] + big[4]) * HARTREE
    assert first.energies[0] - second.energies[0] == pytest.approx(expected, rel=1e-15, abs=1e-7)


def test_forces_are_the_derivative(random_model, molecules, monkeypatch):
    monkeypatch.setattr(networks, 'TORCH_SLOPE', 1.0)  # torch's own rounding of the slope is the only difference
    engine, atoms, step = engine_of(random_model(2)), molecules[0], 1e-4
    forces = engine.evaluate(Frames.from_ase([atoms]), FORCES).forces
    displaced = []
    for index in np.ndindex(*forces.shape):
        for factor in (2, 1, -1, -2):
            copy = atoms.copy()
            copy.positions[index] += factor * step
            displaced.append(copy)
    energies = engine.evaluate(Frames.from_ase(displaced)).energies.reshape(-1, 4)
    numerical = -(energies @ [-1, 8, -8, 1]).reshape(forces.shape) / (12 * step)
    np.testing.assert_allclose(forces, numerical, rtol=0, atol=1e-7)


def test_stress_is_the_derivative(random_model, crystals):
    engine, step = engine_of(random_model(2)), 1e-4
    stress = engine.evaluate(Frames.from_ase(crystals), frozenset({'stress'})).stress
    for atoms, found in zip(crystals, stress, strict=True):
        numerical = np.empty((3, 3))
        for row, column in np.ndindex(3, 3):
            strained = []
            for factor in (2, 1, -1, -2):
                strain = np.eye(3)
                strain[row, column] += 0.5 * factor * step
                strain[column, row] += 0.5 * factor * step
                copy = atoms.copy()
                copy.set_cell(atoms.cell.array @ strain, scale_atoms=True)
                strained.append(copy)
            energies = engine.evaluate(Frames.from_ase(strained)).energies
            numerical[row, column] = energies @ [-1, 8, -8, 1] / (12 * step) / atoms.get_volume()
        np.testing.assert_allclose(found, numerical, rtol=0, atol=1e-8)
    assert np.abs(stress).max() > 1e-3


def test_unwrapped_atoms(random_model, crystals):
    engine = engine_of(random_model(2))
    reference = engine.evaluate(Frames.from_ase(crystals), FORCES)
    random = np.random.default_rng(0)
    for atoms in crystals:
        atoms.positions += random.integers(-3, 4, size=(len(atoms), 3)) @ atoms.cell.array
    result = engine.evaluate(Frames.from_ase(crystals), FORCES)
    np.testing.assert_allclose(result.energies, reference.energies, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.forces, reference.forces, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.stress, reference.stress, rtol=0, atol=1e-9)


def test_slab_has_no_stress_but_images(random_model, crystals):
    slab = crystals[0].copy()
    slab.pbc = (True, True, False)
    engine = engine_of(random_model(2))
    result = engine.evaluate(Frames.from_ase([slab, crystals[0], molecule('H2O')]), FORCES)
    assert np.isnan(result.stress[[0, 2]]).all()
    assert np.isfinite(result.stress[1]).all()
    assert len(set(np.round(result.energies, 6))) == 3


@pytest.mark.parametrize('precision', ['single', 'double'])
def test_no_neighbours(precision, random_model):
    model = random_model(2)
    structures = [
        Atoms('O'),
        Atoms('H2', positions=[[0, 0, 0], [0, 0, 5.2]]),
        Atoms('CH', positions=[[0] * 3, [50] * 3]),
    ]
    engine = engine_of(model, precision)
    result = engine.evaluate(Frames.from_ase(structures), EVERYTHING)
    assert not result.forces.any()
    assert not result.forces_std.any()
    for index, atoms in enumerate(structures):
        np.testing.assert_allclose(result.member_energies[:, index], torchani_results(model, atoms)[0], atol=1e-4)
    pair = Atoms('H2', positions=[[0, 0, 0], [0, 0, 4.2]])  # within the radial cutoff only: no triples
    with_pair = engine.evaluate(Frames.from_ase([*structures, pair]), EVERYTHING)
    assert with_pair.forces[-1, 2] == pytest.approx(torchani_results(model, pair)[1].mean(axis=0)[-1, 2], abs=1e-4)
    assert with_pair.forces[-1, 2] != 0


def test_overlapping_atoms_stay_finite(random_model):
    structures = [Atoms('OH2', positions=[[0, 0, 0], [0, 0, 0], [0, 0, 1]])]
    result = engine_of(random_model(1)).evaluate(Frames.from_ase(structures), FORCES)
    assert np.isfinite(result.energies).all()
    assert np.isfinite(result.forces).all()


def test_only_what_was_asked_for(random_model, molecules):
    result = engine_of(random_model(2)).evaluate(Frames.from_ase(molecules))
    assert (result.forces, result.stress, result.forces_std, result.member_forces) == (None,) * 4
    result = engine_of(random_model(2)).evaluate(Frames.from_ase(molecules), frozenset({'forces_std'}))
    assert result.forces is None
    assert result.forces_std.shape == (sum(map(len, molecules)), 3)
    assert result.member_forces is None
    result = engine_of(random_model(2)).evaluate(Frames.from_ase(molecules), frozenset({'member_forces'}))
    assert (result.forces, result.forces_std) == (None, None)
    assert result.member_forces.shape == (2, sum(map(len, molecules)), 3)


def test_no_structures(random_model):
    empty = engine_of(random_model(2)).evaluate(Frames.from_ase([]), EVERYTHING)
    assert empty.energies.shape == (0,)
    assert empty.member_energies.shape == (2, 0)


def test_frames_that_were_not_checked_are_refused(random_model):
    engine = engine_of(random_model(1))
    with pytest.raises(ValueError, match='atomic number 14'):
        engine.evaluate(Frames.from_ase([molecule('H2O'), Atoms('SiH')]))
    with pytest.raises(ValueError, match='at least one atom'):
        engine.evaluate(Frames.from_ase([molecule('H2O'), Atoms()]))


def test_refused_models(random_model):
    from torchani.arch import simple_ani, simple_aniq

    with pytest.raises(ValueError, match='activation GELU'):
        engine_of(random_model(2, activation='gelu'))
    with pytest.raises(ValueError, match='cutoff function CutoffSmooth'):
        engine_of(random_model(2, cutoff_fn='smooth'))
    options = {'activation': 'celu', 'cutoff_fn': 'cosine'}
    repulsive = simple_ani(('H', 'O'), lot='wb97x-631gd', ensemble_size=2, repulsion=True, **options)
    with pytest.raises(ValueError, match='extra potential repulsion_xtb'):
        engine_of(repulsive)
    repulsive.set_enabled('repulsion_xtb', False)
    assert engine_of(repulsive).members == 2
    charged = simple_aniq(('H', 'O'), lot='wb97x-631gd', repulsion=False, **options)
    with pytest.raises(ValueError, match='ANIq'):
        engine_of(charged)


def test_active_members(random_model, molecules):
    model = random_model(4)
    every = engine_of(model).evaluate(Frames.from_ase(molecules), EVERYTHING).member_energies
    model.set_active_members([2, 0])
    some = engine_of(model).evaluate(Frames.from_ase(molecules), EVERYTHING).member_energies
    np.testing.assert_allclose(some, every[[2, 0]], atol=1e-9)


def test_memory_estimate_grows_with_the_structure(random_model):
    engine = engine_of(random_model(2))
    small, large = (Atoms(np.ones(edge**3, int), np.argwhere(np.ones((edge, edge, edge))) * 2.2) for edge in (6, 12))
    sizes = [engine.estimate_bytes(Frames.from_ase([atoms]), FORCES) for atoms in (small, large)]
    assert 8 < sizes[1] / sizes[0] < 16
    # Structures beyond one chunk are evaluated one chunk after the other.
    many = [small] * 20
    assert 3.9 * sizes[0] < engine.estimate_bytes(Frames.from_ase(many), FORCES) < 4.1 * sizes[0]
    assert engine.estimate_bytes(Frames.from_ase(many)) < engine.estimate_bytes(Frames.from_ase(many), FORCES)


@pytest.mark.parametrize('precision', ['single', 'double'])
def test_isol24_reaction_14(precision, shared_data):
    """The thermochemistry tutorial of the AMS MLPotential engine with ANI-1ccx."""
    from ase.io import read

    path = shared_data / 'models' / 'torchani' / 'ani1ccx_state_dict.pt'
    engine = AniEngine(read_state_dict(path, PRETRAINED['ANI-1ccx']), precision=precision)
    structures = [read(shared_data / 'molecules' / f'ISOL24_i14{side}.xyz') for side in 'ep']
    result = engine.evaluate(Frames.from_ase(structures))
    np.testing.assert_allclose(result.energies / HARTREE, [-651.36347065, -651.35251657], rtol=0, atol=1e-6)
    spread = result.member_energies.std(axis=0, ddof=1) / HARTREE * 1000
    assert spread[0] == pytest.approx(2.128358, abs=1e-3)
    assert spread[1] * 0.6275095 == pytest.approx(1.8, abs=0.05)
