"""Results of a screening without a job."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.structures import StructureSetData

NAMES = ('CH3CH2OH', 'CH3OCH3', 'H2O')


@pytest.fixture
def structures(aiida_profile):
    """Return six molecules of two formulas, as an unstored node."""
    return StructureSetData.from_ase([molecule(NAMES[index % 3]) for index in range(6)])


@pytest.fixture
def results(structures):
    """Return unstored results of them, the last of which failed."""
    node = ResultsData()
    counts = structures.get_frames().counts
    qbc = np.array([0.002, 0.004, 0.02, 0.008, 0.012, np.nan])
    arrays = {
        'energies': np.array([-10.0, -10.5, -3.0, -9.0, -10.25, np.nan]),
        'energy_std': qbc * np.sqrt(counts),
        'qbc': qbc,
        'status': np.array([0, 0, 0, 0, 0, 11], 'i1'),
        'offsets': structures.get_frames().offsets,
    }
    for name, values in arrays.items():
        node.set_array(name, values)
    node.base.attributes.set_many({'n_frames': 6, 'model_name': 'ANI-1ccx', 'messages': {}})
    return node
