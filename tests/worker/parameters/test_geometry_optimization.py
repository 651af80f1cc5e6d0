"""Parameters of geometry optimizations: what is refused, and what the message says to do about it."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.optimization.ase_optimizers import OPTIMIZERS
from aiida_mlpotential.worker.optimization.pool import STEPPERS
from aiida_mlpotential.worker.parameters import (
    parameters_of,
    result_parameters,
    validate_parameters,
    with_defaults,
)
from aiida_mlpotential.worker.parameters.geometry_optimization import BATCHED, SINGLE_PRECISION_FORCES

TASK = 'geometry_optimization'
CELL = {'optimize_cell': True}


def validate(**values):
    return validate_parameters(values, TASK)


def test_the_defaults_are_valid():
    assert validate_parameters(with_defaults({}, TASK), TASK) is None
    assert validate() is None


def test_the_batched_optimizers_are_those_that_there_are():
    assert set(BATCHED) == set(STEPPERS)


@pytest.mark.parametrize('name', [*BATCHED, *OPTIMIZERS])
def test_known_optimizers(name):
    assert validate(optimizer=name) is None


@pytest.mark.parametrize('name', ['Newton', 'lbfgs', '', 1, None, 'os.system', 'a' * 50])
def test_an_unknown_optimizer(name):
    message = validate(optimizer=name)
    assert message.startswith(f'parameters: optimizer = {name!r} is not valid; it must be LBFGS')
    assert message.endswith('.')


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('max_steps', [0, -1, 1.5, True, None, '10']),
        ('force_tolerance', [0, -0.01, None, float('nan'), float('inf'), True]),
        ('energy_tolerance', [0, -1e-5, float('nan')]),
        ('step_tolerance', [0, -0.01, 'x']),
        ('stress_tolerance', [0, -0.01]),
        ('max_step', [0, -0.1, 1.1]),
        ('pressure', [float('nan'), 1e5, None]),
        ('cell_mask', [[True] * 5, [1, 1, 1, 0, 0, 0], True, 'xx']),
        ('trajectory', [0, -5, 1.5, True]),
        ('symmetry_tolerance', [0, 2]),
        ('max_qbc', [0, -1]),
        ('checkpoint_interval', [-1, None]),
        ('constraints', [{}, 'atoms', [1]]),
        ('optimize_cell', [1, None]),
    ],
)
def test_values_that_make_no_sense(name, values):
    for value in values:
        message = validate(**{name: value})
        assert message is not None and message.startswith(f'parameters: {name} = '), value
        assert message.endswith('.')


def test_a_wrong_constraint_is_named():
    message = validate(constraints=[{'kind': 'atoms', 'atoms': [0]}, {'kind': 'bond', 'atoms': [1]}])
    assert 'constraint 1 (bond) needs 2 atoms, not 1.' in message


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('pressure', 1.0),
        ('cell_mask', [True] * 6),
        ('fixed_volume', True),
        ('hydrostatic', True),
        ('stress_tolerance', 1e-3),
    ],
)
def test_what_belongs_to_the_cell_without_the_cell(name, value):
    message = validate(**{name: value})
    assert message == (
        f'parameters: {name} means nothing while the cell is kept: set optimize_cell to true or leave it out.'
    )
    assert validate(**{name: value}, **CELL) is None


@pytest.mark.parametrize('kind', ['bond', 'angle', 'dihedral'])
def test_internal_coordinates_with_the_cell(kind):
    atoms = list(range({'bond': 2, 'angle': 3, 'dihedral': 4}[kind]))
    constraints = [{'kind': kind, 'atoms': atoms}]
    assert validate(constraints=constraints) is None
    message = validate(constraints=constraints, **CELL)
    assert message.startswith(f'parameters: constraints of the kind {kind} do not go with optimize_cell')
    assert validate(constraints=[{'kind': 'atoms', 'atoms': [0]}], **CELL) is None


@pytest.mark.parametrize(
    ('values', 'part'),
    [
        ({'hydrostatic': True, 'fixed_volume': True}, 'leave nothing of the cell free'),
        ({'cell_mask': [False] * 6}, 'leaves nothing of the cell free'),
        ({'hydrostatic': True, 'cell_mask': [True] * 5 + [False]}, 'hydrostatic keeps the shape'),
        ({'fixed_volume': True, 'cell_mask': [True] + [False] * 5}, 'frees one length'),
        ({'fixed_volume': True, 'cell_mask': [True, True, False, True, False, False]}, 'without both its lengths'),
        ({'fixed_volume': True, 'cell_mask': [False, False, False, True, True, True]}, 'without both its lengths'),
        ({'fixed_volume': True, 'cell_mask': [True, True, True, True, True, False]}, 'two shears without the third'),
    ],
)
def test_rules_of_the_cell_that_exclude_each_other(values, part):
    assert part in validate(**values, **CELL)


@pytest.mark.parametrize('mask', ['110001', '111000', '111001', '101010', '011100', '111111', '110000'])
def test_rules_of_the_cell_that_go_together(mask):
    """With these a fixed volume is kept: what is free is whole blocks of the deformation."""
    assert validate(fixed_volume=True, cell_mask=[flag == '1' for flag in mask], **CELL) is None


def test_symmetry_and_constraints():
    constraints = [{'kind': 'atoms', 'atoms': [0]}]
    assert 'leave one of them out' in validate(keep_symmetry=True, constraints=constraints)
    assert validate(keep_symmetry=True) is None


def test_forces_that_single_precision_cannot_resolve():
    too_small = SINGLE_PRECISION_FORCES / 2
    message = validate(force_tolerance=too_small)
    assert 'set precision to double or choose a larger one' in message
    assert validate(force_tolerance=too_small, precision='double') is None
    assert validate(force_tolerance=SINGLE_PRECISION_FORCES) is None


def test_what_a_restart_may_change():
    """More steps, another interval of trajectory or checkpoints: it stays the same job."""
    kept = result_parameters({'max_steps': 7, 'trajectory': 3, 'checkpoint_interval': 1}, TASK)
    assert kept == result_parameters({}, TASK)
    assert kept != result_parameters({'force_tolerance': 0.02}, TASK)


def test_every_row_says_what_it_is_for():
    for row in parameters_of(TASK).values():
        assert row.help.endswith('.') and row.allowed
