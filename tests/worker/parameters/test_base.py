"""Checks of values: what a person may write, and what slips through a careless comparison."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.parameters.base import (
    Parameter,
    is_bool,
    is_integer,
    is_integer_up_to,
    is_number,
    is_positive,
    or_null,
)


@pytest.mark.parametrize('value', [0, 1.5, -2, np.float64(3), np.int64(4), 1e308])
def test_a_number_is_a_number(value):
    assert is_number(value)


@pytest.mark.parametrize('value', [True, '1', None, float('nan'), float('inf'), -float('inf'), 10**400, 1j, [1]])
def test_what_is_no_finite_number(value):
    assert not is_number(value)
    assert not is_positive(value)


def test_bounds_are_included():
    assert is_number(2, 2, 3) and is_number(3, 2, 3)
    assert not is_number(1.999, 2, 3) and not is_number(3.001, 2, 3)
    assert is_integer_up_to(1, 1) and not is_integer_up_to(0, 1) and not is_integer_up_to(2, 1)


def test_zero_is_not_positive():
    assert is_positive(1e-300) and not is_positive(0)


def test_truth_is_no_integer_and_one_is_no_truth():
    assert is_integer(1) and not is_integer(True) and not is_integer(1.0)
    assert is_bool(False) and not is_bool(0)


def test_null_where_it_is_allowed():
    assert or_null(is_number)(None) and or_null(is_number)(1) and not or_null(is_number)('1')


def test_a_complaint_is_what_the_check_says_or_what_is_allowed():
    plain = Parameter('n', 1, 'an integer', '', is_integer)
    assert plain.complaint(2) is None
    assert plain.complaint('x') == 'it must be an integer'
    talking = Parameter('n', 1, 'an integer', '', lambda value: value == 1 or f'{value} is too much')
    assert talking.complaint(1) is None
    assert talking.complaint(2) == '2 is too much'
