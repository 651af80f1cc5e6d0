"""Evaluation without padding: torchani's own numbers, whatever a model is made of and whatever is in the batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase import Atoms

pytest.importorskip('torch', reason='the torchani extra is not installed')

import torch

from aiida_mlpotential.worker.backends.torchani.engine import AniEngine
from aiida_mlpotential.worker.backends.torchani.flat import FlatEngine
from aiida_mlpotential.worker.backends.torchani.interop import from_torchani
from aiida_mlpotential.worker.backends.torchani.models import pieces_of_ani
from aiida_mlpotential.worker.errors import FrameError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.testing import Tolerances, check_backend
from aiida_mlpotential.worker.units import HARTREE

ALL = frozenset({'forces', 'stress', 'forces_std', 'member_forces', 'atomic_energies'})
FILES = ('custom_full_ani.pt', 'custom_sequential_idx.pt', 'custom_torchscript.pt')


@pytest.fixture
def full(custom):
    return torch.load(custom / 'custom_full_ani.pt', weights_only=False)['model'].double().eval()


@pytest.mark.slow
@pytest.mark.parametrize('file', FILES)
def test_the_contract(custom, load, mixture, file):
    backend = load(custom / file, precision='double')
    assert isinstance(backend._engine, FlatEngine)
    check_backend(backend, mixture, Tolerances(energy=1e-9, forces=1e-9, stress=1e-10, step=5e-5))


def _by_torchani(model, atoms: Atoms):
    """Energies of the members, forces and stress of one structure from torchani itself, in its own way."""
    numbers = torch.tensor(atoms.numbers)[None]
    positions = torch.tensor(atoms.get_positions(wrap=bool(atoms.pbc.any())))[None].requires_grad_()
    strain = torch.eye(3, dtype=torch.float64, requires_grad=True)
    cell = {}
    if atoms.pbc.any():
        cell = {'cell': torch.tensor(atoms.cell.array) @ strain, 'pbc': torch.tensor(atoms.pbc)}
    energies = model((numbers, positions @ strain), **cell, ensemble_values=True).energies[:, 0] * HARTREE
    force, virial = torch.autograd.grad(energies.mean(), [positions, strain])
    return energies.detach().numpy(), -force[0].numpy(), virial.numpy()


def test_the_numbers_are_those_of_torchani(custom, load, mixture, full):
    """Molecules and crystals in one batch here, one by one there, in double precision."""
    chosen = mixture.select([0, 1, 2, 3, 4])
    result = load(custom / 'custom_full_ani.pt', precision='double').evaluate(chosen, ALL)
    for index, atoms in enumerate(chosen):
        energies, forces, virial = _by_torchani(full, atoms)
        part = slice(chosen.offsets[index], chosen.offsets[index + 1])
        np.testing.assert_allclose(result.member_energies[:, index], energies, rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.forces[part], forces, rtol=0, atol=1e-9)
        if atoms.pbc.all():
            np.testing.assert_allclose(result.stress[index] * atoms.get_volume(), virial, rtol=0, atol=1e-9)


def test_the_spread_of_the_forces_is_that_of_torchani(custom, load, mixture, full):
    atoms = mixture.to_ase(1)
    result = load(custom / 'custom_full_ani.pt', precision='double').evaluate(mixture.select([1]), ALL)
    given = (torch.tensor(atoms.numbers)[None], torch.tensor(atoms.positions)[None].requires_grad_())
    forces = full.members_forces(given).forces[:, 0].detach().numpy() * HARTREE
    np.testing.assert_allclose(result.forces_std, forces.std(axis=0, ddof=1), rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.member_forces, forces, rtol=0, atol=1e-9)


@pytest.mark.parametrize('file', FILES)
def test_self_energies_are_added_in_double_precision(custom, load, custom_reference, file):
    """Single precision has steps of 4e-4 eV where these energies are; only the networks may be computed in it."""
    frames = Frames.from_ase([Atoms(s['numbers'], positions=s['positions']) for s in custom_reference])
    single, double = (load(custom / file, precision=p).evaluate(frames, ALL) for p in ('single', 'double'))
    assert single.energies.min() < -4000 or 'sequential' in file
    np.testing.assert_allclose(single.energies, double.energies, rtol=0, atol=5e-6)
    np.testing.assert_allclose(single.forces, double.forces, rtol=0, atol=2e-5)


def test_a_slab_is_a_crystal_with_much_vacuum(custom, load, mixture):
    """What the cell is where nothing is periodic must not matter, not even when it is missing."""
    slab = mixture.select([5])
    cells = slab.cells.copy()
    cells[0, 2] = np.cross(cells[0, 0], cells[0, 1]) * 5
    vacuum = dataclasses.replace(slab, cells=cells, pbc=np.ones((1, 3), dtype=bool))
    cells = slab.cells.copy()
    cells[0, 2] = 0
    nothing = dataclasses.replace(slab, cells=cells)
    backend = load(custom / 'custom_full_ani.pt', precision='double')
    expected = backend.evaluate(vacuum, ALL)
    for frames in (slab, nothing):
        result = backend.evaluate(frames, ALL)
        np.testing.assert_allclose(result.energies, expected.energies, rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.forces, expected.forces, rtol=0, atol=1e-9)
        assert np.isnan(result.stress).all()


def test_the_engine_says_the_same(random_model, mixture):
    """Models of the ANI papers are evaluated by the engine, which must not make a difference."""
    fast = AniEngine(from_torchani(random_model(3)), 'cpu', 'double').evaluate(mixture, ALL)
    slow = FlatEngine(pieces_of_ani(random_model(3)).flat, 'cpu', 'double').evaluate(mixture, ALL)
    for name in ('energies', 'member_energies', 'forces', 'stress', 'forces_std', 'member_forces', 'atomic_energies'):
        np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), rtol=0, atol=1e-7, err_msg=name)


def test_pieces_of_a_batch_are_put_together(custom, load, mixture):
    backend = load(custom / 'custom_full_ani.pt', precision='double')
    whole = backend.evaluate(mixture, ALL)
    backend._engine.chunk_atoms = 7
    for name, value in dataclasses.asdict(backend.evaluate(mixture, ALL)).items():
        if value is not None:
            np.testing.assert_allclose(value, getattr(whole, name), rtol=0, atol=1e-10, err_msg=name)


def test_an_element_that_the_model_lacks_is_no_padding(custom, load):
    """torchani takes what it does not know in TorchScript for padding, and gives the energy of the rest."""
    frames = Frames.from_ase([Atoms('OHF', positions=[[0, 0, 0], [1, 0, 0], [0, 1, 0]])])
    for file in FILES:
        with pytest.raises(ValueError, match='atomic number 9'):
            load(custom / file).evaluate(frames, frozenset())


def test_a_frame_without_atoms_is_refused(custom, load):
    with pytest.raises(ValueError, match='at least one atom'):
        load(custom / FILES[0]).evaluate(Frames.from_ase([Atoms()]), frozenset())


def test_periodic_structures_need_a_cutoff(full, mixture):
    full.potentials['nnp'].cutoff = float('inf')
    engine = FlatEngine(pieces_of_ani(full).flat)
    with pytest.raises(FrameError, match='without a cutoff'):
        engine.evaluate(mixture.select([4]))


def test_memory_is_estimated_from_what_will_be_built(custom, load, mixture):
    engine = load(custom / FILES[0])._engine
    one = engine.estimate_bytes(mixture.select([4]))
    assert 0 < one < engine.estimate_bytes(mixture.select([4]), ALL)
    copies = Frames.from_ase([mixture.to_ase(4).repeat(k) for k in (2,)])
    assert engine.estimate_bytes(copies) == pytest.approx(8 * one, rel=0.05)
