"""Files from elsewhere with whatever in them: an exit code and nodes that can be stored, never an exception."""

from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pytest
from aiida import orm

from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import EXIT_CODES

#: What a parser may say; an exception has no exit status.
STATUSES = {0, *(code.status for code in EXIT_CODES)}
TASKS = ('geometry_optimization', 'vibrations', 'thermochemistry')


def _water():
    from ase import Atoms

    return Atoms('Cu3', [[0, 0, 0], [2.2, 0, 0], [0, 2.2, 0.1]])


@pytest.fixture
def job(request, finish, emt_model):
    """Return a finished job of each task, of one structure and of two."""
    task, number = request.param
    parameters = {'symmetry_number': 1, 'expected': 'any'} if task == 'thermochemistry' else {}
    if task == 'geometry_optimization':
        parameters = {'trajectory': 1}
    structures = orm.StructureData(ase=_water()) if number == 1 else StructureSetData.from_ase([_water()] * 2)
    return finish(task, structures, emt_model, parameters)


def _store(job):
    """Parse, store all outputs as the engine does, and return the exit status."""
    outputs, node = job.parse()
    for output in outputs.values():
        output.store()
    return node.exit_status


class _Bomb:
    def __reduce__(self):
        return print, ('unpickled',)


def _header(shape, descr='<f8'):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {'descr': descr, 'fortran_order': False, 'shape': shape})
    return stream.getvalue()


def _saved(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _filled(content, value, integer):
    array = np.load(io.BytesIO(content))
    return _saved(np.full_like(array, integer if array.dtype.kind == 'i' else value, order='K'))


DAMAGES = {
    'cut short': lambda content: content[:-5],
    'empty': lambda content: b'',
    'no array': lambda content: b'\x93NUMPY' + b'\xff' * 200,
    'too many': lambda content: _header((10**15, 3)) + b'\0' * 64,
    'negative': lambda content: _header((-3,)) + b'\0' * 64,
    'objects': lambda content: _header((1,), '|O') + pickle.dumps([_Bomb()]),
    'texts': lambda content: _saved(np.array(['x', 'y'])),
    'another shape': lambda content: _saved(np.zeros((7, 2, 1))),
    'nan': lambda content: _filled(content, np.nan, -7),
    'inf': lambda content: _filled(content, np.inf, 127),
    'huge': lambda content: _filled(content, 1e308, 99),
    'complex': lambda content: _saved(np.load(io.BytesIO(content)).astype(complex)),
}


#: Headers and sizes of all arrays go through the same checks: some arrays stand for all.
PROBED = ('energies', 'offsets', 'positions', 'normal_modes', 'status', 'steps')
#: Arrays of which numbers stand in the summary or in the attributes of nodes.
SUMMARIZED = (
    *('energies', 'forces', 'initial_energies', 'positions', 'steps', 'frequencies', 'n_rigid', 'n_imaginary'),
    *('zero_point_energies', 'symmetry_numbers', 'gibbs_energies', 'entropies', 'status'),
)
#: Damages after which numbers are still numbers: those of most arrays cannot be told from results.
MAY_PASS = ('complex', 'nan', 'inf', 'huge')


@pytest.mark.slow
@pytest.mark.parametrize('damage', DAMAGES)
@pytest.mark.parametrize('job', [(TASKS[0], 1), (TASKS[2], 1)], indirect=True)
def test_arrays(job, damage, capsys):
    for path in sorted((job.directory / 'arrays').glob('*.npy')):
        if path.stem not in (SUMMARIZED if damage in MAY_PASS else PROBED):
            continue
        content = path.read_bytes()
        path.write_bytes(DAMAGES[damage](content))
        try:
            status = _store(job)
        except Exception as exception:
            raise AssertionError(f'{path.name}, {damage}: {type(exception).__name__}: {exception}') from exception
        assert status != 0 or damage in MAY_PASS, path.name
        path.write_bytes(content)
    assert 'unpickled' not in capsys.readouterr().out


CHANGES = [
    ('timings', {'evaluate': 'INFINITE'}),
    ('peak_memory_mb', 'INFINITE'),
    ('notes', ['\ud800']),
    ('notes', ['\0']),
    ('messages', {'²': 'x'}),
    ('messages', {'9' * 5000: 'x'}),
    ('messages', {'99999999999999999999999': 'x'}),
    ('units', {'\ud800': 'eV'}),
    ('temperatures', ['a']),
    ('temperatures', [1e-320]),
    ('temperatures', [300.0] * 9),
    ('temperatures', []),
    ('temperatures', None),
    ('task', 'nonsense'),
    ('task', '../../x'),
    ('model', {'name': [], 'sha256': {}, 'trusted': 'x', 'ensemble_size': 'INFINITE'}),
    ('model', {'name': '\0\ud800'}),
    ('counts', {'total': 'x'}),
    ('error', {'label': 'parse', 'message': '{detail}'}),
    ('error', {'label': '__class__', 'message': 'x'}),
    ('device', '\ud800'),
    ('batch_atoms', 10**300),
    ('state', 'starting'),
]


@pytest.mark.slow
@pytest.mark.parametrize(('key', 'value'), CHANGES)
@pytest.mark.parametrize('job', [(TASKS[0], 1), (TASKS[2], 2)], indirect=True)
def test_results_files(job, key, value):
    path = job.directory / 'results.json'
    info = json.loads(path.read_text())
    info[key] = value
    path.write_text(json.dumps(info).replace('"INFINITE"', '1e999'))
    assert _store(job) in STATUSES


TRAJECTORIES = {
    'far frame': {'frame': 2**62},
    'negative frame': {'frame': -(2**63)},
    'far step': {'step': 2**63 - 1},
    'far start': {'start': 2**63 - 1},
    'negative start': {'start': -1},
    'many atoms': {'atoms': 2**63 - 1},
    'negative atoms': {'atoms': -1},
    'nan': {'energy': np.nan, 'cell': np.inf},
}


@pytest.mark.parametrize('name', TRAJECTORIES)
@pytest.mark.parametrize('job', [(TASKS[0], 1), (TASKS[0], 2)], indirect=True)
def test_trajectories(job, name):
    from aiida_mlpotential.worker.trajectory import RECORD

    path = job.directory / 'trajectory' / 'records.bin'
    records = np.fromfile(path, dtype=RECORD)
    for key, value in TRAJECTORIES[name].items():
        records[key][-1] = value
    path.write_bytes(records.tobytes())
    assert _store(job) in STATUSES
