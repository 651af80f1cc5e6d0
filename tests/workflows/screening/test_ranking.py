"""Relative energies within a formula, their spread over the members, and flags."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.units import KCAL_PER_MOL
from aiida_mlpotential.workflows.screening.ranking import ANI_CRITERION, Relative

GROUPS = np.array([0, 1, 0, 1, 0])
OK = np.ones(5, bool)


def test_each_formula_has_its_own_zero():
    relative = Relative.of(np.array([-1.0, -7.0, -3.0, -6.5, -2.0]), None, GROUPS, OK)
    np.testing.assert_allclose(relative.energies, [2.0, 0.0, 0.0, 0.5, 1.0])
    assert relative.lowest.tolist() == [2, 1, 2, 1, 2]
    assert np.isnan(relative.std).all()


def test_errors_that_members_share_cancel():
    """Two members differ by 5 eV in every energy and agree on all differences: their spread is none of these."""
    energies = np.array([-1.0, -7.0, -3.0, -6.5, -2.0])
    relative = Relative.of(energies, np.stack([energies - 2.5, energies + 2.5]), GROUPS, OK)
    np.testing.assert_allclose(relative.std, 0.0, atol=1e-12)


def test_spread_is_that_of_the_differences():
    random = np.random.default_rng(1)
    members = random.normal(size=(4, 5))
    relative = Relative.of(members.mean(axis=0), members, GROUPS, OK)
    for index, lowest in enumerate(relative.lowest):
        differences = [member[index] - member[lowest] for member in members]
        assert relative.std[index] == pytest.approx(np.std(differences, ddof=1), abs=1e-12)


def test_failed_structures_have_no_place_and_are_no_reference():
    energies = np.array([-1.0, -7.0, np.nan, -6.5, -2.0])
    ok = np.array([True, False, False, True, True])
    relative = Relative.of(energies, np.stack([energies, energies + 1]), GROUPS, ok)
    np.testing.assert_allclose(relative.energies, [1.0, np.nan, np.nan, 0.0, 0.0])
    assert relative.lowest.tolist() == [4, -1, -1, 3, 4]
    assert np.isnan(relative.std).tolist() == [False, True, True, False, False]


def test_no_structure_has_an_energy():
    relative = Relative.of(np.full(5, np.nan), np.full((2, 5), np.nan), GROUPS, np.zeros(5, bool))
    assert np.isnan(relative.energies).all()
    assert (relative.lowest == -1).all()


def test_the_criterion_is_that_of_the_literature():
    assert pytest.approx(0.23, abs=1e-12) == ANI_CRITERION / KCAL_PER_MOL
