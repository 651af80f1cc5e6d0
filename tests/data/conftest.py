"""Fixtures of the tests of data nodes: the files of a job that ended, made by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from ase.build import bulk, molecule

from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.quantities import QUANTITIES

INFO = {
    'model': {'name': 'ANI-x', 'backend': 'torchani', 'sha256': 'ab' * 32, 'ensemble_size': 4},
    'messages': {'1': 'atoms 0 and 1 are 0.1 angstrom apart'},
    'units': {},
    'precision': 'single',
}
#: Water, a structure that failed, periodic copper, and one that was not reached.
LABELS = ('water', 'bad', 'copper', 'late')


@pytest.fixture
def info():
    """Return what a results file says."""
    return INFO


@pytest.fixture
def frames():
    return Frames.from_ase([molecule('H2O'), molecule('H2'), bulk('Cu'), molecule('CH4')], LABELS)


@pytest.fixture
def arrays(frames):
    return _make_arrays(frames, [FrameStatus.OK, FrameStatus.ATOMS_TOO_CLOSE, FrameStatus.OK, FrameStatus.PENDING])


def _make_arrays(frames, status):
    rng, n, n_atoms, m = np.random.default_rng(4), len(frames), frames.n_atoms, 4
    members = np.asfortranarray(rng.normal(-100, 1, size=(m, n)))
    arrays = {
        'energies': members.mean(axis=0),
        'forces': rng.normal(size=(n_atoms, 3)).astype('f4'),
        'stress': rng.normal(size=(n, 3, 3)),
        'member_energies': members,
        'energy_std': members.std(axis=0, ddof=1),
        'qbc': members.std(axis=0, ddof=1) / np.sqrt(np.maximum(frames.counts, 1)),
        'forces_std': rng.random((n_atoms, 3)).astype('f4'),
        'atomic_energies': rng.normal(size=n_atoms),
        'charges': rng.normal(size=n_atoms),
        'hessian': rng.normal(size=int((9 * frames.counts**2).sum())),
    }
    arrays['stress'] += arrays['stress'].transpose(0, 2, 1)
    arrays['stress'][~frames.pbc.all(axis=1)] = np.nan
    status = np.array(status, dtype='i1')
    for name, array in arrays.items():
        kind = QUANTITIES[name].shape
        if kind in ('atom', 'atom3'):
            array[np.repeat(status != 0, frames.counts)] = np.nan
        elif kind == 'hessian':
            array[np.repeat(status != 0, 9 * frames.counts**2)] = np.nan
        elif kind == 'member':
            array[:, status != 0] = np.nan
        else:
            array[status != 0] = np.nan
    return {**arrays, 'status': status, 'offsets': np.asarray(frames.offsets, dtype='<i8')}


def _npy(array, **kwargs):
    stream = io.BytesIO()
    np.save(stream, array, **kwargs)
    return stream.getvalue()


def _make_folder(arrays, **files):
    """Return a stored folder with arrays, and raw contents that replace them; ``None`` leaves a file out."""
    contents = {**{name: _npy(array) for name, array in arrays.items()}, **files}
    folder = orm.FolderData()
    for name, content in contents.items():
        if content is not None:
            folder.base.repository.put_object_from_filelike(io.BytesIO(content), f'arrays/{name}.npy')
    return folder.store()


def _attach(results, structures, link='structures'):
    """Store results as the output of a job with these structures."""
    job = orm.CalcJobNode(process_type='aiida.calculations:mlpotential.single_point')
    job.base.links.add_incoming(structures.store(), LinkType.INPUT_CALC, link)
    job.store()
    results.base.links.add_incoming(job, LinkType.CREATE, 'results')
    return results.store()


@pytest.fixture
def make_arrays():
    """Return the function of this name."""
    return _make_arrays


@pytest.fixture
def make_folder():
    """Return the function of this name."""
    return _make_folder


@pytest.fixture
def attach():
    """Return the function of this name."""
    return _attach


@pytest.fixture
def results(arrays, frames):
    structures = StructureSetData.from_frames(frames)
    return _attach(ResultsData.from_folder(_make_folder(arrays), INFO, structures_info=structures.info), structures)
