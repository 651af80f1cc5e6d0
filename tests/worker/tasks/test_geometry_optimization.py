"""Geometry optimization as a task: minima, statuses, checkpoints, and going on."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import LBFGS
from ase.units import GPa

from aiida_mlpotential.worker.backends.base import Backend, Evaluation
from aiida_mlpotential.worker.errors import FrameError, FrameStatus, WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.tasks.geometry_optimization import GeometryOptimization
from aiida_mlpotential.worker.trajectory import read_directory


class Dimers(Backend):
    """Pairs of atoms, and single ones, whose element says how they behave: one bad habit each, hydrogen has none."""

    name = 'dimers'
    properties = frozenset({'energy', 'forces', 'forces_std', 'atomic_energies'})
    n_members = 2

    def __init__(self):
        self.batches = []

    @classmethod
    def load(cls, spec, directory, settings):
        return cls()

    def batch_atoms(self):
        return 6

    def evaluate(self, frames, request):
        if 7 in frames.numbers:
            raise FrameError(FrameStatus.BACKEND_FAILED, 'no nitrogen today')
        self.batches.append(len(frames))
        energies, spread, forces = np.zeros(len(frames)), np.zeros(len(frames)), np.zeros((frames.n_atoms, 3))
        for index, atoms in enumerate(frames):
            if len(atoms) == 1:
                continue
            vector = atoms.positions[1] - atoms.positions[0]
            r = np.linalg.norm(vector)
            energy, slope = {
                1: (20 * (r - 1) ** 2, 40 * (r - 1)),  # a bond
                2: (np.exp(-2 * r), -2 * np.exp(-2 * r)),  # repulsion, nothing else
                3: (2 * r, 2.0),  # attraction, nothing else
                4: (-1e5 * (r < 1.3), 1.0),  # a hole
                5: (r if r > 1.4 else np.nan, 1.0),  # no numbers
                6: (20 * (r - 1) ** 2, 40 * (r - 1)),  # a bond that the members do not agree on
            }[atoms.numbers[0]]
            energies[index], spread[index] = energy, 1.0 if atoms.numbers[0] == 6 and r < 1.3 else 0.01
            rows = slice(frames.offsets[index], frames.offsets[index + 1])
            forces[rows] = np.array([1, -1])[:, None] * slope * vector / r
        return Evaluation(
            energies,
            member_energies=np.array([energies - spread, energies + spread]),
            forces=forces,
            forces_std=np.abs(forces) if 'forces_std' in request else None,
            atomic_energies=np.zeros(frames.n_atoms) if 'atomic_energies' in request else None,
        )


def dimer(symbol, length=1.5):
    return Atoms(f'{symbol}2', [[0, 0, 0], [0, 0, length]])


def read(context, name):
    context.store.sync()
    return np.load(context.directory / 'arrays' / f'{name}.npy')


def run(context):
    GeometryOptimization().run(context)
    context.store.sync()
    return context


@pytest.mark.slow
@pytest.mark.parametrize('optimizer', ['LBFGS', 'FIRE'])
def test_minima_are_those_of_ase(make_context, emt, optimizer, crystals):
    frames = crystals()
    context = run(
        make_context(GeometryOptimization, emt, frames, optimizer=optimizer, force_tolerance=1e-3, batch_atoms=9)
    )
    assert (context.store.status == FrameStatus.OK).all()
    energies, positions = read(context, 'energies'), read(context, 'positions')
    for index, atoms in enumerate(frames):
        atoms.calc = EMT()
        assert read(context, 'initial_energies')[index] == pytest.approx(atoms.get_potential_energy())
        LBFGS(atoms, logfile=None).run(fmax=1e-3, steps=500)
        assert energies[index] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        rows = slice(frames.offsets[index], frames.offsets[index + 1])
        away = positions[rows] - atoms.positions
        assert np.abs(away - away.mean(axis=0)).max() < 0.01
    assert np.linalg.norm(read(context, 'forces'), axis=1).max() < 1e-3
    assert not (context.directory / 'arrays' / 'cells.npy').exists()


CELL_CASES = {
    'free': ({}, {}),
    'pressure': ({'pressure': 5.0}, {'scalar_pressure': 5 * GPa}),
    'mask': ({'cell_mask': [True, True, False, False, False, True]}, {'mask': [1, 1, 0, 0, 0, 1]}),
    'fixed volume': ({'fixed_volume': True}, {'constant_volume': True}),
    'hydrostatic': ({'hydrostatic': True}, {'hydrostatic_strain': True}),
}


@pytest.mark.slow
@pytest.mark.parametrize(('parameters', 'keywords'), CELL_CASES.values(), ids=CELL_CASES)
def test_cells_are_those_of_ase(make_context, emt, parameters, keywords, crystals):
    frames = crystals().select([0, 2, 3])
    context = run(
        make_context(GeometryOptimization, emt, frames, optimize_cell=True, force_tolerance=1e-3, **parameters)
    )
    assert (context.store.status == FrameStatus.OK).all()
    assert np.isfinite(read(context, 'stress')).all()
    for index, atoms in enumerate(frames):
        atoms.calc = EMT()
        LBFGS(FrechetCellFilter(atoms, **keywords), logfile=None).run(fmax=2e-4, steps=2000)
        assert read(context, 'energies')[index] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        lengths = np.linalg.norm(read(context, 'cells')[index], axis=1)
        np.testing.assert_allclose(lengths, atoms.cell.lengths(), atol=1e-3)


def test_a_stress_tolerance_replaces_the_forces_on_the_cell(make_context, emt, crystals):
    context = run(
        make_context(GeometryOptimization, emt, crystals(), optimize_cell=True, stress_tolerance=1e-5, pressure=2.0)
    )
    assert (context.store.status == FrameStatus.OK).all()
    assert np.abs(read(context, 'stress') + 2 * GPa * np.eye(3)).max() < 1e-5
    assert np.linalg.norm(read(context, 'forces'), axis=1).max() < 0.01


def test_what_is_asked_for_is_that_of_the_end(make_context):
    """Properties that no step needs are computed once, at the end."""
    backend = Dimers()
    asked = ['energy', 'forces_std', 'atomic_energies']
    context = run(make_context(GeometryOptimization, backend, Frames.from_ase([dimer('H')]), properties=asked))
    positions = read(context, 'positions')
    assert np.linalg.norm(positions[1] - positions[0]) == pytest.approx(1, abs=1e-3)
    assert read(context, 'forces_std').max() < 0.01
    assert read(context, 'energy_std')[0] == pytest.approx(0.01 * np.sqrt(2))
    assert read(context, 'initial_energies')[0] == pytest.approx(5)
    assert len(backend.batches) == read(context, 'steps')[0] + 2
    assert not (context.directory / 'arrays' / 'forces.npy').exists()


def test_each_step_is_one_batch_of_those_under_way(make_context):
    """Six atoms fit: three dimers, and when one of them is at its end the next takes its place."""
    backend = Dimers()
    structures = [dimer('H', 1 + 0.05 * index) for index in range(8)]
    context = run(make_context(GeometryOptimization, backend, Frames.from_ase(structures)))
    steps = read(context, 'steps')
    assert (context.store.status == FrameStatus.OK).all()
    assert max(backend.batches) == 3 and sum(backend.batches) == (steps + 1).sum()
    assert len(backend.batches) < (steps + 1).sum() / 2


def test_what_is_converged_takes_no_step(make_context):
    structures = [dimer('H', 1.0), Atoms('H'), dimer('H', 1.5)]
    constraints = [{'kind': 'atoms', 'atoms': [0, 1], 'structures': [2]}]
    context = run(make_context(GeometryOptimization, Dimers(), Frames.from_ase(structures), constraints=constraints))
    assert read(context, 'steps').tolist() == [0, 0, 0]
    assert (context.store.status == FrameStatus.OK).all()
    np.testing.assert_array_equal(read(context, 'positions'), np.concatenate([item.positions for item in structures]))
    np.testing.assert_array_equal(read(context, 'energies'), read(context, 'initial_energies'))


# What goes wrong


def test_every_bad_end_has_its_status_and_the_others_are_well(make_context):
    names = ['H', 'He', 'Li', 'Be', 'B', 'C', 'N', 'H']
    frames = Frames.from_ase([dimer(name, 0.4 if name == 'He' else 1.5) for name in names])
    context = run(make_context(GeometryOptimization, Dimers(), frames, max_qbc=0.1, minimum_distance=0.3, trajectory=1))
    found = [FrameStatus(status).name for status in context.store.status]
    assert found == [
        'OK', 'BROKE_APART', 'ATOMS_TOO_CLOSE', 'EXPLODED', 'EXPLODED', 'SPREAD_TOO_LARGE', 'BACKEND_FAILED', 'OK'
    ]  # fmt: skip
    assert sorted(context.messages) == [1, 2, 3, 4, 5, 6]
    positions = read(context, 'positions').reshape(-1, 2, 3)
    lengths = np.linalg.norm(positions[:, 1] - positions[:, 0], axis=1)
    assert np.isnan(lengths[[2, 6]]).all()
    assert lengths[1] > 1.0, 'apart'
    assert 1.3 <= lengths[3] < 1.5, 'as it was before it fell into the hole'
    assert 1.4 < lengths[4] <= 1.5, 'where there were numbers'
    assert lengths[5] < 1.3, 'where the members disagree'
    for index in (3, 4):
        last = read_directory(context.directory / 'trajectory').frame(index)
        assert last.steps[-1] == read(context, 'steps')[index]
        np.testing.assert_array_equal(last.positions[-1], positions[index])
    assert np.isfinite(read(context, 'energies')[[0, 1, 3, 4, 5, 7]]).all()


def test_not_converged_keeps_the_last_geometry(make_context, emt, crystals):
    frames = crystals()
    context = run(
        make_context(GeometryOptimization, emt, frames, max_steps=2, force_tolerance=1e-4, precision='double')
    )
    moving = np.array([index for index in range(6) if frames.counts[index] > 1])
    assert (context.store.status[moving] == FrameStatus.NOT_CONVERGED).all()
    assert (read(context, 'steps')[moving] == 2).all()
    assert (read(context, 'energies')[moving] < read(context, 'initial_energies')[moving]).all()
    assert 'after 2 steps: the largest force is' in context.messages[int(moving[0])]


@pytest.mark.parametrize('extra', [{}, {'energy_tolerance': 1e-9}])
def test_going_on_gives_as_many_steps_again_and_ends_where_one_run_does(make_context, emt, tmp_path, extra, crystals):
    frames = crystals().select([2, 3])
    one = run(make_context(GeometryOptimization, emt, frames, tmp_path / 'one', **extra))
    for expected in (2, 4):
        again = run(make_context(GeometryOptimization, emt, frames, tmp_path / 'two', max_steps=2, **extra))
        assert read(again, 'steps').tolist() == [expected] * 2
    last = run(make_context(GeometryOptimization, emt, frames, tmp_path / 'two', **extra))
    assert (last.store.status == FrameStatus.OK).all()
    np.testing.assert_allclose(read(last, 'energies'), read(one, 'energies'), atol=1e-4)
    np.testing.assert_array_equal(read(last, 'initial_energies'), read(one, 'initial_energies'))


def test_going_on_with_a_cell(make_context, emt, crystals):
    """Also the deformation goes on from where it was, with its mask relative to the cell of the job."""
    frames = crystals().select([2, 3])
    mask = [True, True, False, False, False, True]
    parameters = {'optimize_cell': True, 'cell_mask': mask, 'trajectory': 1}
    first = run(make_context(GeometryOptimization, emt, frames, max_steps=3, **parameters))
    cells, energies = read(first, 'cells'), read(first, 'energies')
    context = run(make_context(GeometryOptimization, emt, frames, **parameters))
    for index in range(2):
        again = read_directory(context.directory / 'trajectory').frame(index)
        np.testing.assert_allclose(again.cells[3], cells[index], atol=1e-12)
        assert again.energies[3] == pytest.approx(energies[index], abs=1e-9)
    assert (context.store.status == FrameStatus.OK).all()
    deformation = np.linalg.solve(frames.cells, read(context, 'cells'))
    np.testing.assert_allclose(deformation[:, 2], [[0, 0, 1]] * 2, atol=1e-10)
    np.testing.assert_allclose(deformation[:, :2, 2], 0, atol=1e-10)


def test_molecules_have_no_cell_and_the_crystals_go_on(make_context, emt):
    frames = Frames.from_ase([molecule('H2O'), bulk('Cu'), bulk('Al', cubic=True)])
    context = run(make_context(GeometryOptimization, emt, frames, optimize_cell=True))
    assert context.store.status.tolist() == [FrameStatus.NO_CELL, FrameStatus.OK, FrameStatus.OK]
    assert 'no cell to optimize' in context.messages[0]


def test_molecules_and_crystals_in_one_job(make_context, emt, crystals):
    structures = [molecule('H2O'), *crystals(4), Atoms('Cu')]
    structures[0].rattle(0.05)
    context = run(make_context(GeometryOptimization, emt, Frames.from_ase(structures), batch_atoms=7))
    assert (context.store.status == FrameStatus.OK).all()


def test_a_constraint_that_does_not_fit(make_context):
    structures = [Atoms('H'), dimer('H')]
    context = run(
        make_context(
            GeometryOptimization, Dimers(), Frames.from_ase(structures), constraints=[{'kind': 'atoms', 'atoms': [1]}]
        )
    )
    assert context.store.status.tolist() == [FrameStatus.INVALID_CONSTRAINT, FrameStatus.OK]
    assert 'atom 1' in context.messages[0]


@pytest.mark.parametrize(
    ('parameters', 'text'),
    [
        ({'optimizer': 'BFGS'}, 'for a single structure and there are 2: choose LBFGS or FIRE'),
        ({'constraints': [{'kind': 'atoms', 'atoms': [0], 'structures': [2]}]}, 'names structure 2'),
        ({'max_qbc': 0.1}, 'needs an ensemble'),
        ({'keep_symmetry': True}, 'keep_symmetry'),
    ],
)
def test_what_the_whole_job_cannot_do(make_context, emt, parameters, text, crystals):
    with pytest.raises(WorkerError, match=text):
        run(make_context(GeometryOptimization, emt, crystals(2), **parameters))


def test_a_model_without_stress(make_context):
    frames = Frames.from_ase([bulk('H', 'fcc', a=2)])
    with pytest.raises(WorkerError, match='gives no stress'):
        run(make_context(GeometryOptimization, Dimers(), frames, optimize_cell=True))


def test_single_precision_is_told_what_it_cannot_resolve(make_context, emt, crystals):
    emt.precision = 'single'
    context = run(make_context(GeometryOptimization, emt, crystals(2), force_tolerance=1e-5, precision='double'))
    assert any('below what forces in single precision resolve' in note for note in context.notes)


# Another optimizer


def test_another_optimizer_for_one_structure(make_context, emt, crystals):
    frames = crystals().select([3])
    expected = run(make_context(GeometryOptimization, emt, frames, force_tolerance=1e-3))
    energy = read(expected, 'energies')[0]
    directory = expected.directory / 'bfgs'
    directory.mkdir()
    context = run(
        make_context(GeometryOptimization, emt, frames, directory, force_tolerance=1e-3, optimizer='BFGS', trajectory=1)
    )
    assert context.store.status.tolist() == [FrameStatus.OK]
    assert read(context, 'energies')[0] == pytest.approx(energy, abs=1e-4)
    steps = read_directory(directory / 'trajectory').frame(0).steps
    assert steps.tolist() == list(range(read(context, 'steps')[0] + 1))


def test_another_optimizer_is_limited_and_goes_on(make_context, emt, crystals):
    frames = crystals().select([3])
    parameters = {'optimizer': 'BFGS', 'force_tolerance': 1e-3}
    first = run(make_context(GeometryOptimization, emt, frames, max_steps=3, **parameters))
    assert first.store.status.tolist() == [FrameStatus.NOT_CONVERGED] and read(first, 'steps')[0] == 3
    second = run(make_context(GeometryOptimization, emt, frames, **parameters))
    assert second.store.status.tolist() == [FrameStatus.OK] and read(second, 'steps')[0] > 3


def test_another_optimizer_that_gives_up(make_context, emt, monkeypatch, crystals):
    def give_up(*args):
        raise RuntimeError('LineSearch failed!')

    monkeypatch.setattr('ase.optimize.bfgs.BFGS.step', give_up)
    context = run(make_context(GeometryOptimization, emt, crystals().select([3]), optimizer='BFGS'))
    assert 'gave up: RuntimeError: LineSearch failed!; choose LBFGS or FIRE' in context.messages[0]
    assert context.store.status.tolist() == [FrameStatus.NOT_CONVERGED]
