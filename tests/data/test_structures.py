"""Tests of the structure set node."""

import io
import time

import ase.io
import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ModificationNotAllowed, ValidationError
from ase import Atoms
from ase.build import bulk, molecule

from aiida_mlpotential.data.formulas import MAX_FORMULAS, formulas_of
from aiida_mlpotential.data.structures import (
    StructuresError,
    StructureSetData,
    collect_structures,
    describe_frames,
    extract_structure,
    frames_of_structures,
    to_frames,
)
from aiida_mlpotential.worker.frames import Frames, sha256_of

pytestmark = pytest.mark.usefixtures('aiida_profile')


@pytest.fixture
def structures():
    return [molecule('H2O'), molecule('CH3CH2OH'), bulk('NaCl', 'rocksalt', a=5.6)]


def test_from_ase(structures):
    node = StructureSetData.from_ase(iter(structures), labels=['water', 'ethanol', 'salt'])
    assert not node.is_stored
    loaded = orm.load_node(node.store().pk)
    assert isinstance(loaded, StructureSetData)
    assert len(loaded) == loaded.n_frames == 3
    assert loaded.labels == ('water', 'ethanol', 'salt')
    assert (loaded.n_atoms, loaded.max_atoms) == (14, 9)
    assert loaded.elements == ['H', 'C', 'O', 'Na', 'Cl']
    assert loaded.formulas == ['C2H6O', 'ClNa', 'H2O']
    assert loaded.formulas_complete is True
    assert loaded.periodic is True
    assert loaded.get_description() == '3 structures, 14 atoms: C2H6O, ClNa, H2O'
    assert loaded.info == {key: loaded.base.attributes.get(key) for key in loaded.info}
    assert set(loaded.info) == {'n_frames', 'n_atoms', 'elements', 'formulas', 'formulas_complete'}
    content = loaded.base.repository.get_object_content('structures.npz', mode='rb')
    assert loaded.sha256 == sha256_of(content)
    assert loaded.serialize()['attributes']['n_frames'] == 3


def test_get_ase_and_frames(structures):
    node = StructureSetData.from_ase(structures, labels=['water', '', 'salt'])
    for index, expected in enumerate(structures):
        assert node.get_ase(index) == expected
    assert node.get_ase(-1) == structures[-1]
    assert node.get_ase(0).info == {'label': 'water'}
    assert node.get_ase(1).info == {}
    assert node.get_frames() is node.get_frames()


@pytest.mark.parametrize('index', [3, -4])
def test_index_out_of_range(structures, index):
    node = StructureSetData.from_ase(structures)
    for method in (node.get_ase, node.get_structure):
        with pytest.raises(IndexError, match=f'there is no structure {index}: the set has 3'):
            method(index)


def test_single_atoms_and_no_labels():
    node = StructureSetData.from_ase(molecule('H2O'))
    assert len(node) == 1
    assert node.labels == ()
    assert node.periodic is False


@pytest.mark.parametrize('value', [[], iter(())])
def test_zero_structures_are_refused(value):
    with pytest.raises(StructuresError, match='there are no structures: give at least one'):
        StructureSetData.from_ase(value)


def test_wrong_input(structures):
    with pytest.raises(StructuresError, match='1 labels for 3 frames'):
        StructureSetData.from_ase(structures, labels=['one'])
    with pytest.raises(StructuresError, match='300 is not the atomic number'):
        StructureSetData.from_ase(Atoms(numbers=[300], positions=[[0, 0, 0]]))
    with pytest.raises(StructuresError, match='200 is not the atomic number'):
        StructureSetData.from_ase(Atoms(numbers=[200], positions=[[0, 0, 0]]))


def test_bad_frames_are_kept_for_the_worker():
    """NaN coordinates and frames without atoms fail one by one later, not the whole set."""
    bad = Atoms('H', positions=[[np.nan, 0, 0]])
    node = StructureSetData.from_ase([bad, Atoms(), molecule('H2O')]).store()
    assert len(node) == 3
    assert node.formulas == ['', 'H', 'H2O']
    with pytest.raises(StructuresError, match='structure 0 has coordinates that are not finite'):
        node.get_structure(0)
    with pytest.raises(StructuresError, match='structure 1 has no atoms'):
        node.get_structure(1)


def test_validation():
    with pytest.raises(ValidationError, match='must not be empty'):
        StructureSetData().store()
    node = StructureSetData.from_ase(molecule('H2O'))
    node.base.repository.put_object_from_filelike(io.BytesIO(b'x'), 'structures.npz')
    with pytest.raises(ValidationError, match='is not the file'):
        node.store()


def test_immutable(structures):
    node = StructureSetData.from_ase(structures).store()
    assert bool(node) is True
    with pytest.raises(ModificationNotAllowed):
        node.base.attributes.set('n_frames', 2)
    with pytest.raises(ModificationNotAllowed):
        node._set_frames(Frames.from_ase(structures))


def test_from_file(tmp_path, structures):
    structures[0].info['label'] = 'water'
    structures[1].info['name'] = 'ethanol'
    path = tmp_path / 'three.extxyz'
    ase.io.write(path, structures)
    node = StructureSetData.from_file(path)
    assert len(node) == 3
    assert node.labels == ('water', 'ethanol', '')
    assert np.allclose(node.get_ase(2).cell, structures[2].cell)
    assert len(StructureSetData.from_file(path, index='::2')) == 2
    assert StructureSetData.from_file(str(path), index=-1).labels == ('three',)
    ase.io.write(tmp_path / 'odd', structures[:2], format='extxyz')
    assert len(StructureSetData.from_file(tmp_path / 'odd', format='extxyz')) == 2


def test_from_file_without_labels(tmp_path):
    ase.io.write(tmp_path / 'two.xyz', [molecule('H2O'), molecule('CH4')])
    assert StructureSetData.from_file(tmp_path / 'two.xyz').labels == ()
    ase.io.write(tmp_path / 'water.xyz', molecule('H2O'))
    assert StructureSetData.from_file(tmp_path / 'water.xyz').labels == ('water',)


def test_from_file_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no structure file'):
        StructureSetData.from_file(tmp_path / 'absent.xyz')
    (tmp_path / 'bad.xyz').write_text('3\nonly one of three\nH 0 0 0\n')
    with pytest.raises(StructuresError, match=r"'bad.xyz' cannot be read \(.*name its ASE format"):
        StructureSetData.from_file(tmp_path / 'bad.xyz')
    (tmp_path / 'unknown.qqq').write_text('?')
    with pytest.raises(StructuresError, match='cannot be read'):
        StructureSetData.from_file(tmp_path / 'unknown.qqq')
    (tmp_path / 'empty.xyz').touch()
    with pytest.raises(StructuresError, match=r"^'empty.xyz' is empty: name a file with at least one structure$"):
        StructureSetData.from_file(tmp_path / 'empty.xyz')


def test_from_structures_keeps_the_links(structures):
    water = orm.StructureData(ase=structures[0])
    water.label = 'water'
    salt = orm.StructureData(ase=structures[2]).store()
    node = StructureSetData.from_structures([salt, water, salt])
    assert node.is_stored
    assert node.labels == ('', 'water', '')
    assert node.get_ase(0) == structures[2]
    assert np.allclose(node.get_ase(1).positions, structures[0].positions)
    inputs = node.creator.inputs
    assert inputs.structure_0.uuid == inputs.structure_2.uuid == salt.uuid
    assert inputs.structure_1.uuid == water.uuid


def test_from_structures_by_name(structures):
    salt, water = (orm.StructureData(ase=structures[index]) for index in (2, 0))
    assert StructureSetData.from_structures(b=salt, a=water).labels == ('b', 'a')
    node = StructureSetData.from_structures({'a': water, 'b': salt})
    assert node.labels == ('a', 'b')
    assert node.creator.inputs.b.uuid == salt.uuid


def test_order_is_stated(structures):
    """Not left to the order in which AiiDA hands over the inputs."""
    salt, water = (orm.StructureData(ase=structures[index]) for index in (2, 0))
    node = collect_structures(orm.List([['b', 'salt'], ['a', '']]), a=water, b=salt)
    assert node.labels == ('salt', '')
    assert [len(atoms) for atoms in node.get_frames()] == [2, 3]
    assert node.get_ase(0) == structures[2]


def test_from_structures_keeps_elements_of_kind_names():
    structure = orm.StructureData(cell=np.eye(3) * 5, pbc=True)
    structure.append_atom(position=(0, 0, 0), symbols='Fe', name='Fe_up')
    structure.append_atom(position=(1, 0, 0), symbols='Fe', name='Fe_down')
    node = StructureSetData.from_structures([structure])
    assert node.get_frames().numbers.tolist() == [26, 26]
    assert node.elements == ['Fe']


def test_mixed_kinds_are_refused():
    alloy = orm.StructureData(cell=np.eye(3) * 5, pbc=True)
    alloy.append_atom(position=(0, 0, 0), symbols=['Ba', 'Ca'], weights=[0.5, 0.5], name='mixed')
    with pytest.raises(StructuresError, match=r"structure 0 has the kind 'mixed' with mixed elements or vacancies"):
        StructureSetData.from_structures([alloy])
    vacancy = orm.StructureData(cell=np.eye(3) * 5, pbc=True)
    vacancy.append_atom(position=(0, 0, 0), symbols=['Ba'], weights=[0.9], name='half')
    with pytest.raises(StructuresError, match='needs one whole atom on every site'):
        to_frames(vacancy)


def test_from_structures_errors(structures):
    salt = orm.StructureData(ase=structures[2])
    with pytest.raises(StructuresError, match='there are no structures'):
        StructureSetData.from_structures([])
    with pytest.raises(StructuresError, match='structure 1 is a Int, not a StructureData'):
        StructureSetData.from_structures([salt, orm.Int(1)])
    with pytest.raises(StructuresError, match='not both'):
        StructureSetData.from_structures([salt], a=salt)
    with pytest.raises(StructuresError, match='cannot be called "order"'):
        StructureSetData.from_structures(order=salt)
    assert not salt.is_stored


def test_get_and_extract_structure(structures):
    node = StructureSetData.from_ase(structures, labels=['water', 'ethanol', 'salt']).store()
    structure = node.get_structure(1)
    assert not structure.is_stored
    assert structure.label == 'ethanol'
    assert structure.pbc == (False, False, False)
    assert np.allclose(structure.get_ase().positions, structures[1].positions)
    extracted = extract_structure(node, orm.Int(2))
    assert extracted.creator.inputs.structures.uuid == node.uuid
    assert extracted.creator.inputs.index.value == 2
    assert extracted.get_formula() == 'ClNa'


def test_to_frames(structures):
    single = orm.StructureData(ase=structures[0])
    single.label = 'w'
    assert to_frames(single).labels == ('w',)
    node = StructureSetData.from_ase(structures)
    assert to_frames(node) is node.get_frames()
    assert frames_of_structures([single]).labels == ()


def test_formulas_agree_with_ase(structures):
    frames = Frames.from_ase([*structures, molecule('C60'), molecule('NH3'), molecule('H2O'), Atoms('H')])
    formulas, composition = formulas_of(frames)
    assert formulas.tolist() == [atoms.get_chemical_formula(mode='hill') for atoms in frames]
    assert composition.sum(axis=1).tolist() == frames.counts.tolist()


def test_formulas_are_bounded_to_the_most_frequent():
    rare = [Atoms(f'H{n}') for n in range(1, MAX_FORMULAS + 20)]
    info = describe_frames(Frames.from_ase([*rare, Atoms('Ne'), Atoms('Ne')]))
    assert len(info['formulas']) == MAX_FORMULAS
    assert info['formulas_complete'] is False
    assert 'Ne' in info['formulas']
    assert info['formulas'] == sorted(info['formulas'])


@pytest.mark.slow
def test_a_hundred_thousand_structures_take_seconds():
    rng, n = np.random.default_rng(1), 100_000
    numbers = rng.choice(np.array([1, 6, 7, 8], dtype='u1'), 17 * n)
    frames = Frames(
        numbers=numbers,
        positions=np.round(rng.normal(size=(17 * n, 3)), 2),
        offsets=np.arange(n + 1) * 17,
        cells=np.zeros((n, 3, 3)),
        pbc=np.zeros((n, 3), dtype=bool),
    )
    start = time.perf_counter()
    node = StructureSetData.from_frames(frames).store()
    loaded = orm.load_node(node.pk)
    assert np.array_equal(loaded.get_frames().numbers, numbers)
    assert time.perf_counter() - start < 30  # 3 s on a quiet machine
    assert loaded.n_frames == n
    assert loaded.formulas_complete is False


def test_query_by_attributes():
    node = StructureSetData.from_ase([Atoms('Xe')] * 7).store()
    filters = {'attributes.n_frames': {'>': 6}, 'attributes.elements': {'contains': ['Xe']}}
    assert orm.QueryBuilder().append(StructureSetData, filters=filters, project='id').all(flat=True) == [node.pk]


def test_a_cif_with_partial_occupation_is_refused(tmp_path):
    path = tmp_path / 'alloy.cif'
    path.write_text(
        'data_alloy\n_cell_length_a 4\n_cell_length_b 4\n_cell_length_c 4\n_cell_angle_alpha 90\n'
        "_cell_angle_beta 90\n_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'P 1'\nloop_\n"
        '_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n'
        '_atom_site_occupancy\nAu1 Au 0 0 0 0.5\nCu1 Cu 0 0 0 0.5\nCu2 Cu 0.5 0.5 0.5 1.0\n'
    )
    with pytest.raises(StructuresError, match='mixed or partial occupation at site 0'):
        StructureSetData.from_file(path)


def test_labels_are_put_on_one_line(structures):
    node = StructureSetData.from_ase(structures, labels=['two\nlines', 'x' * 500, '\ud800 and λ'])
    assert node.labels == ('two lines', 'x' * 100, '? and λ')
