"""Tests of the canonical ANI parameters."""

import dataclasses
import io
import zipfile

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.torchani.parameters import AniParameters, Layer, ParametersError
from aiida_mlpotential.worker.frames import sha256_of, write_npz
from aiida_mlpotential.worker.registry import ANI_FAMILIES, PRETRAINED, PretrainedModel

#: Two members, two elements, networks of 128 -> 4 -> 1.
MODEL = PretrainedModel(
    name='ANI-test',
    family='ani1x',
    elements=('H', 'C'),
    ensemble_size=2,
    method='none',
    doi='10.1/x',
    licence='MIT',
    self_energies=(-0.5, -38.0),
    sha256='0' * 64,
    state_dict='anitest_state_dict.pt',
    wheel_directory='torchani/resources/ani-test',
)


def make_parameters(seed=1):
    rng = np.random.default_rng(seed)
    networks = {
        symbol: [
            Layer(rng.normal(size=(2, width, inputs)).astype('f4'), rng.normal(size=(2, width)).astype('f4'))
            for inputs, width in ((128, 4), (4, 1))
        ]
        for symbol in MODEL.elements
    }
    return AniParameters(MODEL.elements, ANI_FAMILIES['ani1x'], np.array(MODEL.self_energies), networks)


def make_state(parameters):
    """Return the parameters as torchani names them."""
    family = parameters.family
    state = {
        'potentials.nnp.aev_computer.radial.shifts': np.array(family.radial_shifts),
        'potentials.nnp.aev_computer.angular.shifts': np.array(family.angular_shifts),
        'potentials.nnp.aev_computer.angular.sections': np.array(family.angular_sections),
        'energy_shifter.self_energies': parameters.self_energies.astype('f4'),
    }
    for symbol, layers in parameters.networks.items():
        for entry, layer in zip(('layers.0', 'final_layer'), layers, strict=True):
            for member in range(2):
                prefix = f'potentials.nnp.neural_networks.members.{member}.atomics.{symbol}.{entry}'
                state[f'{prefix}.weight'] = layer.weight[member]
                state[f'{prefix}.bias'] = layer.bias[member]
    return state


def content(parameters):
    stream = io.BytesIO()
    parameters.write(stream)
    return stream.getvalue()


@pytest.fixture
def parameters():
    return make_parameters()


def test_written_file_is_read_back_and_reproducible(parameters, tmp_path):
    path = tmp_path / 'x.npz'
    parameters.write(path)
    again = AniParameters.read(path)
    assert again.symbols == ('H', 'C')
    assert again.family == parameters.family
    assert again.n_members == 2
    assert again.n_features == 128
    assert np.array_equal(again.self_energies, parameters.self_energies)
    assert np.array_equal(again.networks['C'][1].weight, parameters.networks['C'][1].weight)
    assert content(again) == content(parameters) == path.read_bytes()
    assert content(make_parameters(2)) != content(parameters)
    with zipfile.ZipFile(path) as archive:  # compressed bytes would depend on the version of zlib
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_sources_give_the_same_bytes(parameters, tmp_path):
    from_state = AniParameters.from_state_dict(make_state(parameters), MODEL)
    for symbol, layers in parameters.networks.items():
        for index, layer in enumerate(layers, start=1):
            for member in range(2):
                directory = tmp_path / f'train{member}' / 'networks'
                directory.mkdir(parents=True, exist_ok=True)
                layer.weight[member].tofile(directory / f'ANN-{symbol}.nnf-l{index}.wparam')
                layer.bias[member].tofile(directory / f'ANN-{symbol}.nnf-l{index}.bparam')
    from_files = AniParameters.from_neurochem(tmp_path, MODEL)
    assert content(from_state) == content(from_files) == content(parameters)


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('energy_shifter.self_energies', np.array([-0.5, -39.0]), 'the self energies of the file are not those'),
        ('potentials.nnp.aev_computer.radial.shifts', np.zeros(16), 'the radial shifts of the file are not those'),
        ('potentials.nnp.aev_computer.angular.sections', np.zeros(3), 'the angular sections of the file'),
        ('potentials.nnp.aev_computer.angular.shifts', None, 'the state dict has no entry'),
        ('potentials.nnp.neural_networks.members.1.atomics.C.final_layer.bias', None, 'the state dict has no entry'),
        (
            'potentials.nnp.neural_networks.members.0.atomics.H.layers.0.bias',
            np.full(4, np.nan, dtype='f4'),
            'layer 0 of H has a weight that is not finite',
        ),
    ],
)
def test_state_dict_of_another_model(parameters, key, value, message):
    state = make_state(parameters)
    if value is None:
        del state[key]
    else:
        state[key] = value
    with pytest.raises(ParametersError, match=message):
        AniParameters.from_state_dict(state, MODEL)


def test_inconsistent_parameters_are_refused(parameters):
    layers = parameters.networks['H']
    cases = [
        ({'networks': {'H': layers}}, r"networks for \['H'\], expected \['C', 'H'\]"),
        ({'self_energies': np.zeros(3)}, r'\(3,\) self energies for 2 elements'),
        ({'networks': {'H': layers[1:], 'C': layers}}, 'layer 0 of H has weights'),
        ({'networks': {'H': layers[:1], 'C': layers}}, 'the last layer of H has 4 outputs'),
        ({'symbols': (), 'networks': {}}, 'networks for'),
    ]
    for change, message in cases:
        with pytest.raises(ParametersError, match=message):
            dataclasses.replace(parameters, **change)


def test_damaged_files(parameters, tmp_path):
    good = content(parameters)
    for damaged in (b'', b'text', good[:100], good[: len(good) // 2], good[:-30]):
        with pytest.raises(ParametersError, match='not an ANI parameter file'):
            AniParameters.read(io.BytesIO(damaged))
    with pytest.raises(FileNotFoundError):
        AniParameters.read(tmp_path / 'absent.npz')


def test_wrong_members(parameters):
    stream = io.BytesIO()
    write_npz(stream, {'symbols': np.array(['H']), 'something': np.zeros(3)})
    stream.seek(0)
    with pytest.raises(ParametersError, match='not an ANI parameter file: KeyError'):
        AniParameters.read(stream)


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_object_arrays_are_never_unpickled(tmp_path):
    path = tmp_path / 'hostile.npz'
    np.savez(path, symbols=np.array([Hostile(tmp_path / 'pwned')], dtype=object))
    with pytest.raises(ParametersError, match='not an ANI parameter file: ValueError'):
        AniParameters.read(path)
    assert not (tmp_path / 'pwned').exists()


@pytest.mark.parametrize('name', sorted(PRETRAINED))
def test_registry_hashes(name, shared_data, tmp_path):
    """The published parameters are those that the registry names."""
    pytest.importorskip('torch')
    from aiida_mlpotential.worker.backends.torchani.convert import read_state_dict

    model = PRETRAINED[name]
    read_state_dict(shared_data / 'models' / 'torchani' / model.state_dict, model).write(tmp_path / model.file)
    assert sha256_of(tmp_path / model.file) == model.sha256
