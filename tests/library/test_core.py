"""Tests of getting a pre-parameterised model as a node."""

import pytest
from aiida import orm

from aiida_mlpotential.data.model import ModelData, ModelInfo
from aiida_mlpotential.library import (
    CacheSource,
    DirectorySource,
    LibraryError,
    SourceError,
    WheelSource,
    fetch_parameters,
    find_model,
    get_model,
    list_models,
    resolve_name,
)
from aiida_mlpotential.library import sources as sources_module
from aiida_mlpotential.worker.registry import DEFAULT_MODEL, PRETRAINED


class Broken:
    """A source that never has anything."""

    name = 'hub'
    cacheable = True

    def fetch(self, model, target, report):
        target.write_bytes(b'half a download')
        raise SourceError('no answer within 10 s')


@pytest.fixture
def wheel(sample, monkeypatch):
    """Return the wheel source with a fake pip, and the list of its calls."""
    calls = []

    def download(directory):
        calls.append(directory)
        (directory / 'x.whl').write_bytes(sample.wheel)
        return directory / 'x.whl'

    monkeypatch.setattr(WheelSource, '_download', staticmethod(download))
    return calls


def test_names():
    assert [model.name for model in list_models()] == list(PRETRAINED)
    assert resolve_name('ani1ccx').name == resolve_name('ANI-1ccx').name == resolve_name(' ani_1CCX ').name
    assert resolve_name(DEFAULT_MODEL) is PRETRAINED['ANI-2x']
    with pytest.raises(LibraryError, match=r"there is no model 'ANI-3x'; did you mean ANI-.*known are ANI-2x"):
        resolve_name('ANI-3x')
    with pytest.raises(LibraryError, match="there is no model 'schnet'; known are"):
        resolve_name('schnet')


@pytest.mark.usefixtures('aiida_profile_clean')
def test_model_is_stored_once(sample, wheel):
    lines = []
    assert find_model('ANI-test') is None
    chosen = (DirectorySource(), CacheSource(), Broken(), WheelSource())
    node = get_model('ani-test', sources=chosen, report=lines.append)
    assert node.is_stored
    assert (node.name, node.backend_name, node.sha256) == ('ANI-test', 'torchani', sample.model.sha256)
    assert (node.elements, node.ensemble_size, node.energy_unit) == (('H',), 2, 'Hartree')
    assert (node.licence, node.method, node.doi) == ('MIT', 'none', '10.1/x')
    assert node.source_text == 'PyPI: torchani==2.0'
    assert node.base.repository.get_object_content('parameters/anitest.npz', mode='rb') == sample.content
    assert 'hub: no answer within 10 s' in lines
    assert lines[-1] == 'Found ANI-test (PyPI: torchani==2.0)'
    assert get_model('ANI-test', sources=()).pk == node.pk == find_model('ANI-test').pk
    assert orm.QueryBuilder().append(ModelData).count() == 1
    assert len(wheel) == 1


@pytest.mark.usefixtures('aiida_profile_clean')
def test_second_profile_needs_no_download(sample, wheel, aiida_profile_clean):
    chosen = (CacheSource(), WheelSource())
    get_model('ANI-test', sources=chosen)
    aiida_profile_clean.reset_storage()
    assert find_model('ANI-test') is None
    lines = []
    node = get_model('ANI-test', sources=chosen, report=lines.append)
    assert lines == ['Found ANI-test (cache; from PyPI: torchani==2.0)']
    assert node.source_text == 'PyPI: torchani==2.0'
    assert len(wheel) == 1


def test_damaged_cache_is_replaced(sample, wheel, tmp_path):
    cache, lines = CacheSource(), []
    path = sample.put(cache.directory, b'damaged')
    fetch_parameters(sample.model, tmp_path / 'x', (cache, WheelSource()), lines.append)
    assert path.read_bytes() == sample.content
    assert lines[0].startswith('The cached file is not the registered version')
    assert len(wheel) == 1


def test_directory_is_not_copied_to_the_cache(sample, tmp_path):
    sample.put(tmp_path)
    cache = CacheSource()
    fetch_parameters(sample.model, tmp_path / 'x', (DirectorySource([tmp_path]), cache))
    assert (tmp_path / 'x').read_bytes() == sample.content
    assert not cache.directory.exists()


def test_all_reasons_are_told(sample, tmp_path):
    sample.put(tmp_path, b'wrong')
    chosen = (DirectorySource([tmp_path]), CacheSource(), Broken())
    with pytest.raises(LibraryError) as caught:
        fetch_parameters(sample.model, tmp_path / 'x', chosen)
    message = str(caught.value)
    assert message.startswith('ANI-test could not be found: directory: ')
    assert f'expected {sample.model.sha256}' in message
    assert '; cache: empty; hub: no answer within 10 s. Put anitest_state_dict.pt (or anitest.npz)' in message
    assert message.endswith('set AIIDA_MLPOTENTIAL_MODELS to it.')
    assert not (tmp_path / 'x').exists()


@pytest.mark.usefixtures('aiida_profile_clean')
def test_nothing_is_stored_when_nothing_is_found(sample):
    with pytest.raises(LibraryError, match='there are no sources'):
        get_model('ANI-test', sources=())
    assert orm.QueryBuilder().append(ModelData).count() == 0


def test_default_sources_are_used(sample, tmp_path, monkeypatch):
    sample.put(tmp_path)
    monkeypatch.setenv('AIIDA_MLPOTENTIAL_MODELS', str(tmp_path))
    monkeypatch.setattr(sources_module, '_run_python', lambda *_: pytest.fail('a local file needs no network'))
    assert fetch_parameters(sample.model, tmp_path / 'x') == 'file: anitest.npz'


@pytest.mark.usefixtures('aiida_profile_clean')
def test_default_model_from_published_file(shared_data, tmp_path):
    pytest.importorskip('torch')
    node = get_model(DEFAULT_MODEL, sources=[DirectorySource([shared_data / 'models' / 'torchani'])])
    assert node.elements == ('H', 'C', 'N', 'O', 'S', 'F', 'Cl')
    assert node.sha256 == PRETRAINED['ANI-2x'].sha256
    assert node.source_text == 'file: ani2x_state_dict.pt'
    assert node.files == {'ani2x.npz': node.sha256}


def test_the_same_file_with_other_units_is_another_model(aiida_profile_clean, sample, tmp_path):
    """Who imports the published parameters as eV has made a mistake, which must not become that of everybody."""
    path = sample.put(tmp_path)
    wrong = ModelData.from_file(path, backend='torchani', info=ModelInfo(energy_unit='eV')).get_or_store()
    assert find_model(sample.model.name) is None
    right = get_model(sample.model.name, sources=[DirectorySource([tmp_path])])
    assert right.pk != wrong.pk
    assert (right.energy_unit, right.distance_unit) == ('Hartree', 'angstrom')
    assert find_model(sample.model.name).pk == right.pk
