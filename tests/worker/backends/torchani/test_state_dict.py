"""State dicts: of today's torchani and of older ones, complete or to be completed, never guessed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.torchani.parameters import ParametersError
from aiida_mlpotential.worker.backends.torchani.state_dict import looks_like_state_dict, read_own_ani, stored_elements
from aiida_mlpotential.worker.registry import ANI_FAMILIES

FAMILY = ANI_FAMILIES['ani2x']
STATED = {'cutoff_fn': 'smooth', 'activation': 'gelu', 'radial_cutoff': 4.5, 'angular_cutoff': 3.0}
SECOND = 'potentials.nnp.neural_networks.members.1.atomics'
WIDTHS = {'H': (256, 192, 160), 'C': (224, 192, 160)}


def _constants(prefix='potentials.nnp.aev_computer.'):
    names = ('radial.eta', 'radial.shifts', 'angular.eta', 'angular.zeta', 'angular.shifts', 'angular.sections')
    return {prefix + name: np.atleast_1d(getattr(FAMILY, name.replace('.', '_'))).astype('f4') for name in names}


def _state(widths=None, members=2, bias=True, form='potentials.nnp.neural_networks.members.{m}.atomics.{s}'):
    """A state dict with random weights, its elements in the order C, H to see that no order is assumed."""
    random = np.random.default_rng(1)
    state = _constants()
    for member in range(members):
        for symbol in ('C', 'H'):
            sizes = (128, *(widths or {'H': (6, 5), 'C': (7, 4)})[symbol], 1)
            for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
                layer = 'final_layer' if index == len(sizes) - 2 else f'layers.{index}'
                name = f'{form.format(m=member, s=symbol)}.{layer}'
                state[f'{name}.weight'] = random.normal(size=(outputs, inputs)).astype('f4')
                if bias:
                    state[f'{name}.bias'] = random.normal(size=outputs).astype('f4')
    return state


def test_what_is_stated_completes_it():
    own = read_own_ani(_state(), options=STATED)
    assert own.parameters.symbols == ('C', 'H') and own.parameters.n_members == 2
    assert (own.cutoff_fn, own.activation, own.canonical) == ('smooth', 'gelu', False)
    assert (own.parameters.family.radial_cutoff, own.parameters.family.angular_cutoff) == (4.5, 3.0)
    assert own.parameters.family.radial_shifts == pytest.approx(FAMILY.radial_shifts)
    assert not own.parameters.self_energies.any()
    assert own.remark.endswith('as stated')


def test_a_family_stated_is_enough_where_the_constants_are_its_own():
    own = read_own_ani(_state(), options={'family': 'ani2x'})
    assert own.canonical and own.parameters.family.radial_cutoff == FAMILY.radial_cutoff
    for family in ('ani1x', 'ani3x'):
        with pytest.raises(ParametersError, match=f'not those of the family {family}'):
            read_own_ani(_state(), options={'family': family})


def test_nothing_is_guessed_from_the_constants_alone():
    """Constants of ANI-2x with other layers, or without biases, are as likely to go with GELU and a smooth cutoff."""
    with pytest.raises(ParametersError, match='does not say its cutoff_fn, activation'):
        read_own_ani(_state())
    with pytest.raises(ParametersError, match='does not say its cutoff_fn, activation'):
        read_own_ani(_state(WIDTHS, bias=False))
    own = read_own_ani(_state(WIDTHS))
    assert own.canonical and 'taken from ani2x' in own.remark
    other = {**_state(WIDTHS), 'potentials.nnp.aev_computer.radial.eta': np.array([19.0])}
    with pytest.raises(ParametersError, match='cutoff_fn, activation, radial_cutoff, angular_cutoff'):
        read_own_ani(other)


def test_the_published_layers_are_those_of_the_published_files(shared_data):
    torch = pytest.importorskip('torch', reason='the torchani extra is not installed')
    for name in ('ani1x', 'ani2x'):
        state = torch.load(shared_data / 'models' / 'torchani' / f'{name}_state_dict.pt', weights_only=True)
        own = read_own_ani({key: value.numpy() for key, value in state.items()})
        assert own.canonical and f'taken from {name}' in own.remark


def test_names_of_older_torchani():
    """Constants of other names and shapes, layers numbered with the activations between them."""
    old = {'radial.eta': 'EtaR', 'radial.shifts': 'ShfR', 'angular.eta': 'EtaA', 'angular.zeta': 'Zeta'}
    old |= {'angular.shifts': 'ShfA', 'angular.sections': 'ShfZ'}
    new = _state()
    state = {}
    for name, value in new.items():
        if 'aev_computer' in name:
            state[f'aev_computer.{old[".".join(name.split(".")[-2:])]}'] = value.reshape(1, 1, -1)
            continue
        parts = name.split('.')
        member, symbol, kind = parts[4], parts[6], parts[-1]
        layer = 4 if 'final_layer' in name else 2 * int(parts[-2])
        state[f'neural_networks.{member}.{symbol}.{layer}.{kind}'] = value
    state['aev_computer.default_cell'] = np.eye(3)
    one, two = read_own_ani(state, options=STATED).parameters, read_own_ani(new, options=STATED).parameters
    assert one.symbols == two.symbols and one.n_members == 2
    for symbol in one.symbols:
        for left, right in zip(one.networks[symbol], two.networks[symbol], strict=True):
            np.testing.assert_array_equal(left.weight, right.weight)
            np.testing.assert_array_equal(left.bias, right.bias)


def test_numbered_networks_need_the_elements():
    state = {name.replace('.C.', '.0.').replace('.H.', '.1.'): value for name, value in _state().items()}
    assert stored_elements(state) == (None, 2, False)
    with pytest.raises(ParametersError, match='state the elements in the order'):
        read_own_ani(state, options=STATED)
    assert read_own_ani(state, ('O', 'H'), STATED).parameters.symbols == ('O', 'H')
    with pytest.raises(ParametersError, match='3 were stated'):
        read_own_ani(state, ('O', 'H', 'C'), STATED)


def test_atomic_numbers_give_the_order():
    state = {'atomic_numbers': np.array([1, 6]), 'energy_shifter.self_energies': np.array([-0.5, -38.0]), **_state()}
    assert stored_elements(state) == (('H', 'C'), 2, True)
    parameters = read_own_ani(state, options=STATED).parameters
    assert parameters.symbols == ('H', 'C') and parameters.self_energies.tolist() == [-0.5, -38.0]
    with pytest.raises(ParametersError, match='networks for C, H, but atomic numbers of H, O'):
        read_own_ani({**state, 'atomic_numbers': np.array([1, 8])}, options=STATED)


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'potentials.repulsion_xtb.y_ab': np.ones((2, 2))}, 'y_ab is no parameter'),
        ({'other.radial.eta': np.ones(1)}, 'same constant of two descriptors'),
        ({'potentials.nnp.aev_computer.radial.eta': np.ones(2)}, 'several values of eta'),
        ({'shared.layers.0.weight': np.ones((2, 2))}, 'not the network of an element'),
        ({'nets.H.conv.weight': np.ones((2, 2))}, 'no layer of an ANI network'),
        (
            {f'{SECOND}.H.layers.0.weight': np.ones((9, 128), 'f4')},
            'different shapes',
        ),
        (
            {f'{SECOND}.O.layers.0.weight': np.ones((9, 128))},
            'different elements',
        ),
        ({f'{SECOND}.H.layers.7.weight': np.ones((9, 128))}, 'layers, expected'),
    ],
)
def test_what_does_not_fit_is_refused(change, match):
    with pytest.raises(ParametersError, match=match):
        read_own_ani({**_state(), **change}, options=STATED)


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        ({'cutoff_fn': 'sharp'}, 'unknown cutoff function'),
        ({'activation': 'relu'}, 'unknown cutoff function or activation'),
        ({'radial_cutoff': 'far'}, 'have to be numbers'),
        ({'radial_cutoff': 2.0}, 'has to lie between'),
    ],
)
def test_wrong_options_are_refused(options, match):
    with pytest.raises(ParametersError, match=match):
        read_own_ani(_state(), options={**STATED, **options})


def test_half_a_model_is_refused():
    constants = _constants()
    assert looks_like_state_dict(list(constants))
    assert not looks_like_state_dict(['model', 'epoch'])
    with pytest.raises(ParametersError, match='lacks constants of the descriptor or networks'):
        read_own_ani(constants, options=STATED)
    with pytest.raises(ParametersError, match='are for C, H, not H, O'):
        read_own_ani(_state(), ('H', 'O'), STATED)
