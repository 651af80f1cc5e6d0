"""Tests of the model node."""

import io

import pytest
from aiida import orm
from aiida.common.exceptions import ModificationNotAllowed, ValidationError

from aiida_mlpotential.data.model import ModelData, ModelInfo
from aiida_mlpotential.worker.frames import sha256_of

pytestmark = pytest.mark.usefixtures('aiida_profile_clean')

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
    node = make(parameter_file, name='My model', options={'cutoffs': (1, 2)})
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
    assert loaded.options == {'cutoffs': [1, 2]}
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
        {'options': {'a': 1}},
        {'elements': ('C', 'H')},
        {'elements': None},
        {'ensemble_size': 7},
        {'backend': 'ase'},
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
        ({'backend': 'nope'}, "unknown backend 'nope'; there are ase, torchani"),
        ({'elements': ('H', 'Xx')}, "'Xx' in elements is no chemical symbol"),
        ({'elements': ('H', 'H')}, 'has a symbol twice'),
        ({'elements': ()}, 'elements must not be empty'),
        ({'ensemble_size': 0}, 'ensemble_size must be an integer, 1 or larger, not 0'),
        ({'ensemble_size': True}, 'ensemble_size must be an integer'),
        ({'info': ModelInfo(energy_unit='Rydberg')}, "energy_unit = 'Rydberg' is not known; allowed are eV, Hartree"),
        ({'info': ModelInfo(distance_unit='nm')}, "distance_unit = 'nm' is not known"),
        ({'name': ' '}, 'the name of the model must be a text'),
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
    node.base.attributes.set('backend', 'torchani')
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


def test_symbolic_links_in_a_model_directory_are_refused(tmp_path):
    (tmp_path / 'weights').write_text('x')
    (tmp_path / 'elsewhere').symlink_to('/etc/hostname')
    with pytest.raises(ValueError, match="symbolic link 'elsewhere'"):
        ModelData.from_file(tmp_path, backend='ase')
