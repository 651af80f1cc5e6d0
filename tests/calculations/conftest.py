"""Fixtures of the tests of calculations: a model of molecules, and molecules at its stationary points."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.optimize import BFGS

from aiida_mlpotential.data.model import ModelData


@pytest.fixture
def molecules_model():
    """Return the EMT calculator with the light elements that it has for tests."""
    return ModelData.from_ase_calculator(
        'ase.calculators.emt.EMT', elements=['H', 'C', 'N', 'O', 'Cu'], name='EMT of molecules'
    ).get_or_store()


def _relaxed(atoms):
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-6, steps=500)
    atoms.calc = None
    return atoms


@pytest.fixture(scope='session')
def nitrogen():
    """Return N2 at its minimum."""
    return _relaxed(Atoms('N2', positions=[[0, 0, 0], [0, 0, 1.1]]))


@pytest.fixture(scope='session')
def tetrahedron():
    """Return Cu4 at its minimum."""
    return _relaxed(Atoms('Cu4', positions=[[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [1.2, 0.7, 2.0]]))


@pytest.fixture(scope='session')
def square():
    """Return four copper atoms in a square: a saddle point of order 2."""
    return _relaxed(Atoms('Cu4', positions=[[0, 0, 0], [2.3, 0, 0], [0, 2.3, 0], [2.3, 2.3, 0]]))
