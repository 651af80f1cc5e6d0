"""Newer results in the place of older ones; with real jobs in workflows/test_thermochemistry.py."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from aiida_mlpotential.data.normal_modes import NormalModesData
from aiida_mlpotential.data.replacing import replace_results
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.ideal_gas import thermochemistry_of
from aiida_mlpotential.worker.thermochemistry import Settings

NAMES = ['H2O', 'CO', 'NH3']


def _results(names, scale, group, status=None):
    frames = Frames.from_ase([molecule(name) for name in names])
    n_rigid = np.array([5 if name == 'CO' else 6 for name in names], 'i4')
    frequencies = np.zeros(3 * frames.n_atoms)
    for index, rigid in enumerate(n_rigid):
        start, stop = 3 * frames.offsets[index : index + 2]
        frequencies[start + rigid : stop] = scale * np.linspace(1000, 3000, stop - start - rigid)
    arrays = {'energies': -scale * np.arange(1.0, len(names) + 1), 'frequencies': frequencies, 'n_rigid': n_rigid}
    arrays.update(thermochemistry_of(frames, arrays, Settings(), 1))
    size = int(np.sum((3 * frames.counts) ** 2))
    arrays.update(
        hessian=scale * np.arange(size, dtype='f8'),
        normal_modes=np.zeros(size),
        reduced_masses=np.ones(3 * frames.n_atoms),
        n_imaginary=np.zeros(len(names), 'i4'),
        stationary=np.ones(len(names), 'i4'),
        zero_point_energies=scale * np.ones(len(names)),
        status=np.array([0] * len(names) if status is None else status, 'i1'),
        offsets=frames.offsets,
        point_groups=np.array([group] * len(names)),
    )
    node = NormalModesData()
    for name, values in arrays.items():
        node.set_array(name, values)
    messages = {str(index): 'a saddle point' for index, code in enumerate(arrays['status']) if code}
    node.base.attributes.set_many(
        {
            'n_frames': len(names),
            'messages': messages,
            'temperatures': [298.15],
            'settings': {'gas_pressure': 101325.0, 'low_frequency_cutoff': 20.0},
            'structures_uuid': 'old',
        }
    )
    return node


@pytest.fixture
def structures(aiida_profile):
    return StructureSetData.from_ase([molecule(name) for name in NAMES])


def test_rows_of_every_shape_are_replaced(structures):
    old, new = _results(NAMES, 1.0, 'C1', [0, 15, 15]), _results(['NH3', 'CO'], 2.0, 'Dinfh')
    merged = replace_results(old, [2, 1], new, structures)
    assert merged.status.tolist() == [0, 0, 0]
    assert [merged.point_group(index) for index in range(3)] == ['C1', 'Dinfh', 'Dinfh']
    assert merged.energies.tolist() == [-1.0, -4.0, -2.0]
    for index, source, position in ((0, old, 0), (1, new, 1), (2, new, 0)):
        found, expected = merged.frame(index), source.frame(position)
        np.testing.assert_array_equal(found.hessian, expected.hessian)
        assert set(found.extra) == set(expected.extra)
        for name, values in expected.extra.items():
            np.testing.assert_array_equal(found.extra[name], values, err_msg=name)


def test_attributes_are_those_of_the_new_whole(structures):
    merged = replace_results(_results(NAMES, 1.0, 'C1', [0, 15, 15]), [1], _results(['CO'], 9.0, 'C1'), structures)
    attributes = merged.base.attributes
    assert merged.messages == {2: 'a saddle point'}
    assert (merged.n_ok, merged.n_failed, attributes.get('n_minima')) == (2, 1, 2)
    assert (attributes.get('energy_min'), attributes.get('energy_max')) == (-9.0, -1.0)
    assert attributes.get('structures_uuid') == structures.uuid
    assert attributes.get('structures_sha256') == structures.sha256
    assert merged.temperatures == [298.15]


def test_a_newer_failure_keeps_its_message_at_its_new_place(structures):
    newer = _results(['NH3'], 2.0, 'C1', [15])
    newer.base.attributes.set('messages', {'0': 'still one'})
    merged = replace_results(_results(NAMES, 1.0, 'C1', [0, 0, 15]), [2], newer, structures)
    assert merged.messages == {2: 'still one'}


def test_some_of_the_newer_ones_may_be_left_out(structures):
    old, newer = _results(NAMES, 1.0, 'C1', [0, 15, 15]), _results(['NH3', 'CO'], 2.0, 'Dinfh', [0, 13])
    newer.base.attributes.set('messages', {'1': 'of no use'})
    merged = replace_results(old, [2, 1], newer, structures, kept=[1])
    assert merged.status.tolist() == [0, 15, 0]
    assert merged.messages == {1: 'a saddle point'}
    for index, source, position in ((1, old, 1), (2, newer, 0)):
        found, expected = merged.frame(index), source.frame(position)
        np.testing.assert_array_equal(found.hessian, expected.hessian)
        assert found.energy == expected.energy


@pytest.mark.parametrize(
    ('names', 'indices', 'message'),
    [(['CO'], [0], 'other molecules'), (['CO', 'CO'], [1], 'same task for the structures that are named')],
)
def test_what_does_not_belong_together(structures, names, indices, message):
    with pytest.raises(ValueError, match=message):
        replace_results(_results(NAMES, 1.0, 'C1'), indices, _results(names, 1.0, 'C1'), structures)
