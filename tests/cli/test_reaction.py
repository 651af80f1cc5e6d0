"""The spread of a reaction energy: errors that both sides share cancel."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.cli.reaction import ReactionEnergy
from aiida_mlpotential.worker.units import KCAL_PER_MOL


def test_common_errors_cancel() -> None:
    """Members that are wrong by the same amount on both sides agree on the reaction energy."""
    educt = np.array([1.0, 2.0, 3.0])
    reaction = ReactionEnergy.from_members(educt, educt + 5 * KCAL_PER_MOL)
    assert reaction.energy == pytest.approx(5.0)
    assert reaction.std == pytest.approx(0.0, abs=1e-9)
    assert reaction.combined == pytest.approx(np.sqrt(2) / KCAL_PER_MOL)


def test_sample_standard_deviation() -> None:
    """The spread has ddof = 1, in kcal/mol."""
    educt = np.zeros(4)
    product = np.array([1.0, 2.0, 3.0, 6.0]) * KCAL_PER_MOL
    reaction = ReactionEnergy.from_members(educt, product)
    assert reaction.energy == pytest.approx(3.0)
    assert reaction.std == pytest.approx(np.std([1, 2, 3, 6], ddof=1))
    assert reaction.combined == pytest.approx(reaction.std)


@pytest.mark.parametrize('shapes', [((1,), (1,)), ((2,), (3,)), ((2, 2), (2, 2))])
def test_refuses_what_has_no_spread(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """One member, or members that do not correspond, are an error that names the shapes."""
    with pytest.raises(ValueError, match=r'one energy a member, got \('):
        ReactionEnergy.from_members(np.zeros(shapes[0]), np.zeros(shapes[1]))
