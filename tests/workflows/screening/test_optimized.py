"""Screenings that optimize first, of structures some of which do not get to a minimum."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk

from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.workflows.screening.chain import ScreeningWorkChain


@pytest.fixture
def half_optimized(python_code, emt_model):
    """Return outputs and node of a screening in which only the first of two structures is near a minimum."""
    near, far = bulk('Cu', cubic=True), bulk('Cu', cubic=True)
    far.positions += np.random.default_rng(1).normal(scale=0.3, size=far.positions.shape)
    structures = StructureSetData.from_ase([near, far]).store()
    optimization = {'parameters': {'max_steps': 1, 'force_tolerance': 1e-3}}
    inputs = {'structures': structures, 'models': {'emt': emt_model}, 'optimization': optimization}
    return run_get_node(ScreeningWorkChain, code=python_code, max_iterations=1, **inputs)


def test_what_is_no_minimum_is_said_and_not_ranked(half_optimized):
    outputs, node = half_optimized
    assert node.exit_status == 700
    assert '1 of 2 in the optimization' in node.exit_message
    relative = outputs['ranking'].get_array('relative_energy')[0]
    assert relative[0] == 0.0
    assert np.isnan(relative[1])
    assert outputs['ranking'].get_array('order').tolist() == [0, 1]
    assert outputs['summary']['n_unoptimized'] == 1
    assert outputs['summary']['unoptimized'] == {'1': 'NOT_CONVERGED'}
    # Its energy is kept: it is that of the geometry where the optimization ended.
    assert np.isfinite(outputs['results']['emt'].energies).all()
    jobs = [item for item in node.called_descendants if isinstance(item, orm.CalcJobNode)]
    assert {job.process_label for job in jobs} == {'GeometryOptimizationCalculation', 'SinglePointCalculation'}
