"""Vibrational analysis of many frames: what is stored, what is refused, and what a kill or a stop costs."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk, molecule
from waiting import wait_for

from aiida_mlpotential.worker.backends.base import Backend, Evaluation
from aiida_mlpotential.worker.checkpoint import CheckpointFile
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames, sha256_of
from aiida_mlpotential.worker.runner import run_job
from aiida_mlpotential.worker.schema import FRAMES_FILE, JOB_FILE, JobSpec
from aiida_mlpotential.worker.tasks.vibrations import Vibrations
from aiida_mlpotential.worker.vibrations import WAVENUMBER_OF_ONE, analyse

#: What the forces of each member are multiplied with; the mean of them is one.
MEMBERS = np.array([0.64, 1.0, 1.36])
NAMES = ('H2O', 'C2H2', 'CH4', 'O', 'C2H6', 'H2', 'C6H6', 'CH3OH')


def springs(atoms, scale=30.0):
    """Return the Hessian of springs between all atoms, at rest where these are, and of a wall that holds each."""
    matrix = np.zeros((3 * len(atoms),) * 2)
    for i, j in itertools.combinations(range(len(atoms)), 2):
        line = atoms.positions[i] - atoms.positions[j]
        way = np.zeros((len(atoms), 3))
        way[i], way[j] = line, -line
        matrix += scale / np.linalg.norm(line) ** 4 * np.outer(way, way)
    return matrix + 0.5 * np.eye(len(matrix)) * (len(atoms) > 1)


class Fake(Backend):
    """Three members; molecules are told by their number of atoms, and harmonic about where they were made."""

    name = 'fake'
    properties = frozenset({'energy', 'forces', 'forces_std', 'hessian'})
    n_members = 3

    def __init__(self, structures, fault=lambda frames: None):
        self.centres = {len(atoms): atoms.positions.ravel() for atoms in structures}
        self.matrices = {len(atoms): springs(atoms) for atoms in structures}
        self.fault, self.sizes, self.requests = fault, [], []

    @classmethod
    def load(cls, spec, directory, settings):
        raise AssertionError

    def evaluate(self, frames, request):
        self.sizes.append(frames.n_atoms)
        self.requests.append(request)
        self.fault(frames)
        ways = [
            frames.positions[i:j].ravel() - self.centres[j - i]
            for i, j in zip(frames.offsets, frames.offsets[1:], strict=False)
        ]
        slopes = [self.matrices[len(way) // 3] @ way for way in ways]
        energies = np.array([way @ slope / 2 for way, slope in zip(ways, slopes, strict=True)])
        forces = -np.concatenate(slopes).reshape(-1, 3)
        members = MEMBERS[:, None, None] * forces if 'member_forces' in request else None
        return Evaluation(energies, MEMBERS[:, None] * energies, forces, member_forces=members)


@pytest.fixture
def structures():
    """Return molecules of eight different sizes, at rest."""
    return [molecule(name) for name in NAMES]


@pytest.fixture
def run(make_context, structures, tmp_path):
    """Return a function that runs the task over these molecules."""

    def function(backend=None, task=Vibrations, atoms=None, **parameters):
        parameters.get('directory', tmp_path).mkdir(exist_ok=True)
        frames = Frames.from_ase(structures if atoms is None else atoms, labels=NAMES if atoms is None else ())
        context = make_context(task, backend or Fake(structures), frames, **parameters)
        task().run(context)
        return context

    return function


def saddle(backend, atoms, *eigenvalues):
    """Give the vibrations of a molecule these eigenvalues, eV/angstrom^2/amu; the rest keep theirs."""
    modes = analyse(Frames.from_ase([atoms]), backend.matrices[len(atoms)][None])
    masses = np.repeat(atoms.get_masses(), 3)
    rows = modes.modes[0] * masses / np.sqrt(modes.reduced_masses[0])[:, None]
    values = np.square(modes.frequencies[0] / WAVENUMBER_OF_ONE)
    first = int(modes.n_rigid[0])
    values[first : first + len(eigenvalues)] = eigenvalues
    backend.matrices[len(atoms)] = rows.T @ np.diag(values) @ rows


def eigenvalue(wavenumber):
    """Return the eigenvalue of a wavenumber, negative for an imaginary one."""
    return np.sign(wavenumber) * (wavenumber / WAVENUMBER_OF_ONE) ** 2


def test_every_array_is_stored_for_every_frame(run, structures):
    context = run()
    assert (context.store.status == FrameStatus.OK).all()
    for index, atoms in enumerate(structures):
        matrix = springs(atoms)
        modes = analyse(Frames.from_ase([atoms]), matrix[None])
        read = {name: context.store.read(name, index) for name in context.store.names}
        np.testing.assert_allclose(read['hessian'], matrix.ravel(), rtol=0, atol=1e-6)
        np.testing.assert_allclose(read['frequencies'], modes.frequencies[0], rtol=0, atol=1e-3)
        np.testing.assert_allclose(read['reduced_masses'][:3], modes.reduced_masses[0, :3])
        shapes = read['normal_modes'].reshape(3 * len(atoms), -1)
        np.testing.assert_allclose(np.linalg.norm(shapes, axis=1), 1)
        assert read['n_rigid'] == (3 if len(atoms) == 1 else 5 if NAMES[index] in ('C2H2', 'H2') else 6)
        assert read['n_imaginary'] == 0 and read['stationary'] == 1
        assert read['zero_point_energies'] == pytest.approx(modes.zero_point_energies[0], abs=1e-6)
        assert read['energies'] == pytest.approx(0)
    assert context.progress.line().startswith('progress: 8/8')


def test_members_have_their_frequencies_and_a_spread(run):
    context = run()
    for index in range(8):
        mean, members = context.store.read('frequencies', index), context.store.read('member_frequencies', index)
        np.testing.assert_allclose(members, np.sqrt(MEMBERS)[:, None] * mean, rtol=1e-6, atol=1e-6)
        spread = context.store.read('frequency_std', index)
        np.testing.assert_allclose(spread, members.std(axis=0, ddof=1), rtol=0, atol=1e-9)
        assert np.array_equal(spread[: context.store.read('n_rigid', index)] == 0, mean[mean == 0] == 0)


def test_members_of_frames_that_are_analysed_together_are_not_mixed_up(run, structures):
    context = run(atoms=[structures[2]] * 4)
    for index in range(4):
        mean, members = context.store.read('frequencies', index), context.store.read('member_frequencies', index)
        np.testing.assert_allclose(members, np.sqrt(MEMBERS)[:, None] * mean, rtol=1e-6, atol=1e-6)


def test_members_are_left_out_on_request(run, structures):
    backend = Fake(structures)
    context = run(backend, member_frequencies=False)
    assert not {'member_frequencies', 'frequency_std'} & set(context.store.names)
    assert not any('member_forces' in request for request in backend.requests)
    assert 'energy_std' in context.store.names


def test_the_notes_say_how_hessians_were_made(run, structures):
    assert [note for note in run().notes if 'double precision' in note]
    backend = Fake(structures)
    backend.precision = 'single'
    assert [note for note in run(backend).notes if 'fourth order' in note]


@pytest.mark.parametrize(
    ('expected', 'wavenumbers', 'verdict'),
    [
        ('any', (-500, -300), ''),
        ('minimum', (), ''),
        ('minimum', (-15,), ''),
        ('minimum', (-500,), 'not a minimum: it has 1 imaginary mode (500i cm^-1)'),
        ('minimum', (-500, -300), 'not a minimum: it has 2 imaginary modes (500i, 300i cm^-1)'),
        ('transition_state', (-500,), ''),
        ('transition_state', (-500, -15), ''),
        ('transition_state', (), 'not a transition state: it has no imaginary mode'),
        ('transition_state', (-500, -300), 'not a transition state: it has 2 imaginary modes (500i, 300i cm^-1)'),
    ],
)
def test_the_character_of_a_stationary_point_is_judged(run, structures, expected, wavenumbers, verdict):
    backend = Fake(structures)
    saddle(backend, structures[4], *map(eigenvalue, wavenumbers))
    context = run(backend, atoms=[structures[4]], expected=expected)
    status = FrameStatus.WRONG_CHARACTER if verdict else FrameStatus.OK
    assert context.store.status.tolist() == [status]
    assert context.messages == ({0: verdict} if verdict else {})
    assert context.store.read('n_imaginary', 0) == sum(value < -20 for value in wavenumbers)
    found = context.store.read('frequencies', 0)
    np.testing.assert_allclose(np.sort(found)[: len(wavenumbers)], sorted(wavenumbers), rtol=0, atol=1e-3)


def test_small_imaginary_modes_are_noted_and_do_not_count(run, structures, tmp_path):
    backend = Fake(structures)
    saddle(backend, structures[4], eigenvalue(-600), eigenvalue(-7))
    context = run(backend)
    assert context.store.read('n_imaginary', 4) == 1
    assert [note for note in context.notes if 'imaginary_cutoff = 20.0 cm^-1 do not count (1 structure: C2H6)' in note]
    strict = run(backend, atoms=[structures[4]], imaginary_cutoff=5.0, directory=tmp_path / 'strict')
    assert strict.store.read('n_imaginary', 0) == 2
    assert not [note for note in strict.notes if 'imaginary_cutoff' in note]


def test_a_frame_that_is_not_stationary_is_flagged(run, structures, tmp_path):
    moved = [atoms.copy() for atoms in structures]
    moved[2].positions[1, 0] += 0.05
    context = run(atoms=moved)
    assert [int(context.store.read('stationary', index)) for index in range(8)] == [1, 1, 0, 1, 1, 1, 1, 1]
    assert context.store.status[2] == FrameStatus.OK
    assert [note for note in context.notes if 'not stationary' in note and '(1 structure: #2)' in note]
    loose = run(atoms=moved, force_tolerance=20.0, directory=tmp_path / 'loose')
    assert loose.store.read('stationary', 2) == 1


def test_what_is_not_stationary_is_no_minimum(run, structures):
    moved = structures[2].copy()
    moved.positions[1, 0] += 0.05
    context = run(atoms=[moved], expected='minimum')
    assert context.store.status.tolist() == [FrameStatus.WRONG_CHARACTER]
    assert 'largest force' in context.messages[0] and 'optimize it first' in context.messages[0]
    assert np.isfinite(context.store.read('frequencies', 0)).all()


@pytest.mark.parametrize('displaced', [False, True])
def test_a_bad_frame_costs_no_other(run, structures, displaced):
    """It fails where it is, or only once it is displaced."""
    top = structures[4].positions[3, 1] + (1e-6 if displaced else -1)

    def fault(frames):
        large = np.flatnonzero(frames.counts == 8)
        if np.any(frames.positions[frames.offsets[large] + 3, 1] > top):
            raise RuntimeError('no')

    context = run(Fake(structures, fault), batch_atoms=200)
    assert np.flatnonzero(context.store.status != FrameStatus.OK).tolist() == [4]
    assert context.store.status[4] == FrameStatus.BACKEND_FAILED
    assert context.messages == {4: 'RuntimeError: no'}
    assert np.isnan(context.store.read('frequencies', 4)).all()
    assert context.progress.line().startswith('progress: 8/8')


def test_a_backend_without_forces_fails_every_frame(run, structures):
    class Mute(Fake):
        def evaluate(self, frames, request):
            return Evaluation(np.zeros(len(frames)), np.zeros((3, len(frames))))

    context = run(Mute(structures))
    assert (context.store.status == FrameStatus.BACKEND_FAILED).all()
    assert 'no forces' in context.messages[0]


class Killed(BaseException):
    """As SIGKILL: nobody catches it."""


def _dies_after(structures, batches):
    """Return a backend that is killed in the given batch."""
    backend = Fake(structures)

    def fault(frames):
        if len(backend.sizes) > batches:
            raise Killed

    backend.fault = fault
    return backend


def _same(one, other):
    assert np.array_equal(one.store.status, other.store.status)
    for name in one.store.names:
        for index in range(len(one.frames)):
            assert np.array_equal(one.store.read(name, index), other.store.read(name, index)), (name, index)


def test_a_job_killed_in_one_hessian_loses_at_most_one_interval(run, structures, tmp_path):
    """Benzene in batches of one row; with checkpoints after each, the second run makes the rows that are missing."""
    benzene = [structures[6]]
    parameters = {'batch_atoms': 24, 'checkpoint_interval': 0, 'properties': ['energy']}
    whole = run(atoms=benzene, directory=tmp_path / 'whole', **parameters)
    with pytest.raises(Killed):
        run(_dies_after(structures, 4 + 20), atoms=benzene, **parameters)
    backend = Fake(structures)
    again = run(backend, atoms=benzene, **parameters)
    assert backend.sizes == [12] + [24] * (36 - 20)  # where it is, then what the first run had not done
    _same(whole, again)
    assert again.checkpoints.load() is None


def test_what_was_under_way_is_done_before_anything_else_is_begun(run, structures, tmp_path):
    """A second kill would otherwise cost what the checkpoint of the first one has."""
    parameters = {'batch_atoms': 24, 'checkpoint_interval': 0, 'properties': ['energy']}
    order = [6, 4, 1, 0]  # benzene is the last in the order of batches
    with pytest.raises(Killed):
        run(_dies_after(structures, 4 + 20), atoms=[structures[6]], **parameters)
    shutil.rmtree(tmp_path / 'arrays')
    with pytest.raises(Killed):
        run(_dies_after(structures, 5), atoms=[structures[index] for index in order], **parameters)
    begun = CheckpointFile(tmp_path, 'job', 0).load()
    assert begun['frame'] == 0 and begun['values'].shape == (4, 20 + 4, 36)


@pytest.mark.parametrize('batches', [1, 3, 6, 9, 17, 31])
def test_a_job_killed_at_any_moment_ends_with_the_same_results(run, structures, tmp_path, batches):
    """Also when the next run has other batches."""
    whole = run(directory=tmp_path / 'whole', batch_atoms=50, checkpoint_interval=0)
    with pytest.raises(Killed):
        run(_dies_after(structures, batches), batch_atoms=50, checkpoint_interval=0)
    again = run(batch_atoms=70, checkpoint_interval=0)
    _same(whole, again)


def test_a_soft_stop_saves_what_is_under_way(run, structures, tmp_path):
    """However often: each run ends after its batch, and nothing that was done is done again."""
    parameters = {'batch_atoms': 50, 'checkpoint_interval': 10_000}
    whole = run(directory=tmp_path / 'whole', **parameters)
    runs = 0
    while runs < 500:
        runs += 1
        asked = iter(range(100))
        context = run(stopping=lambda asked=asked: next(asked) >= 2, **parameters)
        if not np.any(context.store.status == FrameStatus.PENDING):
            break
    assert 10 < runs < 100
    _same(whole, context)


def test_a_frame_that_another_run_has_finished_is_not_taken_from_the_checkpoint(run, structures):
    """A kill may come between the results of a frame and the end of the job."""
    first = run()
    first.checkpoints.save({'frame': np.array(3), 'reach': np.array(1), 'values': np.zeros((4, 1, 3))})
    backend = Fake(structures)
    _same(first, run(backend))
    assert not backend.sizes


def test_a_subclass_stores_what_it_derives(run, structures):
    seen = []

    class Charged(Vibrations):
        @classmethod
        def own(cls, parameters, ensemble):
            return (*super().own(parameters, ensemble), 'charges')

        def derive(self, context, indices, frames, arrays):
            assert np.array_equal(frames.numbers, context.frames.select(indices).numbers)
            assert arrays['member_frequencies'].shape == (3, 3 * frames.n_atoms)
            assert arrays['frequencies'].shape == (3 * frames.n_atoms,)
            assert arrays['n_rigid'].shape == arrays['energies'].shape == (len(indices),)
            seen.extend(indices.tolist())
            return {'charges': np.repeat(indices, frames.counts).astype(float)}

    context = run(task=Charged)
    assert sorted(seen) == list(range(8))
    for index in range(8):
        assert np.all(context.store.read('charges', index) == index)


@pytest.mark.slow
def test_a_process_killed_by_the_system_goes_on_from_its_checkpoint(tmp_path, slow_emt):
    """SIGKILL in the Hessian of one crystal."""
    atoms = bulk('Cu', cubic=True) * (2, 2, 2)
    atoms.rattle(0.02, seed=2)
    parameters = {'batch_atoms': 64, 'checkpoint_interval': 0, 'properties': ['energy']}

    def prepared(name):
        folder = tmp_path / name
        folder.mkdir()
        Frames.from_ase([atoms]).write(folder / FRAMES_FILE)
        job = JobSpec('vibrations', slow_emt, parameters, sha256_of(folder / FRAMES_FILE))
        (folder / JOB_FILE).write_text(job.to_json())
        return folder, job

    folder, job = prepared('killed')
    state = folder / 'checkpoint' / 'state.npz'
    command = [sys.executable, '-m', 'aiida_mlpotential.worker', JOB_FILE]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: state.exists() or process.poll() is not None, what='the first checkpoint')
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, 'it ended before it could be killed'
    with np.load(state) as file:
        assert 0 < file['values'].shape[1] < 96
    assert np.load(folder / 'arrays' / 'status.npy').tolist() == [FrameStatus.PENDING]
    assert run_job(lambda: job, folder)
    other, undisturbed = prepared('undisturbed')
    assert run_job(lambda: undisturbed, other)
    assert not state.exists()
    for path in (other / 'arrays').glob('*.npy'):
        assert path.read_bytes() == (folder / 'arrays' / path.name).read_bytes(), path.name
