"""Base restart workflows: one calculation, run as often as it takes."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.plugins import WorkflowFactory
from ase.build import bulk

from aiida_mlpotential.data.structures import StructureSetData


@pytest.fixture
def structures(aiida_profile):
    return StructureSetData.from_ase([bulk('Cu') * (n, 1, 1) for n in (1, 2, 3)]).store()


def test_one_run_is_enough(python_code, emt_model, structures):
    chain = WorkflowFactory('mlpotential.single_point.base')
    builder = chain.get_builder_from_protocol(python_code, emt_model, structures)
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert outputs['results'].n_ok == 3
    assert len(node.called) == 1
