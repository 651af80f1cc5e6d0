"""A workflow ends with the exit code of its last calculation, 300 higher, and with its message."""

from __future__ import annotations

import types

import pytest
from aiida import orm
from aiida.engine import CalcJob, ProcessState

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.worker.errors import EXIT_CODES
from aiida_mlpotential.workflows.exit_codes import OFFSET, calculation_codes, cause_of, exit_code_of
from aiida_mlpotential.workflows.tasks import SinglePointBaseWorkChain

CODES = SinglePointBaseWorkChain.exit_codes


def _node(status=None, message=None, state=ProcessState.FINISHED):
    node = orm.CalcJobNode()
    node.set_process_label('SinglePointCalculation')
    node.set_process_state(state)
    if status is not None:
        node.set_exit_status(status)
    if message:
        node.set_exit_message(message)
    return node


def _process():
    return types.SimpleNamespace(exit_codes=CODES)


def test_every_code_of_a_calculation_has_one_of_its_name():
    expected = {label: code for label, code in SinglePointCalculation.exit_codes.items() if code.status >= 100}
    assert {code.label for code in calculation_codes().values()} == set(expected)
    for label, code in expected.items():
        assert CODES[label].status == code.status + OFFSET
        assert CODES[label].invalidates_cache == code.invalidates_cache


def test_no_number_is_there_twice():
    numbers = [code.status for code in CODES.values()]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize('status', [code.status for code in EXIT_CODES] + [110, 120, 140])
def test_the_cause_is_in_the_message(aiida_profile, status):
    code = exit_code_of(_process(), _node(status, 'Out of luck.'), 'it was tried 3 times')
    assert code.status == status + OFFSET
    assert code.message.endswith(f'[{status}] Out of luck. (it was tried 3 times)')


def test_verdicts_of_schedulers_keep_their_names():
    for label, code in CalcJob.exit_codes.items():
        if 110 <= code.status <= 150:
            assert CODES[label].status == code.status + OFFSET


def test_a_code_that_nobody_knows(aiida_profile):
    code = exit_code_of(_process(), _node(11, 'No output.'))
    assert code.status == CODES.ERROR_UNHANDLED_FAILURE.status
    assert 'No output.' in code.message


def test_a_calculation_without_an_exit_code(aiida_profile):
    node = _node(state=ProcessState.EXCEPTED)
    assert '[excepted] no message was left' in cause_of(node)
    node.set_exception('ValueError: oops\n')
    assert cause_of(node).endswith('[excepted] ValueError: oops')
