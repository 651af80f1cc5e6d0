"""Which networks and parameters are let through to Keras; needs no library."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.backends.pinn.networks import NETWORKS, check_network, elements_of


@pytest.mark.parametrize(
    ('name', 'parameters', 'elements'),
    [
        ('PiNet', {'atom_types': [1, 8], 'rc': 4.5, 'depth': 2, 'act': 'softplus'}, ('H', 'O')),
        ('PiNet', {}, ('H', 'C', 'N', 'O')),
        ('PiNet2', {'atom_types': [8, 1], 'rank': 5, 'weighted': True, 'center': None, 'out_extra': {}}, ('O', 'H')),
        ('BPNN', {'sf_spec': [{'type': 'G2', 'i': 'ALL', 'j': 1}], 'nn_spec': {8: [4], 1: [4]}}, ('O', 'H')),
        ('LJ', {'rc': 3.0, 'sigma': 1.0}, None),
    ],
)
def test_networks_that_can_be_used(name, parameters, elements):
    assert check_network(name, parameters) is None
    assert elements_of(name, parameters) == elements


@pytest.mark.parametrize(
    ('name', 'parameters', 'words'),
    [
        ('SchNet', {}, 'none of PiNet'),
        ('PiNet', {'rank': 3}, 'no parameter rank'),
        ('PiNet', {'out_units': 3}, 'other than one energy'),
        ('PiNet', {'out_pool': 'sum'}, 'other than one energy'),
        ('PiNet2', {'out_extra': {'i3': 1}}, 'other than one energy'),
        ('PiNet', {'depth': 10**9}, 'depth'),
        ('PiNet', {'depth': True}, 'depth'),
        ('PiNet', {'atom_types': [1, 1]}, 'each once'),
        ('PiNet', {'atom_types': ['H']}, 'each once'),
        ('PiNet', {'atom_types': []}, 'each once'),
        ('PiNet', {'atom_types': [[1]]}, 'each once'),
        ('PiNet', {'atom_types': 6}, 'each once'),
        ('BPNN', {'nn_spec': {'H': [4]}}, 'each once'),
        ('BPNN', {}, 'each once'),
    ],
)
def test_networks_that_cannot(name, parameters, words):
    assert words in check_network(name, parameters)


@pytest.mark.parametrize(
    'value',
    [{'class_name': 'Lambda', 'config': {}}, 'get', 'deserialize', 'Custom>Layer', ['tanh'], None],
    ids=lambda value: str(value)[:20],
)
def test_keras_makes_no_object_of_an_activation(value):
    assert 'activation' in check_network('PiNet', {'act': value})


@pytest.mark.parametrize('value', ['os.system', 'a b', [[[[[[[[1]]]]]]]], {'class_name': 'a>b'}, (1,), {'x': object()}])
def test_only_plain_values_pass(value):
    assert 'only numbers, words' in check_network('PiNet', {'gamma': value})


def test_every_network_of_pinn_is_known(libraries):
    import inspect

    from pinn.networks import bpnn, lj, pinet, pinet2

    found = {'PiNet': pinet.PiNet, 'PiNet2': pinet2.PiNet2, 'BPNN': bpnn.BPNN, 'LJ': lj.LJ}
    assert set(found) == set(NETWORKS)
    for name, cls in found.items():
        arguments = inspect.signature(cls.__init__).parameters
        assert set(arguments) - {'self'} == set(NETWORKS[name].arguments), name
        assert arguments['rc'].default == NETWORKS[name].cutoff
