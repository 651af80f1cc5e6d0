"""Every workflow that users find by its name has a builder from a protocol, whose inputs AiiDA takes as they are."""

from __future__ import annotations

import importlib.metadata

import pytest
from aiida import orm
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.plugins import WorkflowFactory
from ase import Atoms

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData

#: Started by the screening only, which makes its inputs.
_INNER = 'mlpotential.screening.lane'
NAMES = sorted(
    point.name
    for point in importlib.metadata.entry_points(group='aiida.workflows')
    if point.name.startswith('mlpotential.') and point.name != _INNER
)
PROTOCOLS = ('fast', 'balanced', 'precise')


@pytest.fixture
def model(request, aiida_profile, tmp_path, file_facts):
    """Return a model that nobody runs, with members or without."""
    paths = [tmp_path / 'one.pt', tmp_path / 'two.pt']
    for path in paths:
        path.write_bytes(path.name.encode())
    if getattr(request, 'param', 'ensemble') == 'ensemble':
        made = ModelData.from_members(paths, backend='torchani', elements=['H', 'O'])
    else:
        made = ModelData.from_file(paths[0], backend='torchani', elements=['H', 'O'])
    return made.get_or_store()


def _molecules():
    return {
        'water': orm.StructureData(ase=Atoms('OH2', [[0, 0, 0], [0, 0.76, 0.6], [0, -0.76, 0.6]])),
        'hydrogen': orm.StructureData(ase=Atoms('H2', [[0, 0, 0], [0, 0, 0.74]])),
        'oxygen': orm.StructureData(ase=Atoms('O2', [[0, 0, 0], [0, 0, 1.21]])),
    }


@pytest.fixture
def make(python_code, model):
    """Return a function that makes the builder of a workflow."""

    def function(name, *arguments, single=False, **keywords):
        chain, molecules = WorkflowFactory(name), _molecules()
        if name == 'mlpotential.reaction':
            subject = (molecules, {'hydrogen': -2, 'oxygen': -1, 'water': 2})
        elif single:
            subject = (molecules['water'],)
        else:
            subject = (StructureSetData.from_ase([item.get_ase() for item in molecules.values()]),)
        return chain.get_builder_from_protocol(python_code, model, *subject, *arguments, **keywords)

    return function


def _stages(builder):
    """Return the parameters of every job by the namespace that they stand in."""
    if 'calc' in builder:
        return {'calc': builder.calc.parameters.get_dict()}
    if 'parameters' in builder:
        optimization = builder.optimization.get('parameters') if 'optimization' in builder else None
        found = {'parameters': builder.parameters, 'optimization': optimization}
        return {name: node.get_dict() for name, node in found.items() if node is not None}
    return {name: builder[name].calc.parameters.get_dict() for name in ('optimization', 'thermochemistry')}


def _changes(name, parameters):
    """Return overrides for the parameters of the first job of a workflow."""
    if name == 'mlpotential.screening':
        return {'parameters': parameters}
    if name.endswith('.base'):
        return {'calc': {'parameters': parameters}}
    return {'thermochemistry': {'calc': {'parameters': parameters}}}


def _changed(builder):
    stages = _stages(builder)
    return next(stages[name] for name in ('parameters', 'calc', 'thermochemistry') if name in stages)


def test_every_workflow_is_here():
    assert len(NAMES) == 7


@pytest.mark.parametrize('model', ['ensemble', 'one network'], indirect=True)
@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('name', NAMES)
def test_aiida_takes_the_inputs(make, name, protocol):
    chain = WorkflowFactory(name)
    assert tuple(chain.get_available_protocols()) == PROTOCOLS
    builder = make(name, protocol)
    assert builder.process_class is chain
    assert instantiate_process(get_manager().get_runner(), builder).inputs
    assert all(_stages(builder).values())


@pytest.mark.parametrize('name', [name for name in NAMES if name.split('.')[1] not in ('screening', 'reaction')])
def test_one_structure(make, name):
    builder = make(name, single=True)
    namespace = builder.calc if 'calc' in builder else builder
    assert namespace.structure.get_formula() == 'H2O'
    assert instantiate_process(get_manager().get_runner(), builder)


@pytest.mark.parametrize('name', NAMES)
def test_the_default_is_balanced(make, name):
    assert _stages(make(name)) == _stages(make(name, 'balanced'))


@pytest.mark.parametrize('name', NAMES)
def test_an_override_wins_and_leaves_the_rest_alone(make, name):
    before, after = make(name, 'precise'), make(name, 'precise', _changes(name, {'num_threads': 3}))
    assert _changed(after) == {**_changed(before), 'num_threads': 3}
    assert _stages(after).get('optimization') == _stages(before).get('optimization')
    assert instantiate_process(get_manager().get_runner(), after)


@pytest.mark.parametrize('model', ['ensemble', 'one network'], indirect=True)
@pytest.mark.parametrize('name', NAMES)
def test_an_override_may_be_a_node(make, name):
    """As it is: a copy would have lost where it comes from."""
    node = orm.Dict({'num_threads': 2}).store()
    builder = make(name, overrides=_changes(name, node))
    found = builder.parameters if name == 'mlpotential.screening' else None
    if found is None:
        found = (builder.calc if name.endswith('.base') else builder.thermochemistry.calc).parameters
    assert found.get_dict() == {'num_threads': 2}
    assert found.uuid == node.uuid


@pytest.mark.parametrize('name', [name for name in NAMES if name.endswith('.base')])
def test_a_folder_to_go_on_from(make, name, localhost):
    folder = orm.RemoteData(computer=localhost, remote_path='/nowhere').store()
    builder = make(name, overrides={'calc': {'parent_folder': folder}})
    assert builder.calc.parent_folder.uuid == folder.uuid


@pytest.mark.parametrize('protocol', ['best', 'Fast', 7])
@pytest.mark.parametrize('name', NAMES)
def test_an_unknown_protocol(make, name, protocol):
    with pytest.raises(ValueError, match=f'there is no protocol {protocol!r}: choose one of fast, balanced, precise'):
        make(name, protocol)


@pytest.mark.parametrize('name', NAMES)
def test_an_unknown_input(make, name):
    with pytest.raises(ValueError, match="there is no input 'walltime': choose one of "):
        make(name, overrides={'walltime': 5})


@pytest.mark.parametrize('name', NAMES)
def test_an_unknown_parameter(make, name):
    with pytest.raises(ValueError, match='cutoff'):
        instantiate_process(get_manager().get_runner(), make(name, overrides=_changes(name, {'cutoff': 5})))
