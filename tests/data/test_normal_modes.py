"""The node of vibrational analyses, on modes that are made by hand: those of springs between atoms."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from aiida import orm
from ase import Atoms
from ase.build import molecule
from ase.vibrations import VibrationsData

from aiida_mlpotential.data.normal_modes import NormalModesData
from aiida_mlpotential.data.results import ResultsError
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames

pytestmark = pytest.mark.usefixtures('aiida_profile')

LABELS = ('water', 'saddle', 'bad', 'atom')
STATUS = (FrameStatus.OK, FrameStatus.WRONG_CHARACTER, FrameStatus.UNSUPPORTED_ELEMENT, FrameStatus.OK)
TEMPERATURES = [298.15, 400.0, 500.0]


@pytest.fixture
def frames():
    return Frames.from_ase([molecule('H2O'), molecule('CO2'), molecule('H2'), Atoms('He')], LABELS)


def _of_modes(frames, m):
    """Return arrays of vibrational analysis: modes of random Hessians, sorted as the worker sorts them."""
    rng = np.random.default_rng(5)
    n_rigid = [6, 5, -1, 3]
    frequencies, modes, hessians, masses = [], [], [], []
    for index, rigid in enumerate(n_rigid):
        size = 3 * int(frames.counts[index])
        if rigid < 0:
            frequencies.append(np.full(size, np.nan))
            modes.append(np.full(size**2, np.nan))
            hessians.append(np.full(size**2, np.nan))
            masses.append(np.full(size, np.nan))
            continue
        values = np.sort(rng.uniform(100, 3000, size - rigid))
        if index == 1:
            values[0] = -321.0
        frequencies.append(np.concatenate([np.zeros(rigid), values]))
        vectors = rng.normal(size=(size, size))
        modes.append((vectors / np.linalg.norm(vectors, axis=1)[:, None]).ravel())
        matrix = rng.normal(size=(size, size))
        hessians.append((matrix + matrix.T).ravel())
        masses.append(rng.uniform(1, 12, size))
    frequencies = np.concatenate(frequencies)
    members = np.asfortranarray(frequencies + rng.normal(size=(m, len(frequencies))))
    return {
        'frequencies': frequencies,
        'normal_modes': np.concatenate(modes),
        'hessian': np.concatenate(hessians),
        'reduced_masses': np.concatenate(masses),
        'n_rigid': np.array(n_rigid, dtype='<i4'),
        'n_imaginary': np.array([0, 1, -1, 0], dtype='<i4'),
        'stationary': np.array([1, 1, -1, 1], dtype='<i4'),
        'zero_point_energies': np.array([0.55, 0.3, np.nan, 0.0]),
        'member_frequencies': members,
        'frequency_std': members.std(axis=0, ddof=1),
    }


def _of_gas(m, t):
    rng = np.random.default_rng(6)
    gibbs = rng.normal(size=(4, m, t))
    return {
        'symmetry_numbers': np.array([2, 2, -1, 1], dtype='<i4'),
        'moments_of_inertia': rng.random((4, 3)),
        'gibbs_energies': gibbs.mean(axis=1),
        'enthalpies': rng.normal(size=(4, t)),
        'entropies': rng.random((4, t)),
        'member_gibbs_energies': gibbs,
        'gibbs_energy_std': gibbs.std(axis=1, ddof=1),
    }


@pytest.fixture
def modes(frames):
    """Return the arrays of a vibrational analysis."""
    rng, m = np.random.default_rng(7), 4
    members = np.asfortranarray(rng.normal(size=(m, 4)))
    energies = np.where(np.array(STATUS) == FrameStatus.UNSUPPORTED_ELEMENT, np.nan, members.mean(axis=0))
    return {
        'energies': energies,
        'member_energies': members,
        **_of_modes(frames, m),
        'status': np.array(STATUS, dtype='i1'),
        'offsets': frames.offsets,
    }


@pytest.fixture
def gas(modes):
    """Return the arrays of thermochemistry."""
    return {**modes, **_of_gas(4, len(TEMPERATURES))}


@pytest.fixture
def node(gas, frames, make_folder, attach, info):
    structures = StructureSetData.from_frames(frames)
    content = {**info, 'temperatures': TEMPERATURES, 'settings': {'gas_pressure': 1e5}, 'messages': {'1': 'a saddle'}}
    return attach(NormalModesData.from_folder(make_folder(gas), content, structures_info=structures.info), structures)


def test_modes_of_a_structure(node, modes):
    assert isinstance(orm.load_node(node.pk), NormalModesData)
    np.testing.assert_array_equal(node.frequencies(0), modes['frequencies'][6:9])
    np.testing.assert_array_equal(node.frequencies(0, rigid=True), modes['frequencies'][:9])
    np.testing.assert_array_equal(node.frequencies(1), modes['frequencies'][9 + 5 : 18])
    np.testing.assert_array_equal(node.reduced_masses(1), modes['reduced_masses'][9 + 5 : 18])
    np.testing.assert_array_equal(node.member_frequencies(1), modes['member_frequencies'][:, 9 + 5 : 18])
    np.testing.assert_array_equal(node.frequency_std(0), modes['frequency_std'][6:9])
    matrix = modes['normal_modes'][81 : 2 * 81].reshape(9, 3, 3)
    np.testing.assert_array_equal(node.modes(1), matrix[5:])
    np.testing.assert_array_equal(node.modes(1, rigid=True), matrix)
    assert node.frequencies(3).shape == (0,)
    assert node.modes(3).shape == (0, 1, 3)
    assert node.zero_point_energy(0) == 0.55


def test_structures_of_the_wrong_character_have_their_modes(node):
    frame = node.frame(1)
    assert (frame.status, frame.ok, frame.message) == (FrameStatus.WRONG_CHARACTER, False, 'a saddle')
    assert frame.energy is not None
    assert frame.extra['n_imaginary'] == 1
    assert [node.character(index) for index in range(4)] == ['minimum', 'transition state', None, 'minimum']


def test_structures_without_results_have_none(node):
    for value in (node.frequencies(2), node.modes(2), node.reduced_masses(2), node.member_frequencies(2)):
        assert value is None
    assert (node.zero_point_energy(2), node.thermochemistry(2), node.member_gibbs_energies(2)) == (None, {}, None)
    with pytest.raises(ValueError, match='structure 2 has no modes: UNSUPPORTED_ELEMENT'):
        node.to_vibrations(2)
    with pytest.raises(ValueError, match='structure 2 has no modes'):
        node.animate(2, 0)
    with pytest.raises(IndexError, match='there is no structure 4'):
        node.frequencies(4)


def test_attributes_count_what_succeeded(node, modes):
    attributes = node.base.attributes.all
    expected = {'n_minima': 2, 'n_transition_states': 0, 'n_higher_saddles': 0, 'n_not_stationary': 0}
    assert {key: attributes[key] for key in expected} == expected
    assert attributes['frequency_min'] == pytest.approx(modes['frequencies'][6:9].min())
    assert attributes['frequency_max'] == pytest.approx(modes['frequencies'][6:9].max())
    assert attributes['temperatures'] == TEMPERATURES == node.temperatures
    assert attributes['status_counts'] == {'OK': 2, 'WRONG_CHARACTER': 1, 'UNSUPPORTED_ELEMENT': 1}
    assert 'zero_point_energy' not in attributes  # which of four?
    assert node.get_description() == '2 of 4 structures with ANI-x: 2 minima'
    found = orm.QueryBuilder().append(NormalModesData, filters={'attributes.frequency_min': {'>': 50}}, project='id')
    assert node.pk in found.all(flat=True)


def test_attributes_of_a_single_structure(frames, gas, make_folder, info):
    one = frames.select([0])
    arrays = {
        name: array[:, :9] if name == 'member_frequencies' else array[:, :1] if name == 'member_energies'
        else array[: {'hessian': 81, 'normal_modes': 81}.get(name, 9 if len(array) == 27 else 1)]
        for name, array in gas.items()
    }  # fmt: skip
    arrays['offsets'] = one.offsets
    node = NormalModesData.from_folder(make_folder(arrays), {**info, 'temperatures': TEMPERATURES, 'messages': {}})
    attributes = node.store().base.attributes.all
    assert attributes['n_imaginary'] == 0
    assert attributes['zero_point_energy'] == 0.55
    assert attributes['gibbs_energy'] == pytest.approx(gas['gibbs_energies'][0, 0], rel=1e-13)
    assert attributes['enthalpy'] == pytest.approx(gas['enthalpies'][0, 0], rel=1e-13)
    assert attributes['gibbs_energy_std'] == pytest.approx(gas['gibbs_energy_std'][0, 0], rel=1e-13)


def test_thermochemistry_is_a_table(node, gas):
    table = node.thermochemistry(1)
    assert table['temperature'].tolist() == TEMPERATURES
    np.testing.assert_array_equal(table['gibbs_energies'], gas['gibbs_energies'][1])
    np.testing.assert_array_equal(node.member_gibbs_energies(1), gas['member_gibbs_energies'][1])
    pandas = pytest.importorskip('pandas')
    frame = pandas.DataFrame(table).set_index('temperature')
    assert frame.loc[400.0, 'entropies'] == gas['entropies'][1, 1]


def test_results_without_thermochemistry_have_no_temperatures(modes, make_folder, info):
    node = NormalModesData.from_folder(make_folder(modes), info).store()
    assert (node.temperatures, node.thermochemistry(0), node.point_group(0)) == ([], {}, '')
    assert 'temperatures' not in node.base.attributes.all


def test_ase_gets_structure_and_hessian(node, gas, frames):
    data = node.to_vibrations(0)
    assert isinstance(data, VibrationsData)
    np.testing.assert_array_equal(data.get_hessian_2d(), gas['hessian'][:81].reshape(9, 9))
    assert data.get_atoms() == frames.to_ase(0)


def test_a_mode_can_be_watched(node, modes, tmp_path, frames):
    images = node.animate(1, 0, amplitude=0.2, n_images=4)
    assert images[0] == frames.to_ase(1)
    assert images[0].info['frequency'] == -321.0
    way = images[1].positions - images[0].positions
    assert np.linalg.norm(way, axis=1).max() == pytest.approx(0.2)
    mode = node.modes(1)[0]
    np.testing.assert_allclose(way / np.linalg.norm(way), mode / np.linalg.norm(mode))
    node.write_mode(tmp_path / 'mode.xyz', 1, -1, n_images=5)
    written = ase.io.read(tmp_path / 'mode.xyz', index=':')
    assert len(written) == 5
    assert written[0].info['frequency'] == pytest.approx(modes['frequencies'][17])
    with pytest.raises(IndexError, match='there is no vibration 4: structure 1 has 4'):
        node.animate(1, 4)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'frequencies': lambda a: a[:-1]}, r'frequencies.npy has shape \(26,\), expected \(27,\)'),
        ({'normal_modes': lambda a: a[:-1]}, r'normal_modes.npy has shape \(206,\), expected \(207,\)'),
        ({'member_frequencies': lambda a: a[:3]}, r'member_frequencies.npy has shape \(3, 27\), expected \(4, 27\)'),
        ({'n_rigid': lambda a: a.astype('<i8')}, r'n_rigid.npy holds values of type <i8, expected <i4'),
        ({'n_rigid': lambda a: a.astype('<f8')}, r'n_rigid.npy holds values of type <f8, expected <i4'),
        ({'frequencies': lambda a: a.astype('<f4')}, r'frequencies.npy holds values of type <f4, expected <f8'),
        ({'moments_of_inertia': lambda a: a[:, :2]}, r'moments_of_inertia.npy has shape \(4, 2\), expected \(4, 3\)'),
        ({'enthalpies': lambda a: a[:, :2]}, r'has shape \(4, \d\), expected \(4, \d\)'),
        ({'gibbs_energies': lambda a: a[:, :0]}, r'has shape \(4, \d\), expected \(4, \w+\)'),
        ({'member_gibbs_energies': lambda a: a[:, :, 0]}, r'shape \(4, 4\), expected \(4, 4, 3\)'),
        ({'stationary': lambda a: None}, r'the array stationary.npy is missing'),
        ({'hessian': lambda a: None}, r'the array hessian.npy is missing'),
    ],
)
def test_damaged_arrays(gas, make_folder, info, changes, message):
    arrays = {name: changes[name](array) if name in changes else array for name, array in gas.items()}
    folder = make_folder({name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ResultsError, match=message):
        NormalModesData.from_folder(folder, {**info, 'temperatures': TEMPERATURES})


@pytest.mark.parametrize('temperatures', [None, [], [300.0], 'warm'])
def test_temperatures_that_are_not_those_of_the_arrays(gas, make_folder, info, temperatures):
    with pytest.raises(ResultsError, match='not one value for each temperature'):
        NormalModesData.from_folder(make_folder(gas), {**info, 'temperatures': temperatures})


def test_a_truncated_file(gas, make_folder, info):
    folder = make_folder(gas, frequencies=b'\x93NUMPY')
    with pytest.raises(ResultsError, match=r'frequencies\.npy is no array file'):
        NormalModesData.from_folder(folder, {**info, 'temperatures': TEMPERATURES})
