"""``models``: what is published, what is in the profile, and where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiida import orm

from aiida_mlpotential import library
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.worker.backends.base import FileFacts
from aiida_mlpotential.worker.registry import PRETRAINED


@pytest.fixture
def installed(emt: ModelData, monkeypatch) -> ModelData:
    """Let the library find, and give, a small model in place of ANI-1x."""
    monkeypatch.setattr(library, 'find_model', lambda name: emt if name == 'ANI-1x' else None)
    return emt


def test_list_names_all_published_models(aiida_profile_clean, invoke) -> None:
    """Every model of the registry is there with its facts, and none is installed."""
    result = invoke('models', 'list')
    assert result.exit_code == 0, result.output
    for model in PRETRAINED.values():
        line = next(line for line in result.output.splitlines() if line.startswith(model.name))
        assert ' '.join(model.elements) in line
        assert model.method in line
        assert line.split()[-1] == '-'
    assert '`aiida-mlpotential models install NAME`' in result.output
    assert 'Your own' not in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_list_shows_what_is_in_the_profile(installed: ModelData, invoke) -> None:
    """An installed model has its PK; the user's own come after the published ones, with the number of many elements."""
    own = ModelData.from_ase_calculator('ase.calculators.lj.LennardJones').get_or_store()
    many = ModelData.from_ase_calculator('chgnet').get_or_store()
    lines = invoke('models', 'list').output.splitlines()
    assert next(line for line in lines if 'ANI-1x' in line).split()[-1] == str(installed.pk)
    line = next(line for line in lines if line.startswith('LennardJones'))
    assert line.split() == ['LennardJones', 'ase', 'any', '1', 'eV,', 'angstrom', str(own.pk)]
    assert f' {len(many.elements)} elements ' in next(line for line in lines if line.startswith('CHGNet'))
    assert not [line for line in lines if line.startswith('EMT')]  # it stands there as ANI-1x
    assert not [line for line in lines if 'Trust' in line or 'assumed' in line]
    assert max(map(len, lines)) <= 80


def test_list_marks_assumed_units(aiida_profile_clean, file_facts, invoke, tmp_path: Path) -> None:
    """A unit that nobody said has an asterisk; one of the file or of the user has none."""
    (tmp_path / 'x.npz').write_text('1')
    file_facts['x.npz'] = FileFacts(distance_unit='bohr')
    ModelData.from_file(tmp_path / 'x.npz', backend='schnetpack').store()
    lines = invoke('models', 'list').output.splitlines()
    assert ' kcal/mol*, bohr ' in next(line for line in lines if line.startswith('x '))
    assert lines[-1] == '* assumed: neither the file nor whoever imported it said it.'


def test_list_marks_trusted_models(aiida_profile_clean, file_facts, invoke, tmp_path: Path) -> None:
    """Whose files may run code is seen at once."""
    (tmp_path / 'x.npz').write_text('1')
    (tmp_path / 'y.npz').write_text('2')
    file_facts['x.npz'] = FileFacts(needs_trust='a pickle')
    for name in 'xy':
        ModelData.from_file(tmp_path / f'{name}.npz', backend='sgdml', trusted=True).store()
    lines = {line.split()[0]: line for line in invoke('models', 'list').output.splitlines() if line}
    assert 'sgdml' in lines['x'] and 'trusted' in lines['x']
    assert 'sgdml' in lines['y'] and 'trusted' not in lines['y']


def test_install_says_what_is_done(emt: ModelData, invoke, monkeypatch, tmp_path: Path) -> None:
    """Progress of the library is shown, and a directory is the only source if one is named."""
    seen = []

    def get_model(name, sources=None, report=None):
        report(f'looking for {name}')
        seen.append((name, sources))
        return emt

    monkeypatch.setattr(library, 'get_model', get_model)
    result = invoke('models', 'install', 'ani-1x', 'ANI1X', 'ani_2x')
    assert result.exit_code == 0, result.output
    assert seen == [('ANI-1x', None), ('ANI-2x', None)]
    assert 'looking for ANI-1x' in result.output
    assert f'Model ANI-2x: stored, PK {emt.pk}' in result.output
    seen.clear()
    assert invoke('models', 'install', 'ANI-1x', '--from', tmp_path).exit_code == 0
    ((_, sources),) = seen
    assert [type(source) for source in sources] == [library.DirectorySource]


def test_install_of_what_is_there(installed: ModelData, invoke, monkeypatch) -> None:
    """A second installation says that there was nothing to do."""
    monkeypatch.setattr(library, 'get_model', lambda name, sources=None, report=None: installed)
    assert f'in the profile already, PK {installed.pk} (' in invoke('models', 'install', 'ANI-1x').output


def test_directory_that_is_not_needed(installed: ModelData, invoke, monkeypatch, tmp_path: Path) -> None:
    """Where the model is there already, nobody looks into the directory, and that is said."""
    monkeypatch.setattr(library, 'get_model', lambda name, sources=None, report=None: installed)
    output = invoke('models', 'install', 'ANI-1x', '--from', tmp_path).output
    assert f'in the profile already, PK {installed.pk}; {tmp_path} was not looked at (' in output


def test_install_from_an_empty_directory(aiida_profile_clean, invoke, tmp_path: Path) -> None:
    """A directory without the file is one sentence that says what to put there."""
    result = invoke('models', 'install', 'ANI-1x', '--from', tmp_path)
    assert result.exit_code == 1
    assert 'Error: ANI-1x could not be found: directory: ' in result.output
    assert 'ani1x_state_dict.pt' in result.output
    assert 'Traceback' not in result.output


def test_install_of_a_wrong_file(aiida_profile_clean, invoke, tmp_path: Path) -> None:
    """A file that is not what its name says is refused."""
    (tmp_path / 'ani1x.npz').write_bytes(b'something else')
    result = invoke('models', 'install', 'ANI-1x', '--from', tmp_path)
    assert result.exit_code == 1
    assert PRETRAINED['ANI-1x'].sha256 in result.output
    assert orm.QueryBuilder().append(ModelData).count() == 0


def test_unknown_name(aiida_profile_clean, invoke) -> None:
    """A misspelt name is answered with the right one, and nothing is installed."""
    result = invoke('models', 'install', 'ANI-1ccx', 'ANI-2')
    assert result.exit_code == 1
    assert "there is no model 'ANI-2'; did you mean ANI-2x?" in result.output
    assert orm.QueryBuilder().append(ModelData).count() == 0


def test_install_from_published_parameters(aiida_profile_clean, invoke, shared_data: Path) -> None:
    """The published parameters of a directory become a node, once."""
    pytest.importorskip('torch')
    directory = shared_data / 'models' / 'torchani'
    for _ in range(2):
        result = invoke('models', 'install', 'ANI-1ccx', '--from', directory)
        assert result.exit_code == 0, result.output
    node = orm.QueryBuilder().append(ModelData).one()[0]
    assert node.sha256 == PRETRAINED['ANI-1ccx'].sha256
    assert node.ensemble_size == 8
    assert invoke('models', 'list').output.count(' -\n') == 2
