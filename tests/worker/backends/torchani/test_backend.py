"""The TorchANI backend: published numbers, whatever else is in the batch, and a named error for what cannot be."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

pytest.importorskip('torch', reason='the torchani extra is not installed')

from aiida_mlpotential.worker.backends import get_backend
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.backends.torchani import TorchAniBackend, networks
from aiida_mlpotential.worker.backends.torchani import backend as module
from aiida_mlpotential.worker.backends.torchani.convert import read_state_dict
from aiida_mlpotential.worker.backends.torchani.interop import from_torchani
from aiida_mlpotential.worker.errors import FrameStatus, OutOfMemory, WorkerError
from aiida_mlpotential.worker.frames import Frames, sha256_of
from aiida_mlpotential.worker.registry import PRETRAINED
from aiida_mlpotential.worker.schema import FRAMES_FILE, JOB_FILE, RESULTS_FILE, JobSpec, ModelSpec
from aiida_mlpotential.worker.testing import Tolerances, check_backend
from aiida_mlpotential.worker.units import BOHR, ENERGY_UNITS

KEYS = {'ANI-1x': 'ani1x', 'ANI-1ccx': 'ani1ccx', 'ANI-2x': 'ani2x'}
#: Quantities in the unit of forces.
FORCES = ('forces', 'forces_std', 'member_forces')


def _load(directory: Path, name='ANI-1ccx', **settings):
    entry = PRETRAINED[name]
    file = f'model/{entry.file}'
    spec = ModelSpec(
        name, 'torchani', entry.sha256, {file: entry.sha256}, entry.elements, entry.ensemble_size, 'Hartree'
    )
    return get_backend('torchani').load(spec, directory, Settings(**{'device': 'cpu', **settings}))


@pytest.fixture(scope='session')
def published(shared_data, tmp_path_factory) -> Path:
    """Return a work directory with the canonical parameters of all published models."""
    directory = tmp_path_factory.mktemp('published')
    (directory / 'model').mkdir()
    for model in PRETRAINED.values():
        parameters = read_state_dict(shared_data / 'models' / 'torchani' / model.state_dict, model)
        parameters.write(directory / 'model' / model.file)
    return directory


@pytest.fixture
def random_weights(random_model, tmp_path) -> Path:
    """Return a work directory with two members of random weights under the name of a published model."""
    (tmp_path / 'model').mkdir()
    parameters = from_torchani(random_model(2, PRETRAINED['ANI-1ccx'].elements))
    parameters.write(tmp_path / 'model' / PRETRAINED['ANI-1ccx'].file)
    return tmp_path


@pytest.fixture(scope='session')
def reference(shared_data) -> dict:
    """Return energies and derivatives that torchani gave in double precision."""
    return json.loads((shared_data / 'models' / 'torchani' / 'reference.json').read_text())


def test_the_published_parameters_have_the_registered_hashes(published):
    for model in PRETRAINED.values():
        assert sha256_of(published / 'model' / model.file) == model.sha256


@pytest.mark.parametrize(('precision', 'energy', 'force'), [('single', 5e-5, 1e-4), ('double', 1e-8, 1e-8)])
@pytest.mark.parametrize('together', [True, False], ids=['batched', 'alone'])
@pytest.mark.parametrize('name', KEYS)
def test_published_numbers(published, reference, name, precision, energy, force, together):
    expected = reference[KEYS[name]]
    records = [*expected['structures'], *expected['periodic']]
    structures = [Atoms(r['numbers'], positions=r['positions'], cell=r.get('cell'), pbc='cell' in r) for r in records]
    frames = Frames.from_ase(structures)
    backend = _load(published, name, precision=precision)
    request = frozenset({'forces', 'stress'})
    parts = [np.arange(len(frames))] if together else [np.array([i]) for i in range(len(frames))]
    for part in parts:
        chosen = frames.select(part)
        result = backend.evaluate(chosen, request)
        for position, index in enumerate(part):
            record = records[index]
            atoms = slice(chosen.offsets[position], chosen.offsets[position + 1])
            assert result.energies[position] == pytest.approx(record['energy_ev'], rel=0, abs=energy)
            np.testing.assert_allclose(result.forces[atoms], record['forces_ev_per_ang'], rtol=0, atol=force)
            if 'member_energies_ev' in record:
                members = result.member_energies[:, position]
                np.testing.assert_allclose(members, record['member_energies_ev'], rtol=0, atol=energy)
            if 'energy_std_ev_unbiased' in record:
                std = np.std(result.member_energies[:, position], ddof=1)
                assert std == pytest.approx(record['energy_std_ev_unbiased'], rel=0, abs=energy)
            if 'cell' in record:
                stress = next(value for key, value in record.items() if key.startswith('stress'))
                np.testing.assert_allclose(result.stress[position], stress, rtol=0, atol=force / 100)


def _mixture() -> Frames:
    """Return molecules, an atom and a crystal."""
    random = np.random.default_rng(6)
    water = Atoms('OH2', positions=[[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
    structures = [water.copy(), Atoms('CH3OH', positions=random.normal(scale=1.6, size=(6, 3))), Atoms('N')]
    crystal = water.copy()
    crystal.set_cell([[3.1, 0, 0], [0.7, 3.3, 0], [0.2, 0.4, 3.0]])
    crystal.pbc = True
    structures.append(crystal)
    for atoms in structures:
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
    return Frames.from_ase(structures)


@pytest.mark.parametrize('name', ['ANI-1ccx', 'ANI-2x'])
def test_published_models_keep_the_contract(published, name):
    check_backend(
        _load(published, name, precision='double'), _mixture(), Tolerances(energy=1e-8, forces=1e-7, derivative=1e-4)
    )


def test_random_weights_keep_the_contract(random_weights, monkeypatch):
    monkeypatch.setattr(networks, 'TORCH_SLOPE', 1.0)  # large forces show torch's rounding of the slope
    limits = Tolerances(energy=1e-8, forces=1e-7, derivative=1e-3)
    check_backend(_load(random_weights, precision='double'), _mixture(), limits)


def _frames(atoms=3):
    return Frames.from_ase([Atoms(f'H{atoms}', positions=np.arange(3 * atoms).reshape(-1, 3))])


def test_a_missing_gpu_is_an_error(random_weights, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(WorkerError, match='device_fallback') as caught:
        _load(random_weights, device='cuda:0')
    assert caught.value.label == 'ERROR_DEVICE_MISSING'


def test_a_missing_gpu_is_replaced_if_that_is_allowed(random_weights, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    backend = _load(random_weights, device='cuda', device_fallback=True)
    assert backend.device == 'cpu'
    assert 'computed on the CPU' in backend.notes[0]


def test_a_gpu_beyond_those_there_is_an_error(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert module.choose_device(Settings(device='cuda:1'))[0] == 'cuda:1'
    assert module.choose_device(Settings(device=''))[0] == 'cuda'
    assert module.choose_device(Settings(device='cpu'))[0] == 'cpu'
    with pytest.raises(WorkerError, match='there are 2 GPUs'):
        module.choose_device(Settings(device='cuda:2'))


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 but no more', b'\x80\x04.'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'ani1ccx.npz').write_bytes(content)
    with pytest.raises(WorkerError, match=r'ani1ccx\.npz') as caught:
        _load(tmp_path)
    assert caught.value.label == 'ERROR_MODEL_CORRUPT'


def test_parameters_for_other_elements_are_refused(random_weights):
    entry = PRETRAINED['ANI-1ccx']
    spec = ModelSpec('m', 'torchani', entry.sha256, {f'model/{entry.file}': entry.sha256}, ('H', 'C'), 8, 'Hartree')
    with pytest.raises(WorkerError, match='not H, C'):
        get_backend('torchani').load(spec, random_weights, Settings(device='cpu'))


@pytest.mark.parametrize('unit', list(ENERGY_UNITS))
def test_other_energy_units_scale_the_results(custom, load, random_weights, mixture, unit):
    """Exactly: for the engine and for torchani's own evaluation."""
    factor = ENERGY_UNITS[unit] / ENERGY_UNITS['Hartree']
    request = TorchAniBackend.properties - {'energy'} | {'member_forces'}
    for path in (custom / 'custom_full_ani.pt', random_weights / 'model' / PRETRAINED['ANI-1ccx'].file):
        expected, scaled = (load(path, energy_unit=name).evaluate(mixture, request) for name in ('Hartree', unit))
        for name in ('energies', 'member_energies', 'stress', 'atomic_energies', *FORCES):
            np.testing.assert_allclose(
                getattr(scaled, name), factor * getattr(expected, name), rtol=1e-14, err_msg=name
            )


def test_other_distance_units_scale_the_structure(custom, load, random_weights, mixture):
    """A model in bohr sees the same numbers where the structure is larger by as much; its cutoff is meant so too."""
    request = TorchAniBackend.properties - {'energy'} | {'member_forces'}
    larger = dataclasses.replace(mixture, positions=mixture.positions * BOHR, cells=mixture.cells * BOHR)
    for path in (custom / 'custom_full_ani.pt', random_weights / 'model' / PRETRAINED['ANI-1ccx'].file):
        plain, bohr = (load(path, distance_unit=unit, precision='double') for unit in ('angstrom', 'bohr'))
        expected, result = plain.evaluate(mixture, request), bohr.evaluate(larger, request)
        for name, power in {'energies': 0, 'atomic_energies': 0, **dict.fromkeys(FORCES, 1), 'stress': 3}.items():
            np.testing.assert_allclose(
                getattr(result, name), getattr(expected, name) / BOHR**power, rtol=1e-7, atol=1e-9, err_msg=name
            )
        assert bohr.details()['cutoff'] == pytest.approx(plain.details()['cutoff'] * BOHR)


def test_hessians_are_in_our_units(custom, load, random_weights, mixture):
    larger = dataclasses.replace(mixture, positions=mixture.positions * BOHR, cells=mixture.cells * BOHR)
    for path in (custom / 'custom_full_ani.pt', random_weights / 'model' / PRETRAINED['ANI-1ccx'].file):
        plain = load(path, precision='double')
        bohr = load(path, distance_unit='bohr', energy_unit='eV', precision='double')
        expected = plain.hessians(mixture) / ENERGY_UNITS['Hartree'] / BOHR**2
        np.testing.assert_allclose(bohr.hessians(larger), expected, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(bohr.member_hessians(larger).mean(axis=0), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize('method', ['hessians', 'member_hessians'])
def test_out_of_memory_for_hessians_is_recognised(random_weights, monkeypatch, method):
    def fail(*arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    backend = _load(random_weights)
    monkeypatch.setattr(backend._engine, 'hessians', fail)
    with pytest.raises(OutOfMemory):
        getattr(backend, method)(_frames())


@pytest.mark.slow
def test_a_model_in_bohr_keeps_the_contract(custom, load, mixture):
    backend = load(custom / 'custom_full_ani.pt', distance_unit='bohr', energy_unit='kcal/mol', precision='double')
    larger = dataclasses.replace(mixture, positions=mixture.positions * BOHR, cells=mixture.cells * BOHR)
    check_backend(backend, larger, Tolerances(derivative=1e-4, step=3e-5))


@pytest.mark.parametrize('name', KEYS)
def test_published_atomic_energies(published, reference, name):
    expected = [record for record in reference[KEYS[name]]['structures'] if 'atomic_energies_ev' in record]
    assert expected
    frames = Frames.from_ase([Atoms(record['numbers'], positions=record['positions']) for record in expected])
    for precision, limit in {'single': 5e-6, 'double': 1e-8}.items():
        result = _load(published, name, precision=precision).evaluate(frames, frozenset({'atomic_energies'}))
        found = np.split(result.atomic_energies, frames.offsets[1:-1])
        for record, atomic in zip(expected, found, strict=True):
            np.testing.assert_allclose(atomic, record['atomic_energies_ev'], rtol=0, atol=limit)
        sums = np.add.reduceat(result.atomic_energies, frames.offsets[:-1])
        np.testing.assert_allclose(sums, result.energies, rtol=1e-15 * 32, atol=0)


def test_a_model_is_one_file(random_weights):
    spec = ModelSpec('m', 'torchani', '', {'model/a.pt': '', 'model/b.pt': ''})
    with pytest.raises(WorkerError, match='is one file, m has 2'):
        get_backend('torchani').load(spec, random_weights, Settings(device='cpu'))


def test_a_custom_model_needs_torchani(custom, load, random_weights, monkeypatch):
    """The canonical file does not; the error says what to do."""
    monkeypatch.setitem(sys.modules, 'torchani', None)
    _load(random_weights)
    with pytest.raises(WorkerError, match='backends install torchani') as caught:
        load(custom / 'custom_full_ani.pt')
    assert caught.value.label == 'ERROR_BACKEND_MISSING'


def test_a_model_without_self_energies_says_so(custom, load, random_model, tmp_path):
    parameters = from_torchani(random_model(1))
    path = tmp_path / 'relative.npz'
    dataclasses.replace(parameters, self_energies=np.zeros(5)).write(path)
    for backend in (load(path), load(custom / 'custom_sequential_idx.pt')):
        assert backend.details()['energies'] == 'relative'
        assert 'energies are relative: the model has no self energies' in backend.notes
    assert 'energies' not in load(custom / 'custom_full_ani.pt').details()


def test_inspect_reads_the_file(custom):
    assert get_backend('torchani').inspect(custom / 'custom_full_ani.pt').elements == ('H', 'C', 'O')


def test_single_precision_holds_where_there_is_nothing_to_see(published):
    """Isolated atoms and molecules, where only the biases of the networks speak: as good as torchani's own float32."""
    hydrogen = [[20.0 * i + x, 0, 0] for i in range(100) for x in (0.0, 0.74)]
    structures = [Atoms('H'), Atoms('H2', positions=[[0, 0, 0], [6, 0, 0]]), Atoms('H200', positions=hydrogen)]
    frames = Frames.from_ase(structures)
    single, double = (
        _load(published, 'ANI-2x', precision=p).evaluate(frames, frozenset()) for p in ('single', 'double')
    )
    difference = np.abs(single.member_energies - double.member_energies).max(axis=0) / frames.counts
    assert (difference < 5e-6).all()


def test_the_threads_are_those_asked_for(random_weights):
    assert _load(random_weights, num_threads=1).num_threads == 1


@pytest.mark.parametrize('text', ["DefaultCPUAllocator: can't allocate memory", 'CUDA out of memory. Tried'])
def test_out_of_memory_is_recognised(random_weights, monkeypatch, text):
    def fail(*_):
        raise RuntimeError(text)

    backend = _load(random_weights)
    monkeypatch.setattr(backend._engine, 'evaluate', fail)
    with pytest.raises(OutOfMemory):
        backend.evaluate(_frames(), frozenset())


def test_a_batch_beyond_the_memory_is_not_tried(random_weights, monkeypatch):
    backend = _load(random_weights)
    monkeypatch.setattr(module, '_LARGE', 2)
    monkeypatch.setattr(module, 'available_memory', lambda: 1)
    with pytest.raises(OutOfMemory, match='MB are needed'):
        backend.evaluate(_frames(), frozenset())


def test_frames_of_the_same_elements_are_neighbours(random_weights):
    frames = Frames.from_ase([Atoms(symbols) for symbols in ('H2', 'CO', 'H3', 'OC', 'H2CO')])
    keys = _load(random_weights).batch_key(frames)
    assert keys[0] == keys[2] and keys[1] == keys[3]
    assert len(set(keys.tolist())) == 3


def test_the_defaults_say_what_they_are(random_weights):
    backend = _load(random_weights)
    assert dataclasses.asdict(Settings())['precision'] == 'single'
    assert (backend.precision, backend.n_members, backend.details()['cutoff']) == ('single', 2, 5.1)


@pytest.mark.slow
def test_a_structure_that_does_not_fit_costs_no_other(published, tmp_path):
    """5184 atoms need 0.9 GB, the limit leaves 0.4 beside the libraries: as a process of its own, as on a node."""
    water = molecule('H2O')
    sites = np.argwhere(np.ones((12, 12, 12))) * 3.1
    large = Atoms('OH2' * len(sites), positions=(sites[:, None] + water.positions).reshape(-1, 3))
    entry = PRETRAINED['ANI-1ccx']
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    frames = Frames.from_ase([molecule('CH4'), large, molecule('C6H6')])
    frames.write(tmp_path / FRAMES_FILE)
    file = f'model/{entry.file}'
    spec = ModelSpec('ANI-1ccx', 'torchani', entry.sha256, {file: entry.sha256}, entry.elements, 8, 'Hartree')
    parameters = {'memory_limit': 750, 'num_threads': 2, 'device': 'cpu'}
    job = JobSpec('single_point', spec, parameters, sha256_of(tmp_path / FRAMES_FILE))
    (tmp_path / JOB_FILE).write_text(job.to_json())
    subprocess.run([sys.executable, '-m', 'aiida_mlpotential.worker'], cwd=tmp_path, check=True, capture_output=True)
    info = json.loads((tmp_path / RESULTS_FILE).read_text())
    assert info['counts'] == {'total': 3, 'ok': 2, 'failed': 1, 'pending': 0}
    assert info['messages']['1'].startswith('5184 atoms do not fit in memory')
    assert np.load(tmp_path / 'arrays' / 'status.npy').tolist() == [0, FrameStatus.OUT_OF_MEMORY, 0]
