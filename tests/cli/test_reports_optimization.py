"""The table of a geometry optimization: energy, change, steps and status; the end points as frames."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import molecule

from aiida_mlpotential.cli import reports_optimization as reports
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.units import KCAL_PER_MOL

STATUS = [FrameStatus.OK, FrameStatus.NOT_CONVERGED, FrameStatus.ATOMS_TOO_CLOSE]


@pytest.fixture
def structures(aiida_profile_clean) -> StructureSetData:
    """Return three molecules of water."""
    return StructureSetData.from_ase([molecule('H2O')] * 3, ['good', 'slow', 'bad'])


@pytest.fixture
def results(make_results):
    """Return an end point, one that is not, and a structure that was never begun."""
    nan = np.nan
    return make_results(
        [3, 3, 3],
        STATUS,
        energies=[-10.0, -9.5, nan],
        initial_energies=[-10.0 + KCAL_PER_MOL, -9.0, nan],
        steps=np.array([12, 500, -1], 'i4'),
    )


def test_table(structures, results) -> None:
    """Each row says how far down it went in how many steps; a structure without a result has its reason only."""
    text = reports.format_results(results, structures, SimpleNamespace(outputs={}))
    lines = text.strip().splitlines()
    assert lines[2].split() == ['0', 'good', 'H2O', '-10.000000', '-1.000', '12', 'CONVERGED']
    assert lines[3].split()[:6] == ['1', 'slow', 'H2O', '-9.500000', f'{-0.5 / KCAL_PER_MOL:.3f}', '500']
    assert lines[3].endswith('NOT_CONVERGED')
    assert lines[4].split() == ['2', 'bad', 'H2O', 'ATOMS_TOO_CLOSE']
    assert lines[6].startswith('#1 slow: NOT_CONVERGED')
    assert lines[7].startswith('#2 bad: ATOMS_TOO_CLOSE: ')
    assert '1 of 3 structures converged, 2 failed.' in text


def test_steps_and_node_of_the_geometries(make_results, aiida_profile_clean) -> None:
    """The summary has the range of steps over those that converged, and names the node to go on with."""
    structures = StructureSetData.from_ase([molecule('H2O')] * 2)
    results = make_results(
        [3, 3],
        [0, 0],
        energies=[-1.0, -2.0],
        initial_energies=[0.0, 0.0],
        steps=np.array([4, 7], 'i4'),
    )

    node = SimpleNamespace(outputs={'output_structures': structures.store()})
    text = reports.format_results(results, structures, node)
    assert '4 to 7 steps, 5.5 on average; energies from -2.000000 to -1.000000 eV' in text
    assert f'The geometries at the end are in StructureSetData<{structures.pk}>.' in text


def test_geometries_to_write(structures, results) -> None:
    """Those at the end with the labels of the input; where there are none, for all failed, those of the input."""
    moved = [molecule('H2O') for _ in range(3)]
    moved[0].positions += 1.0
    end = StructureSetData.from_ase(moved)
    frames = reports.optimized(results, structures, SimpleNamespace(outputs={'output_structures': end}))
    assert frames.positions.tolist() == end.get_frames().positions.tolist()
    assert frames.labels == ('good', 'slow', 'bad')
    frames = reports.optimized(results, structures, SimpleNamespace(outputs={}))
    assert frames.positions.tolist() == structures.get_frames().positions.tolist()
