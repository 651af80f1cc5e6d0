"""Analytic Hessians of ANI ensembles: those of torch's automatic derivatives, for whatever is in a batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

pytest.importorskip('torch', reason='the torchani extra is not installed')
pytest.importorskip('torchani', reason='the torchani extra is not installed')

from aiida_mlpotential.worker.backends.torchani import engine as module
from aiida_mlpotential.worker.backends.torchani.engine import AniEngine
from aiida_mlpotential.worker.backends.torchani.flat import FlatEngine
from aiida_mlpotential.worker.backends.torchani.interop import from_torchani
from aiida_mlpotential.worker.backends.torchani.models import pieces_of_ani
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.storage import hessian_offsets


def _engine(model, precision='double'):
    return AniEngine(from_torchani(model), 'cpu', precision)


@pytest.fixture
def batch(molecules, mixture):
    """Molecules of many sizes and elements, single atoms, a pair, a skewed crystal with its own images, slab, wire."""
    return Frames.from_ase([*(atoms for atoms in molecules if 'S' not in atoms.symbols), *mixture])


@pytest.mark.slow
def test_hessians_are_those_of_automatic_derivatives(random_model, batch):
    """Up to the 1.5e-8 by which torch's derivative of celu is off."""
    found = _engine(random_model(3)).hessians(batch, each=True)
    expected = FlatEngine(pieces_of_ani(random_model(3)).flat, 'cpu', 'double').hessians(batch, each=True)
    assert np.abs(expected).max() > 100
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=5e-5)


def test_hessians_are_those_of_differences(random_model, mixture):
    engine = _engine(random_model(2))
    frames = mixture.select([1, 4])
    flat, offsets = engine.hessians(frames), hessian_offsets(frames.offsets)
    for index, begin, end in ((0, *offsets[:2]), (1, *offsets[1:])):
        frame = frames.select([index])
        matrix = flat[begin:end].reshape(3 * frame.n_atoms, -1)
        for coordinate in range(3 * frame.n_atoms):
            step = np.zeros(3 * frame.n_atoms)
            step[coordinate] = 1e-6
            before, after = (
                engine.evaluate(
                    dataclasses.replace(frame, positions=frame.positions + sign * step.reshape(-1, 3)),
                    frozenset({'forces'}),
                ).forces.ravel()
                for sign in (-1, 1)
            )
            np.testing.assert_allclose(matrix[coordinate], (before - after) / 2e-6, rtol=0, atol=5e-5)


def test_the_mean_is_that_of_the_members(random_model, batch):
    engine = _engine(random_model(3))
    each = engine.hessians(batch, each=True)
    assert each.std(axis=0).max() > 1
    np.testing.assert_allclose(engine.hessians(batch), each.mean(axis=0), rtol=0, atol=1e-9)


def test_pieces_and_chunks_do_not_matter(random_model, batch, monkeypatch):
    engine = _engine(random_model(2))
    whole = engine.hessians(batch)
    monkeypatch.setitem(module.PIECE_BYTES, 'cpu', 1)
    engine.chunk_atoms = 9
    np.testing.assert_allclose(engine.hessians(batch), whole, rtol=0, atol=1e-9)


def test_nothing_changes_where_a_structure_is_moved_as_a_whole(random_model, batch):
    flat, offsets = _engine(random_model(2)).hessians(batch), hessian_offsets(batch.offsets)
    for count, begin, end in zip(batch.counts, offsets, offsets[1:], strict=False):
        matrix = flat[begin:end].reshape(3 * count, count, 3)
        np.testing.assert_allclose(matrix.sum(axis=1), 0, atol=1e-9)
        np.testing.assert_array_equal(matrix.reshape(3 * count, -1), matrix.reshape(3 * count, -1).T)


def test_single_precision_is_close(random_model, mixture):
    double, single = (_engine(random_model(3), precision).hessians(mixture) for precision in ('double', 'single'))
    difference = np.abs(double - single).max()
    assert 0 < difference < 1e-5 * np.abs(double).max()


@pytest.mark.parametrize(
    'structures', [[], [Atoms('O')], [Atoms('OH', positions=[[0, 0, 0], [0, 0, 30]])], [molecule('H2'), Atoms('C')]]
)
def test_few_or_no_neighbours(random_model, structures):
    frames = Frames.from_ase(structures)
    flat = _engine(random_model(2)).hessians(frames)
    assert flat.shape == (9 * int(np.square(frames.counts).sum()),)
    assert bool(flat.any()) == any(len(atoms) == 2 and atoms.get_distance(0, 1) < 5 for atoms in structures)


def test_a_large_crystal_takes_little_memory(random_model):
    """More than the result itself must not grow with the square of the atoms."""
    waters = molecule('H2O')
    waters.set_cell(np.eye(3) * 3.1)
    waters.pbc = True
    engine = _engine(random_model(2))
    limit = module.PIECE_BYTES['cpu'] // 8
    sizes = []
    for repeat in ((2, 2, 2), (3, 3, 3)):
        frames = Frames.from_ase([waters * repeat])
        pairs = module.find_half_pairs(frames.positions, frames.offsets, frames.cells, frames.pbc, engine.cutoff)
        around = module.Surroundings.of(pairs, np.unique(frames.numbers, return_inverse=True)[1], 3.5)
        pieces = list(around.pieces(2 * 14, module.PIECE_BYTES['cpu']))
        assert [start for start, _ in pieces[1:]] == [stop for _, stop in pieces[:-1]]
        assert pieces[-1][1] == frames.n_atoms
        sizes.append(max((stop - start) * (3 * around.counts.max()) ** 2 for start, stop in pieces))
    assert max(sizes) < limit


def test_models_of_the_papers_against_differences(shared_data):
    """ISOL24, reaction 14: 26 atoms, 8 members; the differences are of a step that no activation bends within."""
    import ase.io

    from aiida_mlpotential.worker.backends.torchani.convert import read_state_dict
    from aiida_mlpotential.worker.registry import PRETRAINED

    model = PRETRAINED['ANI-1ccx']
    engine = AniEngine(read_state_dict(shared_data / 'models' / 'torchani' / model.state_dict, model), 'cpu', 'double')
    frame = Frames.from_ase([ase.io.read(shared_data / 'molecules' / 'ISOL24_i14e.xyz')])
    matrix = engine.hessians(frame).reshape(78, 78)
    way = np.random.default_rng(2).normal(size=(26, 3))
    ends = [
        engine.evaluate(
            dataclasses.replace(frame, positions=frame.positions + step * way), frozenset({'forces'})
        ).forces
        for step in (-1e-6, 1e-6)
    ]
    np.testing.assert_allclose(matrix @ way.ravel(), ((ends[0] - ends[1]) / 2e-6).ravel(), rtol=0, atol=1e-5)
