"""The table of families is sound; each family is evaluated with the real package, where that is installed."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import chemical_symbols

from aiida_mlpotential.worker.backends import BACKENDS, get_backend
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.backends.families import FAMILIES
from aiida_mlpotential.worker.errors import FrameError, FrameStatus, WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.quantities import PROPERTIES
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.testing import Tolerances, check_backend

#: For models in single precision: forces are compared with differences of energies of seven digits.
SINGLE = Tolerances(energy=1e-4, forces=1e-4, stress=1e-5, derivative=5e-3, step=2e-3, hessian=0.05, hessian_step=2e-3)


def _needs(name):
    module = FAMILIES[name].calculator.partition('.')[0]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f'{FAMILIES[name].distribution} is not installed here')


def _load(name, directory, file='', precision='single', **options):
    files = {file: '0' * 64} if file else {}
    spec = ModelSpec('m', name, '0' * 64, files=files, trusted=bool(file), options=options)
    return get_backend(name).load(spec, directory, Settings(device='cpu', precision=precision, num_threads=1))


@pytest.mark.parametrize('name', FAMILIES)
def test_rows_are_complete(name):
    row = FAMILIES[name]
    assert row.title and row.distribution and row.files and row.help and row.device_argument and row.model_argument
    module, _, cls = row.calculator.rpartition('.')
    assert module and cls.isidentifier()
    assert not row.model_loader or row.model_loader.count(':') == 1, 'so that the module is not guessed'
    assert row.model_loader or not row.device_to_loader
    assert row.properties <= set(PROPERTIES)
    assert set(row.elements or ()) <= set(chemical_symbols)


@pytest.mark.parametrize('name', FAMILIES)
def test_every_family_is_a_backend(name):
    entry = BACKENDS[name]
    assert (entry.family, entry.cls) == (FAMILIES[name], 'AseBackend')
    assert FAMILIES[name].properties < entry.properties
    assert entry.precisions == FAMILIES[name].precisions


def test_precisions_follow_from_the_arguments():
    assert FAMILIES['mace'].precisions == ('single', 'double')
    assert FAMILIES['chgnet'].precisions == ('single',)


def test_the_elements_of_chgnet():
    elements = FAMILIES['chgnet'].elements
    assert len(elements) == len(set(elements)) == 89
    assert set(chemical_symbols[1:95]) - set(elements) == {'Po', 'At', 'Rn', 'Fr', 'Ra'}


@pytest.mark.parametrize('name', FAMILIES)
def test_arguments_are_those_of_the_package(name):
    _needs(name)
    row = FAMILIES[name]
    module, _, cls = row.calculator.rpartition('.')
    calculator = getattr(importlib.import_module(module), cls)
    arguments = set(inspect.signature(calculator).parameters)
    if row.device_to_loader:
        assert row.device_argument in inspect.signature(pkgutil.resolve_name(row.model_loader)).parameters
    else:
        assert row.device_argument in arguments
    wanted = {row.model_argument, row.precision_argument, *row.kwargs} - {''}
    assert wanted <= arguments


@pytest.fixture
def crystals():
    """Return rattled crystals of two sizes, a slab and a molecule without a cell."""
    random = np.random.default_rng(1)
    slab = bulk('Cu', cubic=True)
    slab.center(vacuum=4, axis=2)
    slab.pbc = [True, True, False]
    salt = bulk('NaCl', 'rocksalt', a=5.6)
    structures = [salt, salt * (2, 1, 1), slab, molecule('CH3OH')]
    for atoms in structures:
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
    return structures


@pytest.fixture
def waters():
    """Return rattled molecules, a crystal and a layer of hydrogen, carbon and oxygen."""
    random = np.random.default_rng(1)
    crystal = Atoms(cell=np.diag([5.0, 5.5, 6.0]) + 0.3, pbc=True)
    crystal += molecule('H2O')
    layer = crystal.copy()
    layer.pbc = [True, True, False]
    structures = [molecule('H2O'), molecule('CH3CH2OH'), molecule('CO2'), crystal, layer]
    for atoms in structures:
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
    return structures


def _compare(backend, calculator, structures, limit=0.0):
    """Compare with the package's own calculator, a new one asked for one thing after the other."""
    frames = Frames.from_ase(structures)
    result = backend.evaluate(frames, frozenset(backend.properties - {'energy'}))
    for index, atoms in enumerate(structures):
        atoms = atoms.copy()
        atoms.calc = calculator
        rows = slice(frames.offsets[index], frames.offsets[index + 1])
        assert result.energies[index] == pytest.approx(float(atoms.get_potential_energy()), abs=limit)
        np.testing.assert_allclose(result.forces[rows], atoms.get_forces(), atol=limit, rtol=0)
        if atoms.pbc.all():
            np.testing.assert_allclose(result.stress[index], atoms.get_stress(voigt=False), atol=limit, rtol=0)
        if result.charges is not None:
            np.testing.assert_allclose(result.charges[rows], atoms.get_charges(), atol=limit, rtol=0)
        if result.atomic_energies is not None:
            assert result.atomic_energies[rows].sum() == pytest.approx(result.energies[index], abs=max(limit, 1e-5))


# CHGNet, whose parameters are in its package.


def test_chgnet_keeps_the_contract(crystals, tmp_path):
    _needs('chgnet')
    backend = _load('chgnet', tmp_path)
    assert backend.properties >= {'forces', 'stress', 'atomic_energies'}
    check_backend(backend, Frames.from_ase(crystals), SINGLE)


def test_chgnet_is_what_its_calculator_says(crystals, tmp_path):
    _needs('chgnet')
    from chgnet.model.dynamics import CHGNetCalculator

    crystals[3].cell = np.eye(3) * 20  # its own calculator fails on a molecule without a cell
    _compare(_load('chgnet', tmp_path), CHGNetCalculator(use_device='cpu'), crystals, limit=2e-6)


def test_chgnet_from_a_file(crystals, tmp_path):
    _needs('chgnet')
    import torch
    from chgnet.model.model import CHGNet

    model = CHGNet.load(use_device='cpu', verbose=False)
    with torch.no_grad():
        model.composition_model.fc.weight += 1.0  # another model: 1 eV an atom above the published one
    torch.save({'model': model.as_dict()}, tmp_path / 'own.pth.tar')
    frames = Frames.from_ase(crystals[:2])
    published, own = (
        _load('chgnet', tmp_path, file).evaluate(frames, frozenset()).energies for file in ('', 'own.pth.tar')
    )
    np.testing.assert_allclose(own - published, frames.counts, atol=1e-4)


def test_chgnet_fails_where_it_would_only_warn(tmp_path):
    _needs('chgnet')
    backend = _load('chgnet', tmp_path)
    with pytest.raises(FrameError, match='isolated'):
        backend.evaluate(Frames.from_ase([Atoms('Cu', cell=np.eye(3) * 30, pbc=True)]), frozenset())
    with pytest.raises(FrameError, match='contains Po') as caught:
        backend.evaluate(Frames.from_ase([bulk('Po', 'sc', a=3.3)]), frozenset())
    assert caught.value.status == FrameStatus.UNSUPPORTED_ELEMENT


# SevenNet, whose parameters are in its package.


def test_sevennet_keeps_the_contract(crystals, tmp_path):
    _needs('sevennet')
    check_backend(_load('sevennet', tmp_path), Frames.from_ase(crystals), SINGLE)


def test_sevennet_is_what_its_calculator_says(crystals, tmp_path):
    _needs('sevennet')
    from sevenn.calculator import SevenNetCalculator

    _compare(_load('sevennet', tmp_path), SevenNetCalculator(device='cpu'), crystals, limit=2e-6)


def test_sevennet_from_a_file(crystals, tmp_path):
    _needs('sevennet')
    import sevenn._const as paths
    from sevenn.calculator import SevenNetCalculator

    shutil.copy(paths.SEVENNET_l3i5, tmp_path / 'own.pth')
    _compare(_load('sevennet', tmp_path, 'own.pth'), SevenNetCalculator('7net-l3i5', device='cpu'), crystals, 2e-6)
    published = _load('sevennet', tmp_path).evaluate(Frames.from_ase(crystals), frozenset()).energies
    own = _load('sevennet', tmp_path, 'own.pth').evaluate(Frames.from_ase(crystals), frozenset()).energies
    assert (np.abs(own - published) > 1e-3).all()


# MACE and AIMNet2, with random parameters: theirs are not in the packages.


@pytest.fixture
def mace_file(tmp_path):
    """Write a tiny MACE with random parameters, under a name that is a pattern of file names."""
    _needs('mace')
    importlib.import_module('mace')  # it lets torch read what e3nn has pickled
    import torch
    from e3nn.o3 import Irreps
    from mace.modules import ScaleShiftMACE, interaction_classes

    block = interaction_classes['RealAgnosticResidualInteractionBlock']
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    try:
        model = ScaleShiftMACE(
            r_max=4.0,
            num_bessel=4,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=2,
            num_elements=3,
            hidden_irreps=Irreps('4x0e + 4x1o'),
            MLP_irreps=Irreps('4x0e'),
            atomic_energies=np.array([-13.6, -1030.0, -2040.0]),
            avg_num_neighbors=4.0,
            atomic_numbers=[1, 6, 8],
            correlation=2,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        )
        torch.save(model, tmp_path / 'a[1].model')
    finally:
        torch.set_default_dtype(before)
    return 'a[1].model'


def test_mace_keeps_the_contract(waters, mace_file, tmp_path):
    backend = _load('mace', tmp_path, mace_file, precision='double')
    assert (backend.precision, backend.device) == ('double', 'cpu')
    check_backend(backend, Frames.from_ase(waters))


def test_mace_is_what_its_calculator_says(waters, mace_file, tmp_path):
    from mace.calculators import MACECalculator

    calculator = MACECalculator([str(tmp_path / mace_file)], device='cpu', default_dtype='float64')
    _compare(_load('mace', tmp_path, mace_file, precision='double'), calculator, waters, limit=1e-9)


def test_mace_in_single_precision(waters, mace_file, tmp_path):
    frames = Frames.from_ase(waters)
    single, double = (
        _load('mace', tmp_path, mace_file, precision=precision).evaluate(frames, frozenset({'forces'}))
        for precision in ('single', 'double')
    )
    difference = np.abs(single.energies - double.energies)
    assert (difference > 0).any(), 'the parameter has no effect'
    assert difference.max() < 5e-3  # seven digits of 5000 eV
    np.testing.assert_allclose(single.forces, double.forces, atol=1e-4)


def test_mace_says_which_element_it_does_not_know(mace_file, tmp_path):
    with pytest.raises(FrameError, match='29'):
        _load('mace', tmp_path, mace_file).evaluate(Frames.from_ase([bulk('Cu')]), frozenset())


@pytest.fixture
def aimnet2_file(tmp_path):
    """Write a tiny AIMNet2 with random parameters."""
    _needs('aimnet2')
    import torch
    import yaml
    from aimnet.config import build_module

    torch.manual_seed(0)
    network = {'activation_fn': 'torch.nn.GELU', 'last_linear': True, 'hidden': [8]}
    output = {'n_in': 8, 'n_out': 1, 'key_in': 'aim', 'key_out': 'energy', 'mlp': network}
    arguments = {
        'nfeature': 4,
        'd2features': True,
        'ncomb_v': 3,
        'hidden': [[16, 8], [16, 8], [16, 8, 8]],
        'aim_size': 8,
        'aev': {'rc_s': 4.0, 'nshifts_s': 4},
        'outputs': {
            'energy_mlp': {'class': 'aimnet.modules.Output', 'kwargs': output},
            'atomic_sum': {'class': 'aimnet.modules.AtomicSum', 'kwargs': {'key_in': 'energy', 'key_out': 'energy'}},
        },
    }
    text = yaml.safe_dump({'class': 'aimnet.models.AIMNet2', 'kwargs': arguments}, sort_keys=False)
    content = {
        'format_version': 2,
        'model_yaml': text,
        'state_dict': build_module(yaml.safe_load(text)).state_dict(),
        'cutoff': 4.0,
        'needs_coulomb': False,
        'needs_dispersion': False,
        'coulomb_mode': 'none',
        'implemented_species': [1, 6, 8],
    }
    torch.save(content, tmp_path / 'tiny.pt')
    return 'tiny.pt'


def test_aimnet2_keeps_the_contract(waters, aimnet2_file, tmp_path):
    backend = _load('aimnet2', tmp_path, aimnet2_file)
    assert backend.properties == {'energy', 'forces', 'stress', 'charges'}
    check_backend(backend, Frames.from_ase(waters), SINGLE)


def test_aimnet2_is_what_its_calculator_says(waters, aimnet2_file, tmp_path):
    from aimnet.calculators import AIMNet2ASE, AIMNet2Calculator

    calculator = AIMNet2ASE(AIMNet2Calculator(str(tmp_path / aimnet2_file), device='cpu'))
    _compare(_load('aimnet2', tmp_path, aimnet2_file), calculator, waters, limit=1e-6)


def test_aimnet2_with_a_charge(waters, aimnet2_file, tmp_path):
    frames = Frames.from_ase(waters[:2])
    for charge in (0, 1):
        backend = _load('aimnet2', tmp_path, aimnet2_file, kwargs={'charge': charge})
        charges = backend.evaluate(frames, frozenset({'charges'})).charges
        np.testing.assert_allclose(np.add.reduceat(charges, frames.offsets[:-1]), charge, atol=1e-3)


@pytest.mark.parametrize('name', ['mace', 'aimnet2'])
def test_no_parameters_are_fetched_behind_the_users_back(name, tmp_path):
    with pytest.raises(WorkerError, match='give the parameter file'):
        _load(name, tmp_path)
