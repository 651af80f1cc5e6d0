"""The summary for people: the numbers of the last structure as AMS prints them."""

from __future__ import annotations

import numpy as np

from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.storage import ResultsStore, Sizes
from aiida_mlpotential.worker.summary import TABLE_LIMIT, write_summary
from aiida_mlpotential.worker.units import HARTREE

CONTENT = {
    'task': 'single_point',
    'model': {'name': 'M', 'backend': 'b', 'sha256': 'f' * 64, 'ensemble_size': 8},
    'precision': 'single',
    'device': 'cpu',
    'counts': {'total': 2, 'ok': 1},
}


def _summary(tmp_path, frames, std=0.1):
    number = len(frames)
    store = ResultsStore(tmp_path, frames.offsets, ('energies', 'energy_std'))
    store.open('job')
    indices = np.arange(number)
    store.write(indices, {'energies': np.full(number, -HARTREE), 'energy_std': np.full(number, std)}, np.zeros(number))
    if number > 1:
        store.mark(np.array([0]), np.array([FrameStatus.EMPTY]))
    return write_summary(frames, store, CONTENT)


def test_the_last_structure_has_energy_and_spread(tmp_path, copper):
    text = _summary(tmp_path, copper(4), std=HARTREE / 1000)
    assert 'Last structure         cu3\nNumber of atoms        4\n' in text
    assert 'Energy                 -1.00000000 Hartree\n' in text
    assert 'Standard deviation     1.000000 mHartree\n' in text
    assert 'per atom             0.250000 mHartree\n' in text
    assert 'per sqrt(atoms)      0.500000 mHartree\n' in text


def test_few_structures_get_a_table_and_failed_ones_their_status(tmp_path, copper):
    rows = _summary(tmp_path, copper(2)).splitlines()[-2:]
    assert 'EMPTY' in rows[0]
    assert '-1.00000000' in rows[1]


def test_many_structures_get_none(tmp_path, copper):
    assert 'std (mHartree)' not in _summary(tmp_path, copper(TABLE_LIMIT + 1))


def _of_task(tmp_path, frames, arrays, content=None, status=FrameStatus.OK):
    """Return the summary of the last frame, whose arrays are given."""
    store = ResultsStore(tmp_path, frames.offsets, arrays, Sizes(n_temperatures=2))
    store.open('job')
    store.write(np.arange(1), arrays, np.array([status]))
    return write_summary(frames, store, {**CONTENT, **(content or {})})


def test_an_optimization_tells_its_steps_and_what_it_gained(tmp_path, copper):
    arrays = {'energies': [-2 * HARTREE], 'initial_energies': [-HARTREE], 'steps': [17]}
    text = _of_task(tmp_path, copper(1), arrays, {'task': 'geometry_optimization'})
    assert 'Task                   geometry optimization\n' in text
    assert 'Steps                  17\nEnergy change          -1.00000000 Hartree\n' in text


def test_one_that_did_not_converge_has_its_status_and_its_last_energy(tmp_path, copper):
    arrays = {'energies': [-2 * HARTREE], 'initial_energies': [-HARTREE], 'steps': [5]}
    text = _of_task(tmp_path, copper(1), arrays, status=FrameStatus.NOT_CONVERGED)
    assert 'Status                 NOT_CONVERGED: ' in text
    assert 'Energy                 -2.00000000 Hartree\n' in text


def test_vibrations_are_listed_with_their_spread(tmp_path, copper):
    frames = copper(1)
    frequencies = np.array([0.0, -50.0, 100.0])
    arrays = {
        'energies': [0.0],
        'frequencies': frequencies,
        'frequency_std': [0.0, 1.0, 2.5],
        'n_rigid': [1],
        'n_imaginary': [1],
        'stationary': [0],
        'zero_point_energies': [HARTREE],
    }
    lines = _of_task(tmp_path, frames, arrays).splitlines()
    assert 'Stationary point       no: the forces are too large' in lines
    assert 'Imaginary modes        1' in lines
    assert [line.split() for line in lines[-2:]] == [['-50.00', '+-', '1.00'], ['100.00', '+-', '2.50']]


def test_thermochemistry_has_a_row_for_each_temperature(tmp_path, copper):
    values = np.array([[HARTREE, 2 * HARTREE]])
    arrays = dict.fromkeys(('entropies', 'enthalpies', 'gibbs_energies', 'gibbs_energies_quasi_rrho'), values)
    arrays.update(energies=[0.0], symmetry_numbers=[12], n_excluded=[1])
    lines = _of_task(tmp_path, copper(1), arrays, {'temperatures': [298.15, 500]}).splitlines()
    assert 'Symmetry number        12' in lines
    assert [float(item) for item in lines[-1].split()] == [500, 2000, 2, 2, 2]
