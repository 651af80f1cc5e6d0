"""Protocols: names for sets of inputs, read from YAML files, over which the overrides of a user win."""

from __future__ import annotations

import pytest
import yaml
from aiida import orm
from aiida.engine import ProcessBuilder
from ase.build import bulk

from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.parameters import validate_parameters
from aiida_mlpotential.workflows.protocol import fill, merge
from aiida_mlpotential.workflows.tasks import (
    GeometryOptimizationBaseWorkChain,
    SinglePointBaseWorkChain,
    ThermochemistryBaseWorkChain,
    VibrationsBaseWorkChain,
)

CHAINS = (
    SinglePointBaseWorkChain,
    GeometryOptimizationBaseWorkChain,
    VibrationsBaseWorkChain,
    ThermochemistryBaseWorkChain,
)
NAMES = ('fast', 'balanced', 'precise')


@pytest.fixture
def structures(aiida_profile):
    return StructureSetData.from_ase([bulk('Cu')]).store()


@pytest.fixture
def make(python_code, emt_model, structures):
    def function(chain=SinglePointBaseWorkChain, structures=structures, **inputs):
        return chain.get_builder_from_protocol(python_code, emt_model, structures, **inputs)

    return function


@pytest.mark.parametrize('chain', CHAINS)
def test_the_protocols(chain):
    protocols = chain.get_available_protocols()
    assert tuple(protocols) == NAMES
    assert all(text.endswith('.') for text in protocols.values())
    assert chain.get_default_protocol() == 'balanced'
    assert chain.get_protocol_inputs() == chain.get_protocol_inputs('balanced')


@pytest.mark.parametrize('protocol', NAMES)
@pytest.mark.parametrize('chain', CHAINS)
def test_every_protocol_makes_valid_inputs(chain, protocol):
    parameters = chain.get_protocol_inputs(protocol)['calc']['parameters']
    assert validate_parameters(parameters, chain._process_class.TASK) is None


@pytest.mark.parametrize('chain', CHAINS)
def test_protocols_differ(chain):
    texts = {yaml.safe_dump(chain.get_protocol_inputs(name)) for name in NAMES}
    assert len(texts) == len(NAMES)


def test_an_unknown_protocol():
    with pytest.raises(ValueError, match="there is no protocol 'best': choose one of fast, balanced, precise"):
        SinglePointBaseWorkChain.get_protocol_inputs('best')


def test_the_builder(make, structures):
    builder = make()
    assert isinstance(builder, ProcessBuilder)
    assert builder.process_class is SinglePointBaseWorkChain
    assert builder.calc.structures.pk == structures.pk
    assert isinstance(builder.calc.parameters, orm.Dict)


def test_a_code_by_its_label(emt_model, structures, python_code):
    python_code.label = f'python-{python_code.pk}'
    builder = SinglePointBaseWorkChain.get_builder_from_protocol(python_code.full_label, emt_model, structures)
    assert builder.calc.code.pk == python_code.pk


def test_one_structure(make):
    structure = orm.StructureData(ase=bulk('Cu'))
    builder = make(structures=structure)
    assert builder.calc.structure is structure
    assert builder.calc.get('structures') is None


def test_overrides_win(make):
    overrides = {'max_iterations': 2, 'allow_cpu': False, 'calc': {'parameters': {'num_threads': 1}}}
    builder = make(overrides=overrides)
    assert builder.max_iterations.value == 2
    assert builder.allow_cpu is False
    parameters = builder.calc.parameters.get_dict()
    assert (parameters['num_threads'], parameters['precision']) == (1, 'single')


def test_options_are_those_of_the_job(make):
    options = {
        'max_wallclock_seconds': 600,
        'queue_name': 'gpu',
        'resources': {'num_machines': 1, 'num_cores_per_mpiproc': 4},
        'prepend_text': 'module load cuda',
        'environment_variables': {'A': '1'},
    }
    found = make(options=options).calc.metadata.options
    assert {name: found[name] for name in options} == options


@pytest.mark.parametrize('overrides', [{'calk': {}}, {'calc': {'metadata': {'options': {'walltime': 5}}}}])
def test_an_unknown_input(make, overrides):
    with pytest.raises(ValueError, match=r"there is no input '(calk|walltime)': choose one of "):
        make(overrides=overrides)


def test_a_model_without_members_is_not_asked_for_a_spread(make):
    assert 'forces_std' not in make(protocol='precise').calc.parameters['properties']
    inputs = SinglePointBaseWorkChain.get_protocol_inputs('precise')
    assert 'forces_std' in inputs['calc']['parameters']['properties']


def test_merging_changes_neither():
    base, changes = {'a': {'b': 1, 'c': [1]}}, {'a': {'b': 2}, 'd': 3}
    assert merge(base, changes) == {'a': {'b': 2, 'c': [1]}, 'd': 3}
    assert (base, changes) == ({'a': {'b': 1, 'c': [1]}}, {'a': {'b': 2}, 'd': 3})


def test_fill_keeps_nodes(aiida_profile):
    builder, node = SinglePointBaseWorkChain.get_builder(), orm.Int(3)
    fill(builder, {'max_iterations': node})
    assert builder.max_iterations is node
