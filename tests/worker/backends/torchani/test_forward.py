"""Models of unknown make, in padded batches: each guard against torchani's traps can be seen to work."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase import Atoms

pytest.importorskip('torch', reason='the torchani extra is not installed')

import torch

from aiida_mlpotential.worker.backends.torchani.forward import ForwardEngine
from aiida_mlpotential.worker.errors import FrameError
from aiida_mlpotential.worker.frames import Frames

REQUEST = frozenset({'forces', 'stress'})


@pytest.fixture
def engine(custom):
    model = torch.jit.load(custom / 'custom_torchscript.pt')
    return ForwardEngine(model, ('H', 'C', 'O'), True, 'cpu', 'double')


@pytest.fixture
def right(custom, load):
    """Return the evaluation without padding, which is compared with torchani elsewhere."""
    return load(custom / 'custom_full_ani.pt', precision='double')


def _same(result, expected):
    for name in ('energies', 'forces', 'stress'):
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), rtol=0, atol=1e-8, err_msg=name)


def test_molecules_of_different_size_are_padded(engine, right, mixture):
    chosen = mixture.select([1, 0, 2, 3])
    _same(engine.evaluate(chosen, REQUEST), right.evaluate(chosen, REQUEST))


def test_crystals_are_evaluated_one_by_one(engine, right, mixture):
    """In a batch, torchani treats all but the first as isolated atoms and says nothing."""
    chosen = mixture.select([4, 1, 4, 0])
    moved = chosen.positions.copy()
    moved[-4] += 0.1
    chosen = dataclasses.replace(chosen, positions=moved)
    _same(engine.evaluate(chosen, REQUEST), right.evaluate(chosen, REQUEST))


def test_atoms_are_folded_into_the_cell(engine, right, mixture):
    """torchani's stress is wrong for atoms outside of it, and nobody knows what other models make of them."""

    class Spy(torch.nn.Module):
        def forward(self, given, cell=None, pbc=None):
            inside.append(torch.linalg.solve(cell.T, given[1][0].T).T.detach().numpy())
            return given[1].sum(dim=(1, 2)) + 0 * cell.sum()

    inside = []
    chosen = mixture.select([4])
    far = dataclasses.replace(chosen, positions=chosen.positions + np.array([[0, 0, 0], [3.1, 0, 0], [-0.7, -3.3, 0]]))
    _same(engine.evaluate(far, REQUEST), right.evaluate(chosen, REQUEST))
    ForwardEngine(Spy(), ('H', 'C', 'O'), False, 'cpu', 'double').evaluate(far, REQUEST)
    assert ((inside[0] > -1e-9) & (inside[0] < 1 + 1e-9)).all()


@pytest.mark.parametrize('index', [5, 6])
def test_partial_periodicity_is_refused(engine, mixture, index):
    with pytest.raises(FrameError, match='one or two directions'):
        engine.evaluate(mixture.select([index]), REQUEST)


def test_what_takes_no_cell_gets_no_crystal(mixture):
    class Plain(torch.nn.Module):
        def forward(self, given):
            return given[1].square().sum(dim=(1, 2))

    engine = ForwardEngine(torch.jit.script(torch.nn.Identity()), ('H',), False)
    assert not engine._periodic
    engine = ForwardEngine(Plain(), ('H', 'C', 'O'), False, precision='double')
    with pytest.raises(FrameError, match='takes no cell'):
        engine.evaluate(mixture.select([4]), REQUEST)
    molecule = mixture.select([0])
    np.testing.assert_allclose(
        engine.evaluate(molecule, REQUEST).forces / molecule.positions, -2 * 27.211386024367243, rtol=1e-12
    )


def test_an_element_that_the_model_lacks_is_no_padding(engine):
    with pytest.raises(ValueError, match='atomic number 9'):
        engine.evaluate(Frames.from_ase([Atoms('F')]), frozenset())


def test_what_cannot_be_told_apart_is_refused(engine, mixture):
    for name in ('atomic_energies', 'forces_std', 'member_forces'):
        with pytest.raises(FrameError, match='neither members nor atomic'):
            engine.evaluate(mixture.select([0]), frozenset({name}))


def test_there_are_no_analytic_hessians(engine, mixture):
    """Nobody knows whether such a model can be differentiated twice."""
    assert engine.hessians(mixture) is None
    assert engine.hessians(mixture, each=True) is None


def test_batches_stay_small(engine, mixture):
    engine.chunk_atoms = 9
    chosen = mixture.select([1, 0, 2, 3, 0, 4])
    groups = engine._groups(chosen)
    assert sorted(index for group in groups for index in group) == list(range(6))
    assert all(len(group) == 1 or len(group) * chosen.counts[group].max() <= 9 for group in groups)


def test_a_model_that_gives_back_something_else_is_refused(mixture):
    class Odd(torch.nn.Module):
        def forward(self, given):
            return given[1]

    with pytest.raises(ValueError, match='one energy for each structure'):
        ForwardEngine(Odd(), ('H', 'C', 'O'), False).evaluate(mixture.select([1]), frozenset())
