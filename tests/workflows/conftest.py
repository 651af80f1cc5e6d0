"""Fixtures of the tests of workflows: small ensembles."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule


@pytest.fixture
def run_screening_models(aiida_profile):
    """Return rattled water molecules and two small committees."""
    pytest.importorskip('torch', reason='the small committee is one of torch')
    from aiida_mlpotential.data.structures import StructureSetData

    random = np.random.default_rng(7)
    found = []
    for _ in range(8):
        atoms = molecule('H2O')
        atoms.positions += random.normal(scale=0.1, size=atoms.positions.shape)
        found.append(atoms)
    return StructureSetData.from_ase(found).store(), small_committees()


def small_committees():
    """Return two stored models with three members each, by label."""
    from aiida_mlpotential import library

    return {'first': library.get_model('ANI-1ccx'), 'second': library.get_model('ANI-1x')}
