"""Tests of the model node."""

import io

import pytest
from aiida import orm
from aiida.common.exceptions import ModificationNotAllowed, ValidationError

from aiida_mlpotential.data.model import ModelData, ModelInfo
from aiida_mlpotential.worker.backends.base import FileFacts
from aiida_mlpotential.worker.backends.committee import split
from aiida_mlpotential.worker.frames import sha256_of

pytestmark = pytest.mark.usefixtures('aiida_profile_clean', 'file_facts')

INFO = ModelInfo(energy_unit='Hartree', source='PyPI: x==1', licence='MIT', method='CCSD(T)', doi='10.1/x')


@pytest.fixture
def parameter_file(tmp_path):
    path = tmp_path / 'weights.npz'
    path.write_bytes(b'some weights')
    return path


def make(path, **kwargs):
    defaults = {'backend': 'torchani', 'elements': ('H', 'C'), 'ensemble_size': 8, 'info': INFO}
    return ModelData.from_file(path, **{**defaults, **kwargs})


def test_from_file(parameter_file):
    node = make(parameter_file, name='My model', options={'radial_cutoff': 5.2})
    assert not node.is_stored
    loaded = orm.load_node(node.store().pk)
    assert isinstance(loaded, ModelData)
    assert loaded.name == loaded.label == 'My model'
    assert loaded.backend_name == 'torchani'
    assert loaded.sha256 == sha256_of(b'some weights')
    assert loaded.files == {'weights.npz': loaded.sha256}
    assert loaded.elements == ('H', 'C')
    assert loaded.ensemble_size == 8
    assert (loaded.energy_unit, loaded.distance_unit) == ('Hartree', 'angstrom')
    assert loaded.options == {'radial_cutoff': 5.2}
    assert (loaded.source_text, loaded.licence, loaded.method, loaded.doi) == ('PyPI: x==1', 'MIT', 'CCSD(T)', '10.1/x')
    assert loaded.trusted is False
    assert loaded.base.repository.get_object_content('parameters/weights.npz', mode='rb') == b'some weights'
    assert loaded.get_description() == f'My model (torchani, 8 members, sha256 {loaded.sha256[:12]})'


def test_defaults_of_file(parameter_file):
    node = ModelData.from_file(str(parameter_file), backend='torchani')
    assert node.name == 'weights'
    assert node.elements is None
    assert node.ensemble_size == 1
    assert node.source_text == ''
    assert node.source is None


def test_from_directory(tmp_path):
    directory = tmp_path / 'model'
    (directory / 'sub').mkdir(parents=True)
    (directory / 'a.txt').write_bytes(b'a')
    (directory / 'sub' / 'b.txt').write_bytes(b'b')
    node = make(directory).store()
    assert node.files == {'a.txt': sha256_of(b'a'), 'sub/b.txt': sha256_of(b'b')}
    assert len(node.sha256) == 64
    assert node.sha256 not in node.files.values()
    (directory / 'sub' / 'b.txt').write_bytes(b'c')
    assert make(directory).sha256 != node.sha256


def test_spec_and_copy_list(parameter_file):
    node = make(parameter_file, name='x').store()
    spec = node.to_spec()
    assert spec.files == {'model/weights.npz': node.sha256}
    assert (spec.name, spec.backend, spec.sha256) == ('x', 'torchani', node.sha256)
    assert (spec.elements, spec.ensemble_size, spec.energy_unit) == (('H', 'C'), 8, 'Hartree')
    assert node.copy_list() == [(node.uuid, 'parameters/weights.npz', 'model/weights.npz')]


def test_get_or_store_finds_the_same_model(parameter_file):
    first = make(parameter_file, name='first').get_or_store()
    assert first.is_stored
    assert first.get_or_store() is first
    again = make(parameter_file, name='another name')
    assert again.get_or_store().pk == first.pk
    assert not again.is_stored


@pytest.mark.parametrize(
    'change',
    [
        {'options': {'radial_cutoff': 1}},
        {'elements': ('C', 'H')},
        {'elements': None},
        {'ensemble_size': 7},
        {'backend': 'sgdml', 'info': ModelInfo(energy_unit='Hartree', distance_unit='angstrom')},
        {'info': ModelInfo(energy_unit='eV')},
        {'info': ModelInfo(energy_unit='Hartree', distance_unit='bohr')},
    ],
)
def test_get_or_store_tells_models_apart(parameter_file, change):
    first = make(parameter_file).get_or_store()
    assert make(parameter_file, **change).get_or_store().pk != first.pk


def test_get_or_store_settles_on_the_oldest(parameter_file, monkeypatch):
    """Two processes that store at once end with the same node."""
    older = make(parameter_file)
    younger = make(parameter_file)
    real, calls = ModelData._find_same, []

    def late(self):
        calls.append(self)
        if len(calls) == 1:  # the other process stores right after we looked
            older.store()
            return None
        return real(self)

    monkeypatch.setattr(ModelData, '_find_same', late)
    assert younger.get_or_store().pk == older.pk


def test_ase_calculator():
    node = ModelData.from_ase_calculator('ase.calculators.lj.LennardJones', {'sigma': 1.5}, elements=['Ar']).store()
    assert node.backend_name == 'ase'
    assert node.name == 'LennardJones'
    assert node.files == {}
    assert node.copy_list() == []
    assert node.options == {'calculator': 'ase.calculators.lj.LennardJones', 'kwargs': {'sigma': 1.5}}
    assert node.elements == ('Ar',)
    same = ModelData.from_ase_calculator('ase.calculators.lj.LennardJones', {'sigma': 1.5}, elements=['Ar'], name='LJ')
    other = ModelData.from_ase_calculator('ase.calculators.lj.LennardJones', {'sigma': 1.6}, elements=['Ar'])
    assert same.sha256 == node.sha256 != other.sha256
    assert same.get_or_store().pk == node.pk


def test_options_are_those_of_the_database():
    """AiiDA keeps 14 digits of a float; hash and comparison must not depend on whether a node was stored."""
    first = ModelData.from_ase_calculator('ase.calculators.lj.LennardJones', {'sigma': 1 / 3, 'rc': 5.0}).get_or_store()
    loaded = orm.load_node(first.pk)
    assert loaded.options['kwargs']['sigma'] == pytest.approx(1 / 3, rel=1e-13)
    again = ModelData.from_ase_calculator('ase.calculators.lj.LennardJones', {'sigma': 1 / 3, 'rc': 5.0})
    assert again.options == loaded.options
    assert again.get_or_store().pk == first.pk
    assert loaded.clone().store().sha256 == first.sha256


@pytest.mark.parametrize('path', ['EMT', 'ase..EMT', 'ase.calculators.emt:EMT', '__import__("os")', '', None])
def test_ase_calculator_refuses_what_is_no_import_path(path):
    with pytest.raises(ValueError, match='is no import path'):
        ModelData.from_ase_calculator(path)


@pytest.mark.parametrize('value', [float('nan'), object(), {1, 2}])
def test_options_must_be_json(value):
    with pytest.raises(ValueError, match='must be finite JSON values'):
        ModelData.from_ase_calculator('ase.calculators.emt.EMT', {'key': value})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'backend': 'nope'}, "unknown backend 'nope'; there are .*sgdml, torchani"),
        ({'elements': ('H', 'Xx')}, "'Xx' in elements is no chemical symbol"),
        ({'elements': ('H', 'H')}, 'has a symbol twice'),
        ({'elements': ()}, 'elements must not be empty'),
        ({'ensemble_size': 0}, 'ensemble_size must be an integer, 1 or larger, not 0'),
        ({'ensemble_size': True}, 'ensemble_size must be an integer'),
        ({'options': {'famly': 'ani1x'}}, "unknown option 'famly' of a model of torchani; did you mean 'family'"),
        ({'options': {'family': 5}}, 'family = 5 is not valid'),
        ({'info': ModelInfo(energy_unit='Rydberg')}, "energy_unit = 'Rydberg' is not known; allowed are eV, Hartree"),
        ({'info': ModelInfo(distance_unit='nm')}, "distance_unit = 'nm' is not known"),
        ({'name': 'a\x1b[2J'}, 'the name of the model must be a text of one line'),
        ({'name': 'x' * 256}, '255 characters at most'),
        ({'info': ModelInfo(licence='MIT\nor not')}, 'licence must be a text of one line'),
        ({'info': ModelInfo(source='\x1b]0;')}, 'source must be a text of one line'),
        ({'trusted': 'yes'}, "trusted must be True or False, not 'yes'"),
        ({'name': ' '}, 'the name of the model must be a text of one line'),
    ],
)
def test_invalid_input_is_refused_at_once(parameter_file, change, message):
    with pytest.raises(ValueError, match=message):
        make(parameter_file, **change)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no model file'):
        make(tmp_path / 'absent.npz')
    (tmp_path / 'empty.npz').touch()
    with pytest.raises(ValueError, match='is empty: get it again'):
        make(tmp_path / 'empty.npz')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(ValueError, match='holds no files'):
        make(tmp_path / 'folder')


def test_validation_before_storing(parameter_file):
    with pytest.raises(ValidationError, match='the model has no name: make it with'):
        ModelData().store()
    node = make(parameter_file)
    node.base.repository.put_object_from_filelike(io.BytesIO(b'other'), 'parameters/weights.npz')
    with pytest.raises(ValidationError, match='has sha256'):
        node.store()
    node = make(parameter_file)
    node.base.repository.put_object_from_filelike(io.BytesIO(b'other'), 'parameters/more.npz')
    with pytest.raises(ValidationError, match='do not match the attribute files'):
        node.store()
    node = make(parameter_file)
    node.base.attributes.set('files', {'weights.npz': 'short'})
    with pytest.raises(ValidationError, match='64 hexadecimal digits'):
        node.store()
    node = make(parameter_file)
    node.base.attributes.set('sha256', '0' * 64)
    with pytest.raises(ValidationError, match='is not that of its content'):
        node.store()
    node = ModelData.from_ase_calculator('ase.calculators.emt.EMT')
    node.base.attributes.set_many({'backend': 'torchani', 'options': {}})
    with pytest.raises(ValidationError, match='needs a parameter file'):
        node.store()


def test_immutable_and_serializable(parameter_file):
    node = make(parameter_file).store()
    with pytest.raises(ModificationNotAllowed):
        node.base.attributes.set('name', 'x')
    with pytest.raises(ModificationNotAllowed):
        node.base.repository.put_object_from_filelike(io.BytesIO(b'x'), 'parameters/y')
    assert node.serialize()['attributes']['backend'] == 'torchani'
    clone = node.clone().store()
    assert clone.sha256 == node.sha256


def test_query_by_attributes(parameter_file):
    node = make(parameter_file).store()
    filters = {'attributes.sha256': node.sha256, 'attributes.elements': {'contains': ['C']}}
    assert orm.QueryBuilder().append(ModelData, filters=filters, project='id').all(flat=True) == [node.pk]


def old_node(parameter_file):
    """Return a node as earlier versions stored it: without the attributes that came later."""
    node = make(parameter_file)
    for key in ('committee', 'units_from', 'cutoff', 'original_names', 'trust_reason', 'remarks'):
        node.base.attributes.delete(key)
    return node


def test_nodes_of_earlier_versions(parameter_file):
    node = orm.load_node(old_node(parameter_file).store().pk)
    assert (node.committee, node.units_from, node.cutoff, node.original_names) == (0, {}, None, {})
    assert (node.trusted, node.trust_reason, node.remarks) == (False, '', [])
    assert (node.to_spec().committee, node.to_spec().units_from) == (0, {})
    assert node.serialize()['attributes']['committee'] == 0
    assert node.clone().store().sha256 == node.sha256


def test_units_that_were_not_recorded_are_the_default(parameter_file):
    """A node of an earlier version is found again for a model whose units nobody stated."""
    node = ModelData.from_file(parameter_file, backend='torchani')
    node.base.attributes.delete('units_from')
    node.base.attributes.delete('committee')
    node.store()
    assert ModelData.from_file(parameter_file, backend='torchani').get_or_store().pk == node.pk
    stated = ModelInfo(energy_unit='Hartree')
    assert ModelData.from_file(parameter_file, backend='torchani', info=stated).get_or_store().pk != node.pk


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'committee': 1}, 'committee must be 0, or an integer, 2 or larger, not 1'),
        ({'committee': 8}, 'has its files in member-000 to member-007'),
        ({'committee': 2}, 'has 2 members, not 8'),
        ({'units_from': {'energy': 'user'}}, 'must have the keys energy and distance'),
        ({'units_from': {'energy': 'me', 'distance': 'user'}}, "energy = 'me' is not known; allowed are user, file"),
        ({'trusted': 1}, 'trusted must be true or false, not 1'),
        ({'trust_reason': 'it is a pickle'}, 'needs trust that nobody gave it'),
        ({'cutoff': -1.0}, 'cutoff must be a positive number of angstrom'),
        ({'cutoff': True}, 'cutoff must be a positive number of angstrom'),
        ({'remarks': 'text'}, 'remarks must be a list'),
        ({'remarks': ['\x1b[31m']}, 'a remark must be a text of one line'),
        ({'original_names': {'other': 'x'}}, 'original_names must give the names'),
    ],
)
def test_validation_of_attributes(parameter_file, change, message):
    node = make(parameter_file)
    node.base.attributes.set_many(change)
    with pytest.raises(ValidationError, match=message):
        node.store()


def test_facts_of_the_file(parameter_file, file_facts):
    """What is left out is read from the file."""
    file_facts['weights.npz'] = FileFacts(
        elements=('O', 'H'),
        ensemble_size=3,
        energy_unit='kJ/mol',
        cutoff=4.5,
        options={'atom_order': [8, 1, 1]},
        remarks=('energies are relative.',),
    )
    node = ModelData.from_file(parameter_file, backend='sgdml').store()
    assert (node.elements, node.ensemble_size, node.cutoff) == (('O', 'H'), 3, 4.5)
    assert (node.energy_unit, node.distance_unit) == ('kJ/mol', 'angstrom')
    assert node.units_from == {'energy': 'file', 'distance': 'default'}
    assert node.options == {'atom_order': [8, 1, 1]}
    assert node.remarks == ['energies are relative']
    spec = node.to_spec()
    assert (spec.units_from, spec.trusted, spec.options) == (node.units_from, False, node.options)


def test_trust_is_asked_for_and_recorded(parameter_file, file_facts):
    file_facts['weights.npz'] = FileFacts(needs_trust='it has the class os.system')
    with pytest.raises(ValueError, match=r'it has the class os\.system; if you have that, say so with `--trust`'):
        make(parameter_file)
    node = make(parameter_file, trusted=True).get_or_store()
    assert (node.trusted, node.trust_reason) == (True, 'it has the class os.system')
    assert node.to_spec().trusted is True
    file_facts.clear()
    other = make(parameter_file, trusted=True)
    assert other.trusted is False
    assert 'trust was not needed' in other.remarks[0]
    assert other.get_or_store().pk != node.pk


@pytest.fixture
def two_files(tmp_path):
    paths = [tmp_path / folder / 'weights.npz' for folder in ('one', 'two')]
    for path in paths:
        path.parent.mkdir()
        path.write_text(path.parent.name)
    return paths


def test_committee(two_files):
    node = ModelData.from_members(two_files, backend='sgdml', elements='H, O').store()
    assert (node.name, node.committee, node.ensemble_size) == ('weights-committee', 2, 2)
    assert node.elements == ('H', 'O')
    hashes = {f'member-00{index}/weights.npz': sha256_of(path) for index, path in enumerate(two_files)}
    assert node.files == hashes
    spec = node.to_spec()
    assert (spec.committee, spec.ensemble_size) == (2, 2)
    assert [member.files for member in split(spec)] == [{f'model/{file}': sha} for file, sha in hashes.items()]
    assert node.copy_list()[1] == (
        node.uuid, 'parameters/member-001/weights.npz', 'model/member-001/weights.npz'
    )  # fmt: skip
    assert ModelData.from_members(two_files, backend='sgdml', elements='H O').get_or_store().pk == node.pk
    swapped = ModelData.from_members(two_files[::-1], backend='sgdml', elements='H O')
    assert swapped.sha256 != node.sha256


def test_committee_of_directories(two_files, tmp_path):
    for path in two_files:
        (path.parent / 'checkpoint').write_text('same')
    node = ModelData.from_members([path.parent for path in two_files], backend='pinn', name='c').store()
    assert sorted(node.files) == [
        'member-000/checkpoint', 'member-000/weights.npz', 'member-001/checkpoint', 'member-001/weights.npz'
    ]  # fmt: skip


def test_a_directory_that_looks_like_a_committee_is_none(two_files, tmp_path):
    """The same files and number of members, and another model: a backend would be given all of them at once."""
    committee = ModelData.from_members(two_files, backend='pinn').store()
    for index, path in enumerate(two_files):
        path.parent.rename(tmp_path / f'member-00{index}')
    folder = tmp_path / 'model'
    folder.mkdir()
    for index in range(2):
        (tmp_path / f'member-00{index}').rename(folder / f'member-00{index}')
    single = ModelData.from_file(folder, backend='pinn', ensemble_size=2)
    assert (single.files, single.sha256) == (committee.files, committee.sha256)
    assert single.get_or_store().pk != committee.pk


def test_what_is_no_committee(two_files):
    with pytest.raises(ValueError, match='needs two parameter sets or more, not 1'):
        ModelData.from_members(two_files[:1], backend='sgdml')
    two_files[1].write_bytes(two_files[0].read_bytes())
    with pytest.raises(ValueError, match='are the same parameters: a committee of copies has no spread'):
        ModelData.from_members(two_files, backend='sgdml')


def test_model_of_a_family():
    node = ModelData.from_ase_calculator('chgnet', {'x': 1}).store()
    assert (node.name, node.backend_name, node.options) == ('CHGNet', 'chgnet', {'kwargs': {'x': 1}})
    assert 'Pu' in node.elements
    assert 'in the package chgnet on the computer of the job' in node.remarks[0]
    with pytest.raises(ValueError, match='MACE has no model in its package: give the parameter file'):
        ModelData.from_ase_calculator('mace')


@pytest.mark.parametrize('file', ['../../.ssh/authorized_keys', '/etc/passwd', 'a/../../b', '', 'a//b', 'a\0b'])
def test_paths_of_a_foreign_node_stay_in_their_folder(parameter_file, file):
    """A node from an archive of AiiDA was validated by nobody here."""
    node = make(parameter_file)
    node.base.attributes.set('files', {file: node.sha256})
    with pytest.raises(ValueError, match='leads out of its folder: import the model anew'):
        node.copy_list()
