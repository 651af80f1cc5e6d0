"""From paths to the files of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiida_mlpotential.data import model_parameters
from aiida_mlpotential.data.model_parameters import default_name, read_committee, read_single
from aiida_mlpotential.worker.backends.base import FileFacts, ModelFileError


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'copies'
    path.mkdir()
    return path


@pytest.fixture
def paths(tmp_path):
    result = [tmp_path / f'my {name}.npz' for name in 'ab']
    for path in result:
        path.write_text(path.name)
    return result


def test_default_name(tmp_path, monkeypatch):
    assert default_name(tmp_path / 'a b.tar.npz') == 'a_b.tar'
    (tmp_path / 'pinet2.v1').mkdir()
    monkeypatch.chdir(tmp_path / 'pinet2.v1')
    assert default_name(tmp_path / 'pinet2.v1') == 'pinet2.v1'
    assert default_name(Path()) == 'pinet2.v1'


def test_single(paths, folder, file_facts):
    file_facts['my_a.npz'] = FileFacts(cutoff=2.0)
    parameters = read_single(paths[0], 'sgdml', folder)
    assert parameters.facts.cutoff == 2.0
    assert parameters.files['my_a.npz'].read_text() == 'my a.npz'
    assert (parameters.original_names, parameters.committee) == ({'my_a.npz': 'my a.npz'}, 0)


def test_what_is_inspected_is_what_is_stored(paths, folder, monkeypatch):
    """A file that is replaced while the backend looks at it does not get into the node."""

    def inspect(backend, path, shown=None):
        assert path.parent == folder
        paths[0].write_text('something else')
        return FileFacts(remarks=(path.read_text(),))

    monkeypatch.setattr(model_parameters, 'inspect_file', inspect)
    parameters = read_single(paths[0], 'sgdml', folder)
    assert parameters.files['my_a.npz'].read_text() == parameters.facts.remarks[0] == 'my a.npz'


def test_committee(paths, folder, file_facts):
    parameters = read_committee(paths, 'sgdml', folder)
    assert list(parameters.files) == ['member-000/my_a.npz', 'member-001/my_b.npz']
    assert parameters.original_names['member-001/my_b.npz'] == 'my b.npz'
    assert (parameters.committee, parameters.facts.ensemble_size) == (2, 2)


def test_committee_names_its_members(paths, folder, file_facts):
    file_facts['my_b.npz'] = FileFacts(('H',))
    with pytest.raises(ModelFileError, match=r"my a\.npz' has none, '.*my b\.npz' has H"):
        read_committee(paths, 'sgdml', folder)


def test_the_limit_is_for_all_members(paths, folder, file_facts, monkeypatch):
    monkeypatch.setattr(model_parameters, 'MAX_BYTES', 12)
    with pytest.raises(ModelFileError, match=r'is larger than .*my b\.npz'):
        read_committee(paths, 'sgdml', folder)
