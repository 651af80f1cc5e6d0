"""Tests of the conversion of torchani's state dicts."""

import builtins
import io
import pickle

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.torchani.convert import read_state_dict
from aiida_mlpotential.worker.backends.torchani.parameters import ParametersError
from aiida_mlpotential.worker.registry import ANI_FAMILIES, PretrainedModel

MODEL = PretrainedModel(
    name='ANI-test',
    family='ani1x',
    elements=('H',),
    ensemble_size=2,
    method='none',
    doi='10.1/x',
    licence='MIT',
    self_energies=(-0.5,),
    sha256='0' * 64,
    state_dict='anitest_state_dict.pt',
)


@pytest.fixture
def torch():
    return pytest.importorskip('torch')


@pytest.fixture
def state(torch):
    family = ANI_FAMILIES['ani1x']
    generator = torch.Generator().manual_seed(1)
    prefix = 'potentials.nnp'
    state = {
        f'{prefix}.aev_computer.radial.shifts': torch.tensor(family.radial_shifts, dtype=torch.float64),
        f'{prefix}.aev_computer.angular.shifts': torch.tensor(family.angular_shifts),
        f'{prefix}.aev_computer.angular.sections': torch.tensor(family.angular_sections),
        'energy_shifter.self_energies': torch.tensor([-0.5]),
    }
    for member in range(2):
        atomics = f'{prefix}.neural_networks.members.{member}.atomics.H'
        state[f'{atomics}.layers.0.weight'] = torch.randn(4, 48, generator=generator)
        state[f'{atomics}.layers.0.bias'] = torch.randn(4, generator=generator)
        state[f'{atomics}.final_layer.weight'] = torch.randn(1, 4, generator=generator)
        state[f'{atomics}.final_layer.bias'] = torch.randn(1, generator=generator)
    return state


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'anitest_state_dict.pt'


def test_state_dict(torch, state, path):
    torch.save(state, path)
    parameters = read_state_dict(str(path), MODEL)
    assert parameters.n_members == 2
    weight = state['potentials.nnp.neural_networks.members.1.atomics.H.layers.0.weight']
    assert np.array_equal(parameters.networks['H'][0].weight[1], weight.numpy())
    assert parameters.self_energies.tolist() == [-0.5]


def test_parameters_that_require_gradients(torch, state, path):
    torch.save({key: value.requires_grad_() for key, value in state.items()}, path)
    assert read_state_dict(path, MODEL).n_members == 2


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), 'w')


@pytest.mark.parametrize('legacy', [True, False])
def test_hostile_pickle_is_not_run(torch, path, tmp_path, legacy):
    target = tmp_path / 'pwned'
    if legacy:
        path.write_bytes(pickle.dumps({'weight': Hostile(target)}))
    else:
        torch.save({'weight': Hostile(target)}, path)
    with pytest.raises(ParametersError, match='is damaged or holds more than tensors'):
        read_state_dict(path, MODEL)
    assert not target.exists()
    if legacy:  # the fixture is hostile indeed
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert target.exists()


def test_damaged_files(torch, state, path):
    stream = io.BytesIO()
    torch.save(state, stream)
    good = stream.getvalue()
    for damaged in (b'', b'text', good[:50], good[: len(good) // 2], good[:-10], b'\0' * 1000):
        path.write_bytes(damaged)
        with pytest.raises(ParametersError, match=r'anitest_state_dict\.pt is damaged') as caught:
            read_state_dict(path, MODEL)
        assert len(str(caught.value).splitlines()) == 1


def test_missing_file(path):
    with pytest.raises(FileNotFoundError, match='there is no file'):
        read_state_dict(path, MODEL)


def test_other_content(torch, state, path):
    for other in ([1, 2], {'epoch': 3}, torch.zeros(3)):
        torch.save(other, path)
        with pytest.raises(ParametersError, match='is no state dict'):
            read_state_dict(path, MODEL)
    torch.save({'x': torch.zeros(3)}, path)
    with pytest.raises(ParametersError, match='does not hold ANI-test: the state dict has no entry'):
        read_state_dict(path, MODEL)
    key = 'potentials.nnp.neural_networks.members.0.atomics.H.layers.0.weight'
    torch.save({**state, key: torch.zeros(5, 48)}, path)
    with pytest.raises(ParametersError, match='does not hold ANI-test'):
        read_state_dict(path, MODEL)
    torch.save({**state, key: torch.zeros(4, 48, dtype=torch.bfloat16)}, path)
    with pytest.raises(ParametersError, match=r'holds a tensor of type torch\.bfloat16'):
        read_state_dict(path, MODEL)


def test_without_torch(path, monkeypatch):
    path.write_bytes(b'anything')
    real = builtins.__import__

    def fail(name, *args, **kwargs):
        if name == 'torch':
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', fail)
    with pytest.raises(ParametersError, match=r'needs torch: pip install "aiida-mlpotential\[torchani\]"'):
        read_state_dict(path, MODEL)
