"""Stress from derivatives by the strain, and from pairs: symmetric, over the volume, for crystals alone."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.stress import stress_of_pairs, stress_of_strain

CELL = [[2, 0, 0], [0, -3, 0], [0, 0, 4]]  # of negative orientation: its volume is 24 all the same


@pytest.fixture
def frames():
    """Return a crystal, a slab and a molecule."""
    atoms = Atoms('H2', [[0, 0, 0], [0, 0, 1]], cell=CELL)
    found = []
    for pbc in (True, (True, True, False), False):
        found.append(atoms.copy())
        found[-1].pbc = pbc
    return Frames.from_ase(found)


def test_it_is_the_symmetric_part_over_the_volume(frames):
    derivatives = np.random.default_rng(1).normal(size=(3, 3, 3))
    stress = stress_of_strain(derivatives, frames)
    np.testing.assert_allclose(stress[0], (derivatives[0] + derivatives[0].T) / 48, rtol=1e-15)
    assert np.isnan(stress[1:]).all()


def test_pairs_add_their_virial_to_their_own_frame(frames):
    vectors = np.array([[0.0, 0, 1], [0, 1, 1], [0, 0, 1]])
    slopes = np.array([[0.0, 0, 2], [3, 0, 0], [0, 0, 100]])
    stress = stress_of_pairs(np.array([0, 0, 2]), vectors, slopes, frames)
    expected = np.array([[0, 1.5, 1.5], [1.5, 0, 0], [1.5, 0, 2]]) / 24
    np.testing.assert_allclose(stress[0], expected, rtol=1e-15)


def test_without_pairs_a_crystal_has_no_stress(frames):
    nothing = np.zeros((0, 3))
    assert (stress_of_pairs(np.zeros(0, dtype=int), nothing, nothing, frames)[0] == 0).all()
