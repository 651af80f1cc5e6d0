"""Ensemble statistics: the sample standard deviation, and query by committee."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.statistics import query_by_committee, sample_std


def test_the_standard_deviation_divides_by_one_less_than_the_members():
    assert sample_std(np.array([[1.0], [2.0], [4.0]]))[0] == pytest.approx(np.sqrt(7 / 3), rel=1e-15)


def test_query_by_committee_divides_by_the_root_of_the_atoms():
    assert query_by_committee(np.array([6.0]), np.array([9])) == pytest.approx([2.0])
