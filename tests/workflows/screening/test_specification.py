"""Inputs and outputs of the screening, as builders and ``verdi plugin list`` show them."""

from __future__ import annotations

import pytest
from aiida import orm

from aiida_mlpotential.data.merged import MergedResultsData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.workflows.screening.chain import ScreeningWorkChain

#: Inputs of every process of AiiDA.
OF_AIIDA = {'metadata'}


@pytest.fixture(scope='module')
def spec():
    return ScreeningWorkChain.spec()


def ports(namespace, prefix=''):
    """Return all ports by their full names, but those of AiiDA."""
    found = {}
    for name, port in namespace.items():
        if prefix or name not in OF_AIIDA:
            found[prefix + name] = port
            if hasattr(port, 'items'):
                found.update(ports(port, f'{prefix}{name}.'))
    return found


def test_inputs_are_these(spec):
    assert set(ports(spec.inputs)) == {
        'structures', 'models', 'code', 'codes', 'parameters', 'optimization', 'optimization.parameters',
        'optimization.model', 'slice_size', 'max_qbc', 'n_selected', 'max_iterations', 'max_concurrent', 'options',
        'allow_cpu', 'reuse', 'stage_model',
    }  # fmt: skip


def test_every_port_has_a_sentence(spec):
    for name, port in {**ports(spec.inputs), **ports(spec.outputs)}.items():
        assert port.help and port.help.endswith('.'), name


def test_structures_and_models_are_all_that_must_be_given(spec):
    """A code is needed, too: for all models, or for each."""
    required = {name for name, port in ports(spec.inputs).items() if port.required and not port.has_default()}
    assert required == {'structures', 'models', 'optimization.parameters'}
    assert not spec.inputs['optimization'].required


def test_defaults(spec):
    values = spec.inputs.pre_process({})
    assert {name: values[name] for name in ('options', 'allow_cpu', 'reuse')} == {
        'options': {},
        'allow_cpu': True,
        'reuse': True,
    }
    assert values['max_concurrent'].value == 4
    assert not values.get('optimization'), 'nothing is optimized that nobody asked to'


def test_what_changes_no_results_is_no_node(spec):
    """Screenings with other options are the same to the cache."""
    non_db = {name for name, port in ports(spec.inputs).items() if getattr(port, 'non_db', False)}
    assert non_db == {'options', 'allow_cpu', 'reuse', 'stage_model'}


def test_builders_take_plain_values(emt_model):
    builder = ScreeningWorkChain.get_builder()
    builder.slice_size, builder.max_qbc, builder.n_selected = 100, 0.01, 5
    builder.parameters = {'properties': ['energy']}
    builder.optimization = {'parameters': {}, 'model': 'emt'}
    builder.models = {'emt': emt_model}
    assert (builder.slice_size.value, builder.max_qbc.value, builder.n_selected.value) == (100, 0.01, 5)
    assert isinstance(builder.slice_size, orm.Int)
    assert builder.parameters.get_dict() == {'properties': ['energy']}
    assert builder.optimization.model.value == 'emt'


@pytest.mark.parametrize('name', ['slice_size', 'max_qbc', 'n_selected', 'max_iterations', 'max_concurrent'])
@pytest.mark.parametrize('value', [0, -1])
def test_numbers_are_above_zero(spec, name, value):
    port = spec.inputs[name]
    message = port.validate(orm.Float(value) if name == 'max_qbc' else orm.Int(value)).message
    assert f'{name} is {value}' in message
    assert 'give a number above 0' in message
    assert port.validate(orm.Float(0.5) if name == 'max_qbc' else orm.Int(1)) is None


def test_parameters_are_those_of_single_points(spec):
    port = spec.inputs['parameters']
    assert port.validate(orm.Dict({'properties': ['energy']})) is None
    assert "did you mean 'properties'" in port.validate(orm.Dict({'propertys': ['energy']})).message
    assert 'force_tolerance' in port.validate(orm.Dict({'force_tolerance': 1e-3})).message


def test_outputs_are_these(spec):
    assert set(ports(spec.outputs)) == {'results', 'ranking', 'summary', 'output_structures', 'selected_structures'}
    assert spec.outputs['results'].valid_type is MergedResultsData
    assert spec.outputs['selected_structures'].valid_type is StructureSetData
    assert not any(port.required for name, port in ports(spec.outputs).items() if name != 'results')
