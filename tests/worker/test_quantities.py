"""The arrays of results: names, units and shapes, and which of them a task stores."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.quantities import PROPERTIES, QUANTITIES, SHAPES, TASK_QUANTITIES, names_for
from aiida_mlpotential.worker.tasks import TASKS, get_task


def test_users_ask_for_properties_by_the_names_of_the_field():
    names = ('forces', 'stress', 'forces_std', 'atomic_energies', 'charges', 'hessian')
    assert dict(PROPERTIES) == {'energy': 'energies', **dict(zip(names, names, strict=True))}
    assert all(quantity.unit and quantity.help.endswith('.') for quantity in QUANTITIES.values())


def test_each_quantity_has_a_shape_that_documentation_can_write():
    assert {quantity.shape for quantity in QUANTITIES.values()} == set(SHAPES)
    assert QUANTITIES['member_gibbs_energies'].shape_text == '(n, m, t)'


def test_what_belongs_to_a_task_cannot_be_requested():
    own = {name for names in TASK_QUANTITIES.values() for name in names}
    assert own == {name for name, quantity in QUANTITIES.items() if quantity.kind == 'task'}
    assert not own & set(PROPERTIES)


def test_each_task_has_its_row():
    assert set(TASK_QUANTITIES) == set(TASKS)
    assert all(get_task(name).name == name for name in TASKS)


@pytest.mark.parametrize(
    ('properties', 'ensemble', 'expected'),
    [
        ((), False, {'energies'}),
        (('energy', 'forces'), False, {'energies', 'forces'}),
        (('stress',), True, {'energies', 'stress', 'member_energies', 'energy_std', 'qbc'}),
    ],
)
def test_what_is_stored_follows_from_what_was_asked_for_and_the_model(properties, ensemble, expected):
    assert set(names_for(properties, ensemble)) == expected
