"""The numbers of a single structure that every task gives."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm

from aiida_mlpotential.data.frame_result import FrameResult
from aiida_mlpotential.parsers.summaries import summarize_energy
from aiida_mlpotential.worker.errors import FrameStatus

pytestmark = pytest.mark.usefixtures('aiida_profile')


@pytest.fixture
def results():
    """Return a node with the attribute that is read."""
    node = orm.ArrayData()
    node.base.attributes.set('formulas', ['H2O'])
    return node


def test_energy_spread_and_largest_force(results):
    forces = np.array([[0, 0, 3.0], [0, 4.0, 3.0], [1.0, 0, 0]])
    frame = FrameResult(0, FrameStatus.OK, '', 4, energy=-2.0, energy_std=0.8, forces=forces)
    assert summarize_energy(results, frame) == {
        'energy': -2.0,
        'n_atoms': 4,
        'formula': 'H2O',
        'energy_std': 0.8,
        'energy_std_per_atom': pytest.approx(0.2),
        'qbc': pytest.approx(0.4),
        'max_force': pytest.approx(5.0),
    }


def test_what_was_not_computed_is_left_out(results):
    frame = FrameResult(0, FrameStatus.NOT_CONVERGED, '', 3, energy=-2.0)
    assert summarize_energy(results, frame).keys() == {'energy', 'n_atoms', 'formula'}
