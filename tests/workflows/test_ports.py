"""A misspelt input is refused at once, however deep it stands."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.common.exceptions import NotExistent
from aiida.engine import PortNamespace
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.plugins import WorkflowFactory
from aiida.plugins.entry_point import get_entry_point_names
from ase.build import bulk

from aiida_mlpotential.data.structures import StructureSetData

NAMES = [name for name in get_entry_point_names('aiida.workflows') if name.startswith('mlpotential.')]
#: Namespaces in which the user chooses the names.
OPEN = {'models', 'codes', 'species', 'monitors'}


def _open(ports, name=''):
    found = {name} if ports.dynamic else set()
    return found.union(*(_open(port, key) for key, port in ports.items() if isinstance(port, PortNamespace)))


@pytest.mark.parametrize('name', NAMES)
def test_only_what_the_user_names_is_open(name):
    assert _open(WorkflowFactory(name).spec().inputs) <= OPEN


def test_it_is_refused_before_the_first_job(python_code, emt_model):
    chain = WorkflowFactory('mlpotential.single_point.base')
    structures = StructureSetData.from_ase([bulk('Cu')] * 3)
    calc = {'code': python_code, 'model': emt_model, 'structures': structures}
    runner = get_manager().get_runner()
    assert instantiate_process(runner, chain, calc={**calc, 'selection': {'indices': [0]}})
    with pytest.raises((ValueError, NotExistent), match='selections'):
        instantiate_process(runner, chain, calc={**calc, 'selections': orm.Dict({'indices': [0]})})


def test_the_builder_refuses_it_too():
    builder = WorkflowFactory('mlpotential.thermochemistry').get_builder()
    with pytest.raises(AttributeError, match='parameter'):
        builder.optimization.calc.parameter = orm.Dict({'max_steps': 3})
