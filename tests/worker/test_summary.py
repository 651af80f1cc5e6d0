"""The summary for people: the numbers of the last structure as AMS prints them."""

from __future__ import annotations

import numpy as np

from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.storage import ResultsStore
from aiida_mlpotential.worker.summary import TABLE_LIMIT, write_summary
from aiida_mlpotential.worker.units import HARTREE

CONTENT = {
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
