"""What must be true of a model before it is stored; the messages are tested through the node in test_model.py, too."""

from __future__ import annotations

import pytest
from aiida.common.exceptions import ValidationError

from aiida_mlpotential.data.model_checks import check_attributes, check_files, check_text

GOOD = {
    'name': 'x',
    'backend': 'sgdml',
    'sha256': 'ab' * 32,
    'files': {'x.npz': 'ab' * 32},
    'options': {},
    'elements': ['H', 'C'],
    'ensemble_size': 1,
    'energy_unit': 'eV',
    'distance_unit': 'bohr',
}


def test_a_good_model():
    """What later versions added may be absent."""
    assert check_attributes(GOOD) is None
    later = {'committee': 0, 'units_from': {'energy': 'file', 'distance': 'user'}, 'cutoff': 5, 'remarks': ['a']}
    assert check_attributes({**GOOD, **later, 'trusted': True, 'trust_reason': 'a pickle'}) is None
    assert check_files(GOOD, GOOD['files']) is None


@pytest.mark.parametrize('key', ['name', 'backend', 'sha256', 'files', 'options'])
def test_missing(key):
    with pytest.raises(ValidationError, match=f'the model has no {key}: make it with'):
        check_attributes({name: value for name, value in GOOD.items() if name != key})


def test_committee():
    files = {f'member-00{index}/x': 'ab' * 32 for index in range(2)}
    committee = {**GOOD, 'ensemble_size': 2, 'committee': 2, 'files': files}
    assert check_attributes(committee) is None
    with pytest.raises(ValidationError, match='a committee of 2 parameter sets has 2 members, not 3'):
        check_attributes({**committee, 'ensemble_size': 3})
    with pytest.raises(ValidationError, match=r"in member-000 to member-001, not in \['member-000'\]"):
        check_attributes({**committee, 'files': {'member-000/x': 'ab' * 32}})


@pytest.mark.parametrize('value', [1, None, 'a\nb', '\x1b[1m', 'x' * 2001])
def test_texts(value):
    with pytest.raises(ValidationError, match='doi must be a text of one line'):
        check_text('doi', value)


@pytest.mark.parametrize('cutoff', [0, -1, float('nan'), float('inf'), '5', True])
def test_cutoff(cutoff):
    with pytest.raises(ValidationError, match='cutoff must be a positive number of angstrom'):
        check_attributes({**GOOD, 'cutoff': cutoff})


def test_files():
    with pytest.raises(ValidationError, match=r"the file name '\.\./x' in the model is not plain"):
        check_files({**GOOD, 'files': {'../x': 'ab' * 32}}, {'../x': 'ab' * 32})
    with pytest.raises(ValidationError, match='must be 64 hexadecimal digits, not None'):
        check_files({**GOOD, 'files': {'x': None}}, {'x': 'ab' * 32})
    with pytest.raises(ValidationError, match='do not match the attribute files'):
        check_files(GOOD, {})
    with pytest.raises(ValidationError, match='the backend sgdml needs a parameter file'):
        check_files({**GOOD, 'files': {}}, {})
    with pytest.raises(ValidationError, match='is not that of its content'):
        check_files({**GOOD, 'sha256': 'cd' * 32}, GOOD['files'])
    with pytest.raises(ValidationError, match=f"'x.npz' has sha256 {'cd' * 32}, expected {'ab' * 32}"):
        check_files(GOOD, {'x.npz': 'cd' * 32})
