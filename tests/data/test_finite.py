"""A value that is missing where a structure succeeded is found in every array, and nothing else is complained of."""

from __future__ import annotations

import io

import numpy as np
import pytest
from aiida import orm

from aiida_mlpotential.data import finite
from aiida_mlpotential.data.finite import check_finite
from aiida_mlpotential.data.npy import NpyFile, ResultsError
from aiida_mlpotential.worker.errors import FrameStatus

OFFSETS = np.array([0, 2, 5, 5, 6])
STATUS = np.array([FrameStatus.OK, FrameStatus.PENDING, FrameStatus.EMPTY, FrameStatus.OK])
#: Arrays of every shape for four structures with six atoms, and two members.
SHAPES = {
    'energies': (4,),
    'forces': (6, 3),
    'charges': (6,),
    'stress': (4, 3, 3),
    'member_energies': (2, 4),
    'hessian': (9 * (4 + 9 + 0 + 1),),
    'frequencies': (18,),
    'member_frequencies': (2, 18),
    'moments_of_inertia': (4, 3),
    'gibbs_energies': (4, 5),
}


@pytest.fixture
def files(aiida_profile_clean):
    """Return a function that stores arrays of ones, with NaN in one place."""

    def make(name=None, index=None, order='worker'):
        folder, found = orm.FolderData(), {}
        for key, shape in SHAPES.items():
            array = np.ones(shape)
            if key == name:
                array[index] = np.nan
            by_columns = (key.startswith('member')) == (order == 'worker')
            stream = io.BytesIO()
            np.save(stream, np.asfortranarray(array) if by_columns else np.ascontiguousarray(array))
            stream.seek(0)
            folder.base.repository.put_object_from_filelike(stream, f'{key}.npy')
        for key in SHAPES:
            found[key] = NpyFile.inspect(folder.base.repository, f'{key}.npy', key)
        return found

    return make


@pytest.mark.parametrize('order', ['worker', 'other'])
@pytest.mark.parametrize('block', [1, 5, 1 << 18])
@pytest.mark.parametrize(
    ('name', 'index'),
    [
        ('energies', 3),
        ('forces', (5, 2)),
        ('charges', 0),
        ('member_energies', (1, 0)),
        ('hessian', 35),
        ('hessian', -1),
        ('frequencies', 17),
        ('moments_of_inertia', (0, 1)),
        ('gibbs_energies', (3, 4)),
    ],
)
def test_a_missing_value_is_found(files, monkeypatch, name, index, block, order):
    monkeypatch.setattr(finite, '_BLOCK_ROWS', block)
    with pytest.raises(ResultsError, match=rf'^{name}\.npy has NaN or infinity where the status is OK$'):
        check_finite(files(name, index, order), OFFSETS, STATUS)


@pytest.mark.parametrize('order', ['worker', 'other'])
@pytest.mark.parametrize(
    ('name', 'index'),
    [
        (None, None),
        ('energies', [1, 2]),
        ('forces', slice(2, 5)),
        ('member_energies', (0, 1)),
        ('hessian', slice(36, 117)),
        ('frequencies', slice(6, 15)),
        ('stress', 0),
        ('member_frequencies', 0),
    ],
)
def test_structures_without_results_and_what_may_be_missing_are_no_fault(files, name, index, order):
    check_finite(files(name, index, order), OFFSETS, STATUS)
