"""``model.json``: nothing in it is believed."""

from __future__ import annotations

import json

import pytest

from aiida_mlpotential.data.model import ModelData, ModelInfo
from aiida_mlpotential.library.manifest import FORMAT, MAX_MANIFEST, Manifest
from aiida_mlpotential.worker.backends.base import ModelFileError

GOOD = {
    'format': FORMAT,
    'version': 1,
    'name': 'x',
    'backend': 'sgdml',
    'sha256': 'ab' * 32,
    'files': {'x.npz': 'ab' * 32},
    'options': {'atom_order': [1, 1]},
    'elements': ['H', 'C'],
    'ensemble_size': 1,
    'committee': 0,
    'energy_unit': 'eV',
    'distance_unit': 'bohr',
    'units_from': {'energy': 'file', 'distance': 'user'},
    'licence': 'MIT',
    'method': '',
    'doi': '',
}


def read(**changes):
    return Manifest.from_json(json.dumps({**GOOD, **changes}).encode())


def test_round_trip(aiida_profile_clean, file_facts, tmp_path):
    (tmp_path / 'a b').write_text('1')
    info = ModelInfo(energy_unit='eV', source='here', licence='MIT', doi='10.1/x')
    node = ModelData.from_file(
        tmp_path / 'a b', backend='sgdml', elements='H C', info=info, options={'atom_order': [1, 6]}
    )
    manifest = Manifest.of(node)
    assert Manifest.from_json(manifest.to_json().encode()) == manifest
    assert manifest.source == 'here'
    assert manifest.original_names == {'a_b': 'a b'}
    assert 'trust' not in manifest.to_json()


def test_node_of_an_earlier_version(aiida_profile_clean, file_facts, tmp_path):
    (tmp_path / 'a').write_text('1')
    node = ModelData.from_file(tmp_path / 'a', backend='sgdml')
    for key in ('committee', 'units_from', 'cutoff', 'original_names'):
        node.base.attributes.delete(key)
    manifest = Manifest.of(node)
    assert (manifest.committee, manifest.units_from['energy'], manifest.cutoff) == (0, 'default', None)
    assert Manifest.from_json(manifest.to_json().encode()) == manifest


def test_optional_keys():
    manifest = read()
    assert (manifest.source, manifest.cutoff, manifest.original_names) == ('', None, {})


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'format': 'other'}, 'it is not that of an exported model'),
        ({'version': 2}, 'version 2 is not known, only 1 is: update aiida-mlpotential'),
        ({'trusted': True}, "'trusted' is not known"),
        ({'trust_reason': 'no'}, "'trust_reason' is not known"),
        ({'files': {}}, 'files is of the wrong kind'),
        ({'files': ['x']}, 'files is of the wrong kind'),
        ({'files': {'x': 1}}, 'files is of the wrong kind'),
        ({'files': {'../x': 'ab' * 32}}, r"file name '\.\./x' in the model is not plain"),
        ({'files': {'/etc/passwd': 'ab' * 32}}, 'is not plain'),
        ({'files': {'x;reboot': 'ab' * 32}}, 'is not plain'),
        ({'options': []}, 'options is of the wrong kind'),
        ({'elements': 'HC'}, 'elements is of the wrong kind'),
        ({'elements': [['H']]}, 'elements is of the wrong kind'),
        ({'elements': ['Xx']}, "'Xx' in elements is no chemical symbol"),
        ({'name': 5}, 'name is of the wrong kind'),
        ({'name': '\x1b]0;owned\x07'}, 'the name of the model must be a text of one line'),
        ({'source': 'a\nb'}, 'source must be a text of one line'),
        ({'backend': 'os.system'}, "unknown backend 'os.system'"),
        ({'energy_unit': 'Auto'}, "energy_unit = 'Auto' is not known"),
        ({'units_from': {'energy': 'user'}}, 'units_from must have the keys'),
        ({'ensemble_size': 1.0}, 'ensemble_size must be an integer'),
        ({'committee': True}, 'committee must be 0'),
        ({'original_names': {'y': 'z'}}, 'original_names must give the names'),
    ],
)
def test_what_is_not_valid(changes, message):
    with pytest.raises(ModelFileError, match=f'model.json is not valid: .*{message}'):
        read(**changes)


def test_missing_key():
    with pytest.raises(ModelFileError, match="'doi' is missing"):
        Manifest.from_json(json.dumps({key: value for key, value in GOOD.items() if key != 'doi'}).encode())


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'it is no JSON'),
        (b'\xff\xfe', 'it is no JSON'),
        (b'[' * 100_000, 'it is no JSON'),
        (b'[]', 'it is not that of an exported model'),
        (b'{"a": NaN}', 'NaN is no number'),
        (b'{"a": 1, "a": 2}', 'it has a key twice'),
        (b'"' + b'x' * MAX_MANIFEST + b'"', 'it is larger than'),
        (b'{"a": ' + b'9' * 10_000 + b'}', 'it is no JSON'),
    ],
)
def test_hostile_text(content, message):
    with pytest.raises(ModelFileError, match=message):
        Manifest.from_json(content)
