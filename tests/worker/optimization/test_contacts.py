"""Contacts are the pairs that the slower search finds, in molecules, slabs and cells of any shape."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_mlpotential.worker.checks import close_pairs
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization.contacts import find_contacts


def _gas(n_atoms: int, seed: int, pbc=True, vacuum: bool = False) -> Atoms:
    """Dense random atoms, in and out of a skewed cell."""
    rng = np.random.default_rng(seed)
    cell = (np.diag(rng.uniform(2, 5, size=3)) + rng.normal(size=(3, 3)) * 0.3) * max(1.0, n_atoms / 30) ** (1 / 3)
    if vacuum:
        cell[2] = 0
    return Atoms(f'C{n_atoms}', positions=rng.random((n_atoms, 3)) * 9 - 3, cell=cell, pbc=pbc)


SETS = {
    'molecules': [_gas(n, n, pbc=False) for n in (1, 2, 30, 400)],
    'crystals': [_gas(n, n) for n in (1, 2, 30, 400)],
    'slabs': [_gas(n, n, pbc=(True, True, False)) for n in (30, 400)],
    'slabs without a third vector': [_gas(n, n, pbc=(True, True, False), vacuum=True) for n in (30, 200)],
    'wires': [_gas(40, 8, pbc=(False, False, True))],
    'narrow cells among wide ones': [
        bulk('Cu', cubic=True),
        Atoms('H2', [[0, 0, 0], [0, 0, 0.3]], cell=[0.7, 9, 9], pbc=True),
    ],
    'all kinds': [_gas(20, 1, pbc=False), _gas(20, 2), _gas(20, 3, pbc=(True, False, True)), Atoms()],
    'none': [],
}


def _sorted(found):
    return sorted(
        (min(pair), max(pair), round(d, 9)) for *pair, d in zip(*(item.tolist() for item in found), strict=True)
    )


@pytest.mark.parametrize('structures', SETS.values(), ids=SETS)
@pytest.mark.parametrize('distance', [0.05, 0.4, 0.9])
def test_as_close_pairs(structures, distance):
    frames = Frames.from_ase(structures)
    expected = _sorted(close_pairs(frames, distance))
    assert _sorted(find_contacts(frames, distance)) == expected
    if distance == 0.9 and structures:
        assert expected


def test_frames_do_not_see_each_other():
    frames = Frames.from_ase([Atoms('H', [[0, 0, 0]])] * 3)
    assert len(find_contacts(frames, 1.0)[0]) == 0


def test_an_image_far_from_home():
    atoms = Atoms('H2', [[0.05, 1, 1], [3.95 + 4 * 25, 1, 1 - 4 * 7]], cell=[4, 4, 4], pbc=True)
    first, second, distances = find_contacts(Frames.from_ase([atoms]), 0.4)
    assert sorted([*first.tolist(), *second.tolist()]) == [0, 1]
    assert distances == pytest.approx([0.1])
