"""Values that never reached the disk are computed again, whatever their status says."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_mlpotential.worker import storage
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.storage import ResultsStore, Sizes
from aiida_mlpotential.worker.torn import torn_frames

#: Arrays of which single rows, or all, may have no values.
OPTIONAL = ('member_frequencies', 'frequency_std', 'member_gibbs_energies', 'gibbs_energy_std')
NAMES = ('energies', 'forces', 'stress', 'member_energies', 'hessian', 'steps', *OPTIONAL)


def _frames() -> Frames:
    """Return crystals and molecules of different sizes."""
    crystal, molecule = bulk('Cu') * (2, 1, 1), Atoms('Cu3', np.arange(9).reshape(3, 3) * 2.0)
    return Frames.from_ase([crystal, molecule, bulk('Cu'), molecule, crystal])


@pytest.fixture
def store(tmp_path):
    """Return results in which every structure is evaluated; molecules have no stress."""
    frames = _frames()
    store = ResultsStore(tmp_path, frames.offsets, NAMES, Sizes(n_members=2, n_temperatures=3))
    store.open('job')
    sizes = 9 * np.diff(frames.offsets) ** 2
    stress = np.ones((5, 3, 3))
    stress[[1, 3]] = np.nan
    arrays = {
        'energies': np.ones(5),
        'forces': np.ones((frames.n_atoms, 3)),
        'stress': stress,
        'member_energies': np.ones((2, 5)),
        'hessian': np.ones(sizes.sum()),
        'steps': np.zeros(5),
        'member_frequencies': np.full((2, 3 * frames.n_atoms), np.nan),
        'frequency_std': np.full(3 * frames.n_atoms, np.nan),
        'member_gibbs_energies': np.full((5, 2, 3), np.nan),
        'gibbs_energy_std': np.full((5, 3), np.nan),
    }
    store.write(np.arange(5), arrays, np.full(5, FrameStatus.OK))
    store.sync()
    return store


def _lose(path, name, index):
    """Put in the file what is there before anything is written."""
    array = np.load(path / 'arrays' / f'{name}.npy', mmap_mode='r+')
    array[index] = -1 if array.dtype.kind == 'i' else np.nan
    array.flush()


def test_what_is_whole_is_left_alone(store):
    assert torn_frames(store, _frames()).tolist() == []


@pytest.mark.parametrize(
    ('name', 'index', 'frame'),
    [
        ('energies', 2, 2),
        ('forces', (4, 1), 1),
        ('forces', (-1, 2), 4),
        ('stress', (0, 2, 2), 0),
        ('member_energies', (1, 3), 3),
        ('hessian', 0, 0),
        ('hessian', 36, 1),
        ('hessian', -1, 4),
        ('steps', 4, 4),
    ],
)
@pytest.mark.parametrize('block', [1, 7, 1 << 18])
def test_one_missing_value_is_enough(store, tmp_path, monkeypatch, name, index, frame, block):
    monkeypatch.setattr(storage, '_BLOCK_ROWS', block)
    _lose(tmp_path, name, index)
    assert torn_frames(store, _frames()).tolist() == [frame]


def test_failed_structures_have_no_values_to_lose(store, tmp_path):
    _lose(tmp_path, 'energies', 2)
    store.mark(np.array([2]), np.array([FrameStatus.BACKEND_FAILED]))
    assert torn_frames(store, _frames()).tolist() == []


@pytest.mark.parametrize('task', ['single_point', 'geometry_optimization', 'vibrations'])
def test_a_job_goes_on_as_if_nothing_had_been_lost(job, copper, task):
    job.frames, job.task = copper(6), task
    parameters = {} if task == 'vibrations' else {'properties': ['energy', 'forces', 'stress']}
    assert job.run(**parameters)['state'] == 'finished'
    names = [path.stem for path in (job.directory / 'arrays').glob('*.npy')]
    whole = {name: job.array(name) for name in names}

    _lose(job.directory, 'energies', 3)
    _lose(job.directory, 'hessian' if task == 'vibrations' else 'forces', 0)
    notes = job.run(**parameters)['notes']
    assert 'values of 2 structures of an earlier run never reached the disk' in notes
    assert 'went on with the results of 4 structures of an earlier run' in notes
    for name, values in whole.items():
        np.testing.assert_array_equal(job.array(name), values)


def _molecules() -> Frames:
    """Return an atom and molecules near their minimum."""
    dimer = Atoms('Cu2', [(0, 0, 0), (0, 0, 2.2)])
    trimer = Atoms('Cu3', [(0, 0, 0), (2.3, 0, 0), (1.15, 2.0, 0)])
    return Frames.from_ase([Atoms('Cu', [(0, 0, 0)]), dimer, trimer])


@pytest.mark.parametrize('task', ['single_point', 'geometry_optimization', 'vibrations', 'thermochemistry'])
@pytest.mark.parametrize('molecules', [False, True], ids=['crystals', 'molecules'])
def test_a_finished_job_is_never_taken_for_torn(job, copper, task, molecules):
    job.frames, job.task = _molecules() if molecules else copper(4), task
    parameters = {'symmetry_number': 1, 'expected': 'any'} if task == 'thermochemistry' else {}
    job.run(**parameters)
    if molecules or task != 'thermochemistry':
        assert FrameStatus.OK in job.array('status')
    assert not [note for note in job.run(**parameters)['notes'] if 'never reached the disk' in note]
