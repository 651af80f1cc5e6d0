"""Fixtures of the tests of queries: real jobs, and trees of processes made by hand in any state."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessState, run_get_node
from ase.build import bulk

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData


@pytest.fixture
def copper():
    """Return six different structures as a stored set."""
    random = np.random.default_rng(3)
    found = []
    for index in range(6):
        atoms = bulk('Cu') * (1 + index % 2, 1, 1)
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        found.append(atoms)
    return StructureSetData.from_ase(found, labels=[f'cu-{index}' for index in range(6)]).store()


@pytest.fixture
def other_model():
    """Return another model of copper, which knows it as argon."""
    return ModelData.from_ase_calculator(
        'ase.calculators.lj.LennardJones', {'sigma': 2.3, 'epsilon': 0.4}, elements=['Cu'], name='LJ'
    ).get_or_store()


@pytest.fixture
def run(aiida_profile_clean, python_code, emt_model):
    """Return a function that runs a single point, by default with EMT, and returns its node."""

    def function(**inputs):
        return run_get_node(SinglePointCalculation, code=python_code, **{'model': emt_model, **inputs})[1]

    return function


@pytest.fixture
def make_process():
    """Return a function that stores a process in a state, called by another."""

    def function(cls=orm.WorkChainNode, caller=None, state='waiting', process_type='', inputs=None, **attributes):
        node = cls(process_type=process_type)
        node.set_process_label(attributes.pop('label', 'SomeProcess'))
        node.set_process_state(ProcessState(state))
        node.base.attributes.set_many(attributes)
        for name, value in (inputs or {}).items():
            link = LinkType.INPUT_CALC if issubclass(cls, orm.CalculationNode) else LinkType.INPUT_WORK
            node.base.links.add_incoming(value, link, name)
        if caller is not None:
            link = LinkType.CALL_CALC if issubclass(cls, orm.CalculationNode) else LinkType.CALL_WORK
            node.base.links.add_incoming(caller, link, f'called_{id(node)}')
        return node.store()

    return function
