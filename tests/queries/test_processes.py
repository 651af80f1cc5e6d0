"""Which processes are ours, and when one has ended."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.engine import ProcessState
from aiida.plugins.entry_point import get_entry_point_names

from aiida_mlpotential.queries.processes import TERMINATED, process_type, task_of


@pytest.mark.parametrize('state', list(ProcessState))
def test_states_are_those_of_aiida(state):
    node = orm.CalcJobNode()
    node.set_process_state(state)
    assert (state.value in TERMINATED) is node.is_terminated


def test_types_are_those_of_our_calculations():
    names = [name for name in get_entry_point_names('aiida.calculations') if name.startswith('mlpotential.')]
    assert 'mlpotential.single_point' in names
    for name in names:
        task = name.removeprefix('mlpotential.')
        assert process_type(task) == f'aiida.calculations:{name}'
        assert task_of(f'aiida.calculations:{name}') == task
    for other in ('', None, 'aiida.calculations:core.arithmetic.add', 'aiida.workflows:mlpotential.single_point.base'):
        assert task_of(other) is None
