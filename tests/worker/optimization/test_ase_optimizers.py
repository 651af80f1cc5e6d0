"""Other optimizers of ASE: they find the minimum through the same coordinates and criteria."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS

from aiida_mlpotential.worker.backends import get_backend
from aiida_mlpotential.worker.backends.base import Settings as BackendSettings
from aiida_mlpotential.worker.errors import WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization import ase_optimizers
from aiida_mlpotential.worker.optimization.ase_optimizers import OPTIMIZERS, drive
from aiida_mlpotential.worker.optimization.cells import CellRules
from aiida_mlpotential.worker.optimization.convergence import Criteria
from aiida_mlpotential.worker.optimization.pool import Pool, Settings
from aiida_mlpotential.worker.schema import ModelSpec

BACKEND = get_backend('ase').load(
    ModelSpec('EMT', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'}),
    Path(),
    BackendSettings(device='cpu'),
)


@pytest.fixture
def make_pool():
    """Return a maker of a pool of one rattled cell of copper, and of what evaluates it."""

    def make(rules=None, constraints=(), limit=400):
        atoms = bulk('Cu', cubic=True)
        atoms.set_cell(atoms.cell.array * 1.03, scale_atoms=True)
        atoms.rattle(0.1, seed=3)
        frames = Frames.from_ase([atoms])
        pool = Pool(Settings(Criteria(0.01), rules=rules, constraints=constraints))
        pool.join(np.array([0]), frames, frames, {})
        energies = []

        def evaluate():
            evaluation = BACKEND.evaluate(pool.frames, frozenset({'forces', 'stress'}))
            energies.append(evaluation.energies[0])
            return not pool.look(evaluation).converged[0] and len(energies) < limit

        return pool, evaluate, energies

    return make


@pytest.mark.parametrize('name', OPTIMIZERS)
@pytest.mark.parametrize('rules', [None, CellRules()], ids=['positions', 'cell'])
def test_every_optimizer_finds_the_minimum(make_pool, name, rules):
    pool, evaluate, energies = make_pool(rules)
    drive(name, pool, evaluate, 0.2)
    perfect = bulk('Cu', cubic=True)
    perfect.set_cell(perfect.cell.array * 1.03, scale_atoms=True)
    perfect.calc = EMT()
    if rules is not None:
        LBFGS(FrechetCellFilter(perfect), logfile=None).run(fmax=1e-4)
    bound = perfect.get_potential_energy()
    assert energies[-1] == pytest.approx(bound, abs=1e-3)
    assert len(energies) == pool.steps[0] + 1, 'each geometry is evaluated once'


def test_constraints_are_kept(make_pool):
    pool, evaluate, _ = make_pool(constraints=({'kind': 'atoms', 'atoms': [1]}, {'kind': 'bond', 'atoms': [0, 2]}))
    before = pool.frames.positions
    drive('BFGS', pool, evaluate, 0.2)
    after = pool.frames.positions
    np.testing.assert_array_equal(after[1], before[1])
    lengths = [np.linalg.norm(positions[2] - positions[0]) for positions in (before, after)]
    assert lengths[1] == pytest.approx(lengths[0], abs=1e-6)
    assert np.abs(after - before).max() > 0.01


def test_it_ends_where_it_is_told_to(make_pool):
    """The criteria are those of the caller, not of the optimizer."""
    pool, evaluate, energies = make_pool(limit=3)
    drive('BFGS', pool, evaluate, 0.2)
    assert len(energies) == 3 and pool.steps[0] == 2


def test_an_optimizer_that_this_ase_does_not_have(make_pool, monkeypatch):
    monkeypatch.setitem(ase_optimizers.OPTIMIZERS, 'New', ('ase.optimize.New', ''))
    pool, evaluate, _ = make_pool()
    with pytest.raises(WorkerError, match='no optimizer New: update it or choose LBFGS'):
        drive('New', pool, evaluate, 0.2)
