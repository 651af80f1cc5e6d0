"""What user, file and backend say of a model, and whose word counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiida_mlpotential.data import model_info
from aiida_mlpotential.data.model_info import (
    Claims,
    ModelInfo,
    clean_texts,
    inspect_file,
    merge_members,
    parse_elements,
    resolve,
    show_value,
)
from aiida_mlpotential.worker.backends import BACKENDS
from aiida_mlpotential.worker.backends.base import FileFacts, ModelFileError
from aiida_mlpotential.worker.errors import WorkerError


def claim(backend='sgdml', elements=None, ensemble_size=None, options=None, info=None, trusted=False):
    return Claims.make(backend, elements, ensemble_size, options, info or ModelInfo(), trusted)


def test_the_cutoff_is_in_the_unit_of_the_model():
    facts = FileFacts(cutoff=10.0)
    assert resolve(claim(), facts)['cutoff'] == 10.0
    assert resolve(claim(info=ModelInfo(distance_unit='bohr')), facts)['cutoff'] == pytest.approx(5.291772105638411)


def test_where_elements_are_a_guess_the_user_knows_better():
    guess = FileFacts(('H', 'C'), elements_certain=False)
    assert resolve(claim(), guess)['elements'] == ['H', 'C']
    found = resolve(claim(elements='H C N'), guess)
    assert found['elements'] == ['H', 'C', 'N']
    assert found['remarks'] == ['the file looks like one for H C; you said H C N']
    assert resolve(claim(elements='C H'), guess)['remarks'] == []


@pytest.mark.parametrize('backend', sorted(BACKENDS))
def test_default_units_are_those_of_the_backend(backend):
    resolved = resolve(claim(backend), FileFacts())
    assert (resolved['energy_unit'], resolved['distance_unit']) == (
        BACKENDS[backend].energy_unit,
        BACKENDS[backend].distance_unit,
    )
    assert resolved['units_from'] == {'energy': 'default', 'distance': 'default'}


def test_units_of_the_file():
    resolved = resolve(claim(), FileFacts(energy_unit='Hartree', distance_unit='bohr'))
    assert (resolved['energy_unit'], resolved['distance_unit']) == ('Hartree', 'bohr')
    assert resolved['units_from'] == {'energy': 'file', 'distance': 'file'}
    assert resolved['remarks'] == []


def test_units_of_the_user_replace_those_of_the_file():
    info = ModelInfo(energy_unit='eV', distance_unit='bohr')
    resolved = resolve(claim(info=info), FileFacts(energy_unit='Hartree', distance_unit='bohr'))
    assert (resolved['energy_unit'], resolved['distance_unit']) == ('eV', 'bohr')
    assert resolved['units_from'] == {'energy': 'user', 'distance': 'user'}
    assert resolved['remarks'] == ['the file has the energy unit Hartree, which eV replaces, as you said']


def test_elements():
    assert resolve(claim(), FileFacts())['elements'] is None
    assert resolve(claim(elements='C H'), FileFacts())['elements'] == ['C', 'H']
    assert resolve(claim(), FileFacts(('H', 'C')))['elements'] == ['H', 'C']
    # the file knows the order of its own species
    assert resolve(claim(elements='C H'), FileFacts(('H', 'C')))['elements'] == ['H', 'C']
    with pytest.raises(ModelFileError, match='the elements C H O are not those of the file, H C: leave them out'):
        resolve(claim(elements='C H O'), FileFacts(('H', 'C')))


def test_members():
    assert resolve(claim(), FileFacts(ensemble_size=4))['ensemble_size'] == 4
    assert resolve(claim(ensemble_size=8), FileFacts())['ensemble_size'] == 8
    with pytest.raises(ModelFileError, match='the file has 4 members, not 8'):
        resolve(claim(ensemble_size=8), FileFacts(ensemble_size=4))


def test_options():
    facts = FileFacts(options={'atom_order': (6, 1), 'x': 1 / 3})
    assert resolve(claim(options={'y': 2, 'atom_order': [6, 1]}), facts)['options'] == {
        'atom_order': [6, 1],
        'x': pytest.approx(1 / 3),
        'y': 2,
    }
    with pytest.raises(ModelFileError, match=r'the option atom_order = \[1, 6\] is not what the file has, \[6, 1\]'):
        resolve(claim(options={'atom_order': [1, 6]}), facts)


def test_trust():
    facts = FileFacts(needs_trust='it is a pickle of os.system. ')
    with pytest.raises(ModelFileError, match=r'whoever made it: it is a pickle of os\.system; if you have that'):
        resolve(claim(), facts)
    resolved = resolve(claim(trusted=True), facts)
    assert (resolved['trusted'], resolved['trust_reason']) == (True, 'it is a pickle of os.system')
    resolved = resolve(claim(trusted=True), FileFacts())
    assert (resolved['trusted'], resolved['trust_reason']) == (False, '')
    assert resolved['remarks'] == [
        'trust was not needed, and is not recorded: the file is loaded without running what is in it'
    ]


def test_claims():
    with pytest.raises(ValueError, match="unknown backend 'x'; there are "):
        claim('x')
    with pytest.raises(ValueError, match='trusted must be True or False, not 1'):
        claim(trusted=1)
    with pytest.raises(ValueError, match='must be finite JSON values'):
        claim(options={'x': float('inf')})


@pytest.mark.parametrize('text', ['H,C,O', 'H C O', ' H, C ,O ', 'H;C\tO'])
def test_elements_as_a_text(text):
    assert parse_elements(text) == ('H', 'C', 'O')
    assert parse_elements(['H', 'C', 'O']) == ('H', 'C', 'O')


def test_remarks_are_safe_to_show():
    assert clean_texts(['a\x1b[2J b.', '', 'a\n b', 'a b', 'x' * 600]) == ['a?[2J b', 'a b', 'x' * 500]


def test_values_are_short():
    assert show_value(None) == 'none'
    assert show_value(('H', 'C')) == 'H C'
    assert len(show_value(list(range(1000)))) == 200


def test_inspection(tmp_path, file_facts):
    path = tmp_path / 'x.npz'
    file_facts['x.npz'] = FileFacts(cutoff=3.0)
    assert inspect_file('sgdml', path).cutoff == 3.0
    file_facts['x.npz'] = ModelFileError(f'{path} is a SchNetPack 1.x file')
    with pytest.raises(ModelFileError, match=r'^my\.npz is a SchNetPack 1'):
        inspect_file('sgdml', path, Path('my.npz'))
    file_facts['x.npz'] = WorkerError('ERROR_MODEL_CORRUPT', 'it is damaged')
    with pytest.raises(ModelFileError, match='it is damaged'):
        inspect_file('sgdml', path)


@pytest.mark.parametrize(
    'exception', [RecursionError('deep'), MemoryError(), KeyError('z'), UnicodeDecodeError('a', b'', 0, 1, 'x')]
)
def test_whatever_a_hostile_file_raises_is_one_sentence(tmp_path, file_facts, exception):
    file_facts['x.npz'] = exception
    with pytest.raises(ModelFileError, match=r"'x\.npz' is no model of the backend sgdml, or damaged"):
        inspect_file('sgdml', tmp_path / 'x.npz')


NAMES = ('one', 'two')


def test_committee():
    facts = FileFacts(('H',), energy_unit='eV', cutoff=5.0, options={'a': 1}, remarks=('same',), files=('x',))
    merged = merge_members([facts, facts], NAMES)
    assert (merged.ensemble_size, merged.elements, merged.cutoff, merged.remarks) == (2, ('H',), 5.0, ('same',))
    assert merged.files is None
    other = FileFacts(('H',), energy_unit='eV', cutoff=6.0, options={'a': 1}, needs_trust='a pickle')
    merged = merge_members([facts, other], NAMES)
    assert (merged.cutoff, merged.needs_trust) == (None, 'a pickle')


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        (FileFacts(('H', 'C')), 'must have the same elements: one has H, two has H C'),
        (FileFacts(None), 'must have the same elements: one has H, two has none'),
        (FileFacts(('H',), energy_unit='eV'), 'must have the same energy unit: one has none, two has eV'),
        (FileFacts(('H',), distance_unit='bohr'), 'must have the same distance unit'),
        (FileFacts(('H',), options={'atom_order': [1, 1]}), r'must have the same atom_order: .*two has \[1, 1\]'),
        (FileFacts(('H',), ensemble_size=2), 'two is an ensemble of 2 itself'),
    ],
)
def test_members_that_do_not_agree(other, message):
    with pytest.raises(ModelFileError, match=message):
        merge_members([FileFacts(('H',)), other], NAMES)


def test_the_real_backends_are_asked(tmp_path, monkeypatch):
    """Without the fixture of these tests, it is the backend of the registry that looks at the file."""
    (tmp_path / 'x.model').write_bytes(b'1')
    with pytest.raises(ModelFileError, match=r'x\.model is read by the package of its calculator, which may run'):
        resolve(claim('mace'), inspect_file('mace', tmp_path / 'x.model'))
    assert model_info.get_backend('mace').__name__ == 'AseBackend'
