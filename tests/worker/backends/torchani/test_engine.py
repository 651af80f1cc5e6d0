"""The batched engine against torchani structure by structure, finite differences and published reference values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from aiida_mlpotential.worker.backends.torchani import engine as engine_module
from aiida_mlpotential.worker.backends.torchani.engine import HARTREE_IN_EV, AniEngine
from aiida_mlpotential.worker.backends.torchani.loading import load_state_dict_model

torch = pytest.importorskip('torch')
pytest.importorskip('torchani')

EVERYTHING = frozenset({'forces', 'stress', 'member_energies', 'forces_std'})
FORCES = frozenset({'forces', 'stress', 'member_energies'})
PUBLISHED = {
    'ani1x': ('ani1x', ('H', 'C', 'N', 'O')),
    'ani1ccx': ('ani1x', ('H', 'C', 'N', 'O')),
    'ani2x': ('ani2x', ('H', 'C', 'N', 'O', 'S', 'F', 'Cl')),
}


def engine_of(model, precision='double', **options):
    return AniEngine(model, model.energy_shifter.self_energies.double().numpy(), precision=precision, **options)


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
    return energies.detach().numpy() * HARTREE_IN_EV, stacked.numpy() * HARTREE_IN_EV


@pytest.mark.parametrize('members', [1, 2, 5])
def test_as_torchani(members, random_model, flatten, molecules, crystals):
    model = random_model(members)
    structures = [*molecules[:4], crystals[0], *molecules[4:], crystals[1]]
    result = engine_of(model).evaluate(*flatten(structures), EVERYTHING)
    begin = 0
    for index, atoms in enumerate(structures):
        energies, forces = torchani_results(model, atoms)
        end = begin + len(atoms)
        np.testing.assert_allclose(result.member_energies[:, index], energies, rtol=0, atol=1e-9)
        assert result.energies[index] == pytest.approx(energies.mean(), abs=1e-9)
        # torch differentiates celu with an alpha rounded to float32, hence no closer.
        np.testing.assert_allclose(result.forces[begin:end], forces.mean(axis=0), rtol=2e-7, atol=2e-7)
        if members > 1:
            np.testing.assert_allclose(result.forces_std[begin:end], forces.std(axis=0, ddof=1), rtol=2e-7, atol=2e-7)
        begin = end
    assert np.isnan(result.forces_std).all() == (members == 1)


def test_results_are_worth_comparing(random_model, flatten, molecules):
    result = engine_of(random_model(3)).evaluate(*flatten(molecules), EVERYTHING)
    assert np.abs(result.forces).max() > 1
    assert result.forces_std.max() > 0.1
    assert result.member_energies.std(axis=0).max() > 0.1


@pytest.mark.parametrize('precision', ['single', 'double'])
def test_batch_does_not_matter(precision, random_model, flatten, molecules, crystals, monkeypatch):
    engine = engine_of(random_model(2), precision)
    structures = [*crystals, *molecules]
    alone = [engine.evaluate(*flatten([atoms]), FORCES) for atoms in structures]
    tolerance = 2e-4 if precision == 'single' else 1e-10
    for limit in (engine_module.ATOMS_PER_CHUNK, 20):
        monkeypatch.setattr(engine_module, 'ATOMS_PER_CHUNK', limit)
        for order in (list(range(len(structures))), list(range(len(structures)))[::-1]):
            result = engine.evaluate(*flatten([structures[index] for index in order]), FORCES)
            expected_forces = np.concatenate([alone[index].forces for index in order])
            np.testing.assert_allclose(result.forces, expected_forces, atol=tolerance)
            np.testing.assert_allclose(result.energies, [alone[k].energies[0] for k in order], atol=tolerance)
            np.testing.assert_allclose(result.stress, [alone[k].stress[0] for k in order], atol=tolerance)


def test_single_is_close_to_double(random_model, flatten, molecules):
    model = random_model(3)
    double = engine_of(model).evaluate(*flatten(molecules), EVERYTHING)
    single = engine_of(model, 'single').evaluate(*flatten(molecules), EVERYTHING)
    assert np.any(single.energies != double.energies)
    np.testing.assert_allclose(single.energies, double.energies, rtol=0, atol=2e-4)
    np.testing.assert_allclose(single.forces, double.forces, rtol=0, atol=1e-3)


def test_self_energies_are_added_in_double(random_model, flatten):
    model = random_model(2)
    big = np.array([-0.6, -38.1, -54.7, -75.2, -1e6 / 3])
    atoms = molecule('CH3SH')
    first = AniEngine(model, big).evaluate(*flatten([atoms]))
    second = AniEngine(model, np.zeros(5)).evaluate(*flatten([atoms]))
    expected = (big[1] + 4 * big[0] + big[4]) * HARTREE_IN_EV
    assert first.energies[0] - second.energies[0] == pytest.approx(expected, rel=1e-15, abs=1e-7)


def test_forces_are_the_derivative(random_model, flatten, molecules):
    engine, atoms, step = engine_of(random_model(2)), molecules[0], 1e-4
    forces = engine.evaluate(*flatten([atoms]), FORCES).forces
    displaced = []
    for index in np.ndindex(*forces.shape):
        for factor in (2, 1, -1, -2):
            copy = atoms.copy()
            copy.positions[index] += factor * step
            displaced.append(copy)
    energies = engine.evaluate(*flatten(displaced)).energies.reshape(-1, 4)
    numerical = -(energies @ [-1, 8, -8, 1]).reshape(forces.shape) / (12 * step)
    np.testing.assert_allclose(forces, numerical, rtol=0, atol=1e-7)


def test_stress_is_the_derivative(random_model, flatten, crystals):
    engine, step = engine_of(random_model(2)), 1e-4
    stress = engine.evaluate(*flatten(crystals), frozenset({'stress'})).stress
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
            energies = engine.evaluate(*flatten(strained)).energies
            numerical[row, column] = energies @ [-1, 8, -8, 1] / (12 * step) / atoms.get_volume()
        np.testing.assert_allclose(found, numerical, rtol=0, atol=1e-8)
    assert np.abs(stress).max() > 1e-3


def test_unwrapped_atoms(random_model, flatten, crystals):
    engine = engine_of(random_model(2))
    reference = engine.evaluate(*flatten(crystals), FORCES)
    random = np.random.default_rng(0)
    for atoms in crystals:
        atoms.positions += random.integers(-3, 4, size=(len(atoms), 3)) @ atoms.cell.array
    result = engine.evaluate(*flatten(crystals), FORCES)
    np.testing.assert_allclose(result.energies, reference.energies, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.forces, reference.forces, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.stress, reference.stress, rtol=0, atol=1e-9)


def test_slab_has_no_stress_but_images(random_model, flatten, crystals):
    slab = crystals[0].copy()
    slab.pbc = (True, True, False)
    engine = engine_of(random_model(2))
    result = engine.evaluate(*flatten([slab, crystals[0], molecule('H2O')]), FORCES)
    assert np.isnan(result.stress[[0, 2]]).all()
    assert np.isfinite(result.stress[1]).all()
    assert len(set(np.round(result.energies, 6))) == 3


@pytest.mark.parametrize('precision', ['single', 'double'])
def test_no_neighbours(precision, random_model, flatten):
    model = random_model(2)
    structures = [
        Atoms('O'),
        Atoms('H2', positions=[[0, 0, 0], [0, 0, 5.2]]),
        Atoms('CH', positions=[[0] * 3, [50] * 3]),
    ]
    engine = engine_of(model, precision)
    result = engine.evaluate(*flatten(structures), EVERYTHING)
    assert not result.forces.any()
    assert not result.forces_std.any()
    for index, atoms in enumerate(structures):
        np.testing.assert_allclose(result.member_energies[:, index], torchani_results(model, atoms)[0], atol=1e-4)
    pair = Atoms('H2', positions=[[0, 0, 0], [0, 0, 4.2]])  # within the radial cutoff only: no triples
    with_pair = engine.evaluate(*flatten([*structures, pair]), EVERYTHING)
    assert with_pair.forces[-1, 2] == pytest.approx(torchani_results(model, pair)[1].mean(axis=0)[-1, 2], abs=1e-4)
    assert with_pair.forces[-1, 2] != 0


def test_overlapping_atoms_stay_finite(random_model, flatten):
    structures = [Atoms('OH2', positions=[[0, 0, 0], [0, 0, 0], [0, 0, 1]])]
    result = engine_of(random_model(1)).evaluate(*flatten(structures), FORCES)
    assert np.isfinite(result.energies).all()
    assert np.isfinite(result.forces).all()


def test_only_what_was_asked_for(random_model, flatten, molecules):
    result = engine_of(random_model(2)).evaluate(*flatten(molecules))
    assert (result.member_energies, result.forces, result.stress, result.forces_std) == (None,) * 4
    result = engine_of(random_model(2)).evaluate(*flatten(molecules), frozenset({'forces_std'}))
    assert result.forces is None
    assert result.forces_std.shape == (sum(map(len, molecules)), 3)


def test_no_structures(random_model):
    empty = engine_of(random_model(2)).evaluate(
        np.empty(0, int), np.empty((0, 3)), np.zeros(1, int), np.empty((0, 3, 3)), np.empty((0, 3), bool), EVERYTHING
    )
    assert empty.energies.shape == (0,)
    assert empty.member_energies.shape == (2, 0)


def test_bad_input(random_model, flatten):
    engine = engine_of(random_model(1))
    numbers, positions, offsets, cells, pbc = flatten([molecule('H2O'), Atoms('SiH')])
    with pytest.raises(ValueError, match='Atomic number 14'):
        engine.evaluate(numbers, positions, offsets, cells, pbc)
    numbers[-2] = 1
    with pytest.raises(ValueError, match='Request'):
        engine.evaluate(numbers, positions, offsets, cells, pbc, frozenset({'hessian'}))
    with pytest.raises(ValueError, match='at least one atom'):
        engine.evaluate(numbers, positions, np.array([0, 5, 5]), cells, pbc)
    with pytest.raises(ValueError, match='shapes'):
        engine.evaluate(numbers, positions[1:], offsets, cells, pbc)
    numbers[0] = -1
    with pytest.raises(ValueError, match='Atomic number -1'):
        engine.evaluate(numbers, positions, offsets, cells, pbc)


def test_refused_models(random_model):
    from torchani.arch import simple_ani, simple_aniq

    with pytest.raises(ValueError, match='Activation GELU'):
        engine_of(random_model(2, activation='gelu'))
    with pytest.raises(ValueError, match='Cutoff function CutoffSmooth'):
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
    with pytest.raises(ValueError, match='Precision'):
        engine_of(random_model(2), 'half')
    with pytest.raises(ValueError, match='5 elements but 1'):
        AniEngine(random_model(2), np.zeros(1))


def test_active_members(random_model, flatten, molecules):
    model = random_model(4)
    every = engine_of(model).evaluate(*flatten(molecules), EVERYTHING).member_energies
    model.set_active_members([2, 0])
    some = engine_of(model).evaluate(*flatten(molecules), EVERYTHING).member_energies
    np.testing.assert_allclose(some, every[[2, 0]], atol=1e-9)


def test_memory_estimate_grows_with_the_structure(random_model, flatten):
    engine = engine_of(random_model(2))
    small, large = (Atoms(np.ones(edge**3, int), np.argwhere(np.ones((edge, edge, edge))) * 2.2) for edge in (6, 12))
    sizes = [engine.estimate_bytes(*flatten([atoms]), FORCES) for atoms in (small, large)]
    assert 8 < sizes[1] / sizes[0] < 16
    # Structures beyond one chunk are evaluated one chunk after the other.
    many = [small] * 20
    assert 3.9 * sizes[0] < engine.estimate_bytes(*flatten(many), FORCES) < 4.1 * sizes[0]
    assert engine.estimate_bytes(*flatten(many)) < engine.estimate_bytes(*flatten(many), FORCES)


@pytest.fixture(scope='module')
def published(request):
    cache = {}

    def load(folder, name):
        if name not in cache:
            family, symbols = PUBLISHED[name]
            cache[name] = load_state_dict_model(folder / f'{name}_state_dict.pt', symbols, family, 8)
        return cache[name]

    return load


def reference_structures(entry):
    structures = [Atoms(s['numbers'], s['positions']) for s in entry['structures']]
    periodic = [Atoms(s['numbers'], s['positions'], cell=s['cell'], pbc=s['pbc']) for s in entry['periodic']]
    return structures + periodic, entry['structures'] + entry['periodic']


@pytest.mark.parametrize('precision', ['single', 'double'])
@pytest.mark.parametrize('name', PUBLISHED)
def test_published_references(name, precision, published, shared_data, flatten):
    folder = shared_data / 'models' / 'torchani'
    loaded = published(folder, name)
    engine = AniEngine(loaded.model, loaded.self_energies, precision=precision)
    structures, expected = reference_structures(json.loads((folder / 'reference.json').read_text())[name])
    # The forces there carry torch's float32 alpha of celu, seen up to 4e-8 eV/angstrom.
    energy_tolerance, force_tolerance = (5e-5, 1e-4) if precision == 'single' else (1e-8, 1e-7)
    together = engine.evaluate(*flatten(structures), FORCES)
    begin = 0
    for index, (atoms, values) in enumerate(zip(structures, expected, strict=True)):
        alone = engine.evaluate(*flatten([atoms]), FORCES)
        end = begin + len(atoms)
        for energies, members, forces, stress in (
            (together.energies[index], together.member_energies[:, index], together.forces[begin:end], together.stress),
            (alone.energies[0], alone.member_energies[:, 0], alone.forces, alone.stress),
        ):
            assert energies == pytest.approx(values['energy_ev'], abs=energy_tolerance)
            np.testing.assert_allclose(forces, values['forces_ev_per_ang'], rtol=0, atol=force_tolerance)
            if 'stress_ev_per_ang3' in values:
                found = stress[index if len(stress) > 1 else 0]
                np.testing.assert_allclose(found, values['stress_ev_per_ang3'], rtol=0, atol=force_tolerance / 10)
            else:
                np.testing.assert_allclose(members, values['member_energies_ev'], rtol=0, atol=energy_tolerance)
                assert members.std(ddof=1) == pytest.approx(values['energy_std_ev_unbiased'], abs=energy_tolerance)
        begin = end


@pytest.mark.parametrize('precision', ['single', 'double'])
def test_isol24_reaction_14(precision, published, shared_data, flatten):
    """The thermochemistry tutorial of the AMS MLPotential engine with ANI-1ccx."""
    from ase.io import read

    loaded = published(shared_data / 'models' / 'torchani', 'ani1ccx')
    engine = AniEngine(loaded.model, loaded.self_energies, precision=precision)
    structures = [read(shared_data / 'molecules' / f'ISOL24_i14{side}.xyz') for side in 'ep']
    result = engine.evaluate(*flatten(structures), frozenset({'member_energies'}))
    np.testing.assert_allclose(result.energies / HARTREE_IN_EV, [-651.36347065, -651.35251657], rtol=0, atol=1e-6)
    spread = result.member_energies.std(axis=0, ddof=1) / HARTREE_IN_EV * 1000
    assert spread[0] == pytest.approx(2.128358, abs=1e-3)
    assert spread[1] * 0.6275095 == pytest.approx(1.8, abs=0.05)
