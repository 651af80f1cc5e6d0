"""Loading models of every form, and refusing hostile ones without running anything of them."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

pytest.importorskip('torch', reason='the torchani extra is not installed')

import torch

from aiida_mlpotential.worker.backends.torchani import loading
from aiida_mlpotential.worker.backends.torchani.engine import AniEngine
from aiida_mlpotential.worker.backends.torchani.flat import FlatEngine
from aiida_mlpotential.worker.backends.torchani.forward import ForwardEngine
from aiida_mlpotential.worker.backends.torchani.interop import from_torchani
from aiida_mlpotential.worker.errors import WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.units import HARTREE

FORCES = frozenset({'forces'})
#: Half of the step between two numbers in single precision at 155 hartree, and at 1.
STEP = 2.0**-17 * HARTREE


def _frames(records):
    return Frames.from_ase([Atoms(r['numbers'], positions=r['positions']) for r in records])


@pytest.mark.parametrize('together', [True, False], ids=['batched', 'alone'])
@pytest.mark.parametrize('precision', ['single', 'double'])
@pytest.mark.parametrize('file', ['custom_full_ani.pt', 'custom_sequential_idx.pt', 'custom_torchscript.pt'])
def test_reference_numbers(custom, load, custom_reference, file, precision, together):
    """The reference was computed in single precision, self energies and all: its last digit is worth 4e-4 eV."""
    backend = load(custom / file, precision=precision)
    assert isinstance(backend._engine, FlatEngine)
    frames = _frames(custom_reference)
    parts = [np.arange(len(frames))] if together else [np.array([i]) for i in range(len(frames))]
    relative = np.array([record['sequential_energy_ev_without_self_energies'] for record in custom_reference])
    for part in parts:
        result = backend.evaluate(frames.select(part), FORCES)
        forces = np.concatenate([custom_reference[i]['forces_ev_per_ang'] for i in part])
        np.testing.assert_allclose(result.forces, forces, rtol=0, atol=2e-5)
        energies = result.energies
        if 'sequential' not in file:
            full = np.array([custom_reference[i]['energy_ev'] for i in part])
            np.testing.assert_allclose(energies, full, rtol=0, atol=STEP + 1e-5)
            members = np.array([custom_reference[i]['member_energies_ev'] for i in part]).T
            np.testing.assert_allclose(result.member_energies, members, rtol=0, atol=STEP + 1e-5)
            energies = energies - backend._engine.self_energies(frames.select(part))
        np.testing.assert_allclose(energies, relative[part], rtol=0, atol=5e-6)


def test_a_model_of_the_papers_is_evaluated_by_the_engine(load, random_model, tmp_path, mixture):
    """In whichever form it was saved, with or without the dictionary around it."""
    model = random_model(2)
    expected = AniEngine(from_torchani(model), 'cpu', 'double').evaluate(mixture, FORCES)
    from torchani.nn import Sequential

    shifts = [(-0.5 - 7.3 * 'HCNOS'.index(symbol)) * HARTREE for symbol in 'HCO']
    own = (np.stack([mixture.numbers == z for z in (1, 6, 8)]) * np.array(shifts)[:, None]).sum(axis=0)
    for name, content, shifted in [
        ('full', {'model': model}, True),
        ('bare', model, True),
        ('state', model.state_dict(), True),
        ('wrapped', {'state_dict': model.state_dict()}, True),
        ('sequential', {'model': Sequential(model.aev_computer, model.neural_networks)}, False),
    ]:
        torch.save(content, tmp_path / f'{name}.pt')
        backend = load(tmp_path / f'{name}.pt', precision='double', options={'family': 'ani2x'})
        assert isinstance(backend._engine, AniEngine), name
        result = backend.evaluate(mixture, FORCES)
        missing = 0.0 if shifted else np.add.reduceat(own, mixture.offsets[:-1])
        np.testing.assert_allclose(result.energies + missing, expected.energies, rtol=0, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(result.forces, expected.forces, rtol=0, atol=1e-6, err_msg=name)
        assert backend.details().get('energies') == (None if shifted else 'relative')
        assert any('relative' in note for note in backend.notes) is not shifted


def test_another_state_dict_is_evaluated_by_torchani(load, custom, tmp_path, custom_reference):
    """One that has not the functions of the papers: as the model itself, once the user has said which they are."""
    model = torch.load(custom / 'custom_full_ani.pt', weights_only=False)['model']
    torch.save(model.state_dict(), tmp_path / 'state.pt')
    frames = _frames(custom_reference)
    with pytest.raises(WorkerError, match='cutoff_fn, activation, radial_cutoff, angular_cutoff'):
        load(tmp_path / 'state.pt')
    options = {'cutoff_fn': 'smooth', 'activation': 'gelu', 'radial_cutoff': 4.5, 'angular_cutoff': 3.5}
    backend = load(tmp_path / 'state.pt', precision='double', options=options)
    expected = load(custom / 'custom_full_ani.pt', precision='double').evaluate(frames, FORCES)
    result = backend.evaluate(frames, FORCES)
    np.testing.assert_allclose(result.energies, expected.energies, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.forces, expected.forces, rtol=0, atol=1e-9)
    assert 'smooth cutoff function, gelu: as stated' in backend.notes[0]


def test_a_shifter_that_is_off_makes_energies_relative(load, random_model, tmp_path):
    model = random_model(1)
    model.set_enabled('energy_shifter', False)
    torch.save({'model': model}, tmp_path / 'm.pt')
    backend = load(tmp_path / 'm.pt')
    assert backend.details()['energies'] == 'relative'
    assert abs(backend.evaluate(Frames.from_ase([Atoms('S')]), frozenset()).energies[0]) < 100


class Wild:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('where', ['model', 'beside'])
def test_a_pickle_that_writes_a_file_is_refused(load, random_model, tmp_path, where):
    target = tmp_path / 'written'
    content = {'model': Wild(target)} if where == 'model' else {'model': random_model(1), 'more': Wild(target)}
    torch.save(content, tmp_path / 'wild.pt')
    with pytest.raises(WorkerError, match=r'io\.open.*--trust') as caught:
        load(tmp_path / 'wild.pt')
    assert caught.value.label == 'ERROR_MODEL_UNSUPPORTED'
    assert not target.exists()
    if where == 'beside':
        backend = load(tmp_path / 'wild.pt', trusted=True)
        assert target.exists()
        assert 'trusted to run what is in it' in backend.notes[0]


def test_torch_has_the_last_word(load, random_model, tmp_path, monkeypatch):
    """Even where the names were not looked at, nothing runs that is on no list."""
    torch.save({'model': random_model(1), 'more': Wild(tmp_path / 'written')}, tmp_path / 'wild.pt')
    monkeypatch.setattr(loading, 'why_not', lambda *_: '')
    with pytest.raises(WorkerError, match='cannot be loaded') as caught:
        load(tmp_path / 'wild.pt')
    assert caught.value.label == 'ERROR_MODEL_CORRUPT'
    assert not (tmp_path / 'written').exists()


def test_a_model_with_hooks_is_refused(load, random_model, tmp_path):
    model = random_model(1)
    model.energy_shifter._forward_hooks[0] = torch.nn.GELU
    torch.save({'model': model}, tmp_path / 'hooked.pt')
    with pytest.raises(WorkerError, match='energy_shifter has _forward_hooks'):
        load(tmp_path / 'hooked.pt')


def test_a_module_without_its_tables_is_damaged(load, tmp_path):
    """A pickle may leave out what every module has; looking it over then fails inside torch."""
    linear = torch.nn.Linear(1, 1)
    del linear._modules
    torch.save({'model': linear}, tmp_path / 'bare.pt')
    with pytest.raises(WorkerError, match=r'bare\.pt cannot be loaded') as caught:
        load(tmp_path / 'bare.pt')
    assert caught.value.label == 'ERROR_MODEL_CORRUPT'


class Maps(torch.nn.Module):
    """TorchScript that maps a file into memory, writable, and changes it."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, given: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        mapped = torch.from_file(self.path, True, 4, dtype=torch.uint8)
        return given[1].sum(dim=[1, 2]) + mapped.fill_(0).sum()


def test_torchscript_that_maps_a_file_is_refused(load, tmp_path):
    target = tmp_path / 'victim'
    target.write_bytes(b'safe')
    torch.jit.save(torch.jit.script(Maps(str(target))), tmp_path / 'maps.pt')
    with pytest.raises(WorkerError, match=r'torch\.from_file.*--trust'):
        load(tmp_path / 'maps.pt', ('H',), options={'species': 'indices'})
    assert target.read_bytes() == b'safe'
    backend = load(tmp_path / 'maps.pt', ('H',), options={'species': 'indices'}, trusted=True)
    assert target.read_bytes() == b'safe'
    backend.evaluate(Frames.from_ase([Atoms('H')]), frozenset())
    assert target.read_bytes() == b'\0\0\0\0', 'the test is worth nothing if this does no harm'


def test_torch_sees_the_archive_that_was_judged(load, custom, tmp_path, custom_reference):
    """Bytes 4 to 8 make torch take a file for a flatbuffer, whatever archive the rest of it is."""
    data = bytearray((custom / 'custom_torchscript.pt').read_bytes())
    data[4:8] = b'PTMF'
    (tmp_path / 'two.pt').write_bytes(data)
    with pytest.raises(RuntimeError):
        torch.jit.load(tmp_path / 'two.pt')
    frames = _frames(custom_reference)
    expected = load(custom / 'custom_torchscript.pt').evaluate(frames, frozenset()).energies
    np.testing.assert_array_equal(load(tmp_path / 'two.pt').evaluate(frames, frozenset()).energies, expected)


class Plain(torch.nn.Module):
    """TorchScript of another make, which lists no elements."""

    def forward(self, given: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return (given[0] + 1).sum(dim=1) + 0.0 * given[1].sum(dim=[1, 2])


def test_torchscript_of_another_make_needs_to_be_explained(load, tmp_path):
    torch.jit.save(torch.jit.script(Plain()), tmp_path / 'plain.pt')
    frames = Frames.from_ase([Atoms('CO', positions=[[0, 0, 0], [1, 0, 0]]), Atoms('H')])
    with pytest.raises(WorkerError, match='state them, in the order'):
        load(tmp_path / 'plain.pt')
    with pytest.raises(WorkerError, match='state the option species'):
        load(tmp_path / 'plain.pt', ('H', 'C', 'O'))
    for species, expected in {'indices': (5, 1), 'atomic_numbers': (16, 2)}.items():
        backend = load(tmp_path / 'plain.pt', ('H', 'C', 'O'), options={'species': species}, precision='double')
        assert isinstance(backend._engine, ForwardEngine)
        # a padded row counts -1 + 1 = 0
        np.testing.assert_allclose(backend.evaluate(frames, FORCES).energies / HARTREE, expected, rtol=1e-12)
    assert 'cutoff' not in backend.details() and 'atomic_energies' not in backend.properties
    with pytest.raises(WorkerError, match='atomic_energies') as caught:
        backend.evaluate(frames, frozenset({'atomic_energies'}))
    assert caught.value.label == 'ERROR_PROPERTY_UNAVAILABLE'
    assert 'single precision' in load(tmp_path / 'plain.pt', ('H',), options={'species': 'indices'}).notes[0]


@pytest.mark.parametrize(
    ('content', 'match'),
    [({'weights': [1.0]}, 'holds a NoneType'), ({'model': 'x'}, 'holds a str'), (torch.zeros(3), 'holds a Tensor')],
)
def test_what_is_no_model_is_named(load, tmp_path, content, match):
    torch.save(content, tmp_path / 'm.pt')
    with pytest.raises(WorkerError, match=match) as caught:
        load(tmp_path / 'm.pt')
    assert caught.value.label == 'ERROR_MODEL_UNSUPPORTED'


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 but no more', b'\x80\x02.', b'hello'])
def test_a_damaged_file_is_named(load, tmp_path, content):
    (tmp_path / 'bad.pt').write_bytes(content)
    with pytest.raises(WorkerError, match=r'bad\.pt') as caught:
        load(tmp_path / 'bad.pt')
    assert caught.value.label == 'ERROR_MODEL_CORRUPT'


def test_elements_have_to_be_those_of_the_file(load, custom):
    with pytest.raises(WorkerError, match='is for H, C, O, not H, C'):
        load(custom / 'custom_full_ani.pt', ('H', 'C'))
    load(custom / 'custom_full_ani.pt', ('C', 'H', 'O'))
    with pytest.raises(WorkerError, match='in this order'):
        load(custom / 'custom_sequential_idx.pt', ('C', 'H', 'O'))
