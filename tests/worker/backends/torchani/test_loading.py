"""State dict files: good ones are read exactly, all others are refused in one sentence and never run."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.torchani.loading import SELF_ENERGIES_KEY, load_state_dict_model

torch = pytest.importorskip('torch')
pytest.importorskip('torchani')

SYMBOLS = ('H', 'C', 'N', 'O')
ENERGIES = [-0.600952980000001, -38.08316124000002, -54.70775770000003, -75.19446356000004]


@pytest.fixture(scope='module')
def state():
    from torchani.arch import Assembler

    torch.manual_seed(1)
    assembler = Assembler()
    assembler.set_symbols(SYMBOLS)
    assembler.set_atomic_networks(ctor='ani1x')
    assembler.set_global_cutoff_fn('cosine')
    assembler.set_aev_computer(angular='ani1x', radial='ani1x')
    assembler.set_zeros_as_self_energies()
    content = dict(assembler.assemble(2).state_dict())
    content[SELF_ENERGIES_KEY] = torch.tensor(ENERGIES, dtype=torch.float64)
    return content


def load(path, symbols=SYMBOLS, family='ani1x', members=2):
    return load_state_dict_model(path, symbols, family, members)


def refused(path, match, **options):
    with pytest.raises(ValueError, match=match) as caught:
        load(path, **options)
    message = str(caught.value)
    assert '\n' not in message
    assert len(message) < 250
    assert message.endswith('.')


def test_round_trip(state, tmp_path):
    torch.save(state, tmp_path / 'model.pt')
    loaded = load(tmp_path / 'model.pt')
    assert loaded.self_energies.dtype == np.float64
    assert loaded.self_energies.tolist() == ENERGIES
    assert loaded.model.energy_shifter.self_energies.tolist() == ENERGIES
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.model.symbols == SYMBOLS
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, state[name].to(tensor.dtype)), name


def test_double_constants_survive(state, tmp_path):
    name = 'potentials.nnp.aev_computer.radial.shifts'
    shifts = state[name].double() + 1e-12
    torch.save({**state, name: shifts}, tmp_path / 'model.pt')
    assert torch.equal(load(tmp_path / 'model.pt').model.aev_computer.radial.shifts, shifts)


def test_single_member(state, tmp_path):
    single = {name.replace('members.0.', ''): value for name, value in state.items() if 'members.1.' not in name}
    torch.save(single, tmp_path / 'model.pt')
    assert load(tmp_path / 'model.pt', members=1).self_energies.tolist() == ENERGIES


@pytest.mark.parametrize('fraction', [0.0, 0.01, 0.5, 0.99])
def test_truncated(state, tmp_path, fraction):
    torch.save(state, tmp_path / 'whole.pt')
    content = (tmp_path / 'whole.pt').read_bytes()
    (tmp_path / 'model.pt').write_bytes(content[: int(fraction * len(content))])
    refused(tmp_path / 'model.pt', 'damaged')


def test_flipped_bytes(state, tmp_path):
    """Wherever a byte is wrong, the file is either refused or gives tensors of the right shape, never a traceback."""
    torch.save(state, tmp_path / 'whole.pt')
    content = bytearray((tmp_path / 'whole.pt').read_bytes())
    random = np.random.default_rng(0)
    refusals = 0
    for position in [*random.integers(0, 3000, 15), *random.integers(len(content) - 3000, len(content), 15)]:
        damaged = content.copy()
        damaged[position] ^= 0x55
        (tmp_path / 'model.pt').write_bytes(damaged)
        try:
            load(tmp_path / 'model.pt')
        except ValueError as error:
            assert '\n' not in str(error)
            refusals += 1
    assert refusals > 0


def test_text(tmp_path):
    (tmp_path / 'model.pt').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\n')
    refused(tmp_path / 'model.pt', 'damaged')


def test_absent(tmp_path):
    refused(tmp_path / 'model.pt', 'cannot be read')


class Hostile:
    """Makes a directory when it is unpickled."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize('legacy', [False, True, 'plain pickle'])
def test_hostile_pickle_is_not_run(tmp_path, legacy):
    content = {'atomic_numbers': Hostile(str(tmp_path / 'executed'))}
    if legacy == 'plain pickle':
        (tmp_path / 'model.pt').write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / 'model.pt', _use_new_zipfile_serialization=not legacy)
    refused(tmp_path / 'model.pt', 'not loaded|damaged')
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize('content', [[1, 2], {}, {'a': 1}, {1: torch.zeros(1)}, torch.zeros(3)])
def test_other_content(tmp_path, content):
    torch.save(content, tmp_path / 'model.pt')
    refused(tmp_path / 'model.pt', 'state dict')


def test_other_models(state, tmp_path):
    torch.save(state, tmp_path / 'model.pt')
    refused(tmp_path / 'model.pt', 'lacks', members=3)
    refused(tmp_path / 'model.pt', 'unexpected', members=1)
    refused(tmp_path / 'model.pt', 'shape', family='ani2x')
    refused(tmp_path / 'model.pt', 'order', symbols=('H', 'C', 'O', 'N'))
    refused(tmp_path / 'model.pt', 'no element', symbols=('H', 'C', 'N', 'Qq'))
    refused(tmp_path / 'model.pt', 'each of them once', symbols=('H', 'C', 'N', 'H'))
    refused(tmp_path / 'model.pt', 'each of them once', symbols=())
    refused(tmp_path / 'model.pt', 'unknown', family='ani3x')
    refused(tmp_path / 'model.pt', 'at least one', members=0)


def test_bad_tensors(state, tmp_path):
    name = 'potentials.nnp.neural_networks.members.1.atomics.O.layers.1.weight'
    torch.save({**state, name: state[name][:-1]}, tmp_path / 'model.pt')
    refused(tmp_path / 'model.pt', r'layers\.1\.weight of shape')
    broken = state[name].clone()
    broken[3, 4] = float('nan')
    torch.save({**state, name: broken}, tmp_path / 'model.pt')
    refused(tmp_path / 'model.pt', 'finite')
    torch.save({key: value for key, value in state.items() if key != SELF_ENERGIES_KEY}, tmp_path / 'model.pt')
    refused(tmp_path / 'model.pt', 'lacks')


def test_no_network(state, tmp_path, monkeypatch):
    import socket

    def refuse(*_args, **_options):
        raise AssertionError('loading a file opened a connection')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    torch.save(state, tmp_path / 'model.pt')
    load(tmp_path / 'model.pt')


@pytest.mark.parametrize(
    ('name', 'family', 'symbols'),
    [
        ('ani1x', 'ani1x', SYMBOLS),
        ('ani1ccx', 'ani1x', SYMBOLS),
        ('ani2x', 'ani2x', (*SYMBOLS, 'S', 'F', 'Cl')),
    ],
)
def test_published_files(name, family, symbols, shared_data):
    loaded = load(shared_data / 'models' / 'torchani' / f'{name}_state_dict.pt', symbols, family, 8)
    assert len(loaded.model) == 8
    assert -0.61 < loaded.self_energies[0] < -0.59
