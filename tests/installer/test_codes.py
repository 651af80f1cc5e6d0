"""Codes of environments: found by what they are, and gone or hidden when they are retired."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.common.links import LinkType

from aiida_mlpotential.installer import codes
from aiida_mlpotential.installer.environment import Environment
from aiida_mlpotential.installer.recipes import RECIPES
from aiida_mlpotential.installer.remote import InstallerError, Remote

FACTS = {'versions': {'python': '3.11.7', 'torchani': '2.9.0'}}


@pytest.fixture
def code(remote: Remote) -> orm.InstalledCode:
    """Return a Code as the installer makes it."""
    environment = Environment(remote, '/x/torchani-2.9.0', {'device': 'cpu'})
    return codes.create_code(environment, RECIPES['torchani'], codes.default_label('torchani'), FACTS)


def test_code(code: orm.InstalledCode) -> None:
    """It runs the interpreter of the environment for our calculations, and says what it is."""
    assert code.full_label == 'mlpotential-torchani@localhost'
    assert str(code.filepath_executable) == '/x/torchani-2.9.0/bin/python'
    assert code.default_calc_job_plugin == 'mlpotential.single_point'
    assert 'python 3.11.7, torchani 2.9.0; build for cpu' in code.description
    assert not code.prepend_text
    facts = codes.environment_of(code)
    assert (facts['backend'], facts['path'], facts['usable']) == ('torchani', '/x/torchani-2.9.0', True)


def test_find(code: orm.InstalledCode, remote: Remote) -> None:
    """Those made by hand are not among them."""
    orm.InstalledCode(label='hand', computer=remote.computer, filepath_executable='/bin/python').store()
    assert [found.pk for found in codes.find_codes()] == [code.pk]
    assert [found.pk for found in codes.find_codes('torchani', remote.computer)] == [code.pk]
    assert codes.find_codes('sgdml') == []
    other = orm.Computer('other', 'localhost', '', 'core.local', 'core.direct', '/tmp').store()
    assert codes.find_codes('torchani', other) == []


def test_code_that_somebody_hid(code: orm.InstalledCode, remote: Remote) -> None:
    """It is still in the way of another one of its label, and goes with its environment."""
    code.is_hidden = True
    assert [found.pk for found in codes.find_codes('torchani', remote.computer)] == [code.pk]


def test_label(code: orm.InstalledCode, remote: Remote) -> None:
    """A label that is taken, or names a computer, is refused before anything is made."""
    with pytest.raises(InstallerError, match=r'there is a Code mlpotential-torchani@localhost already'):
        codes.check_label(remote.computer, code.label)
    with pytest.raises(InstallerError, match='names a computer'):
        codes.check_label(remote.computer, 'x@localhost')
    codes.check_label(remote.computer, 'free')


def test_record_of_a_check(code: orm.InstalledCode, remote: Remote) -> None:
    """The last result is kept; a Code made by hand is not changed."""
    codes.record_check(code, False)
    assert codes.environment_of(code)['usable'] is False
    hand = orm.InstalledCode(label='hand', computer=remote.computer, filepath_executable='/bin/python').store()
    before = hand.base.extras.all
    codes.record_check(hand, True)
    assert hand.base.extras.all == before


def test_unused_code_is_deleted(code: orm.InstalledCode) -> None:
    """Nothing depends on it."""
    assert codes.retire_code(code) == 'deleted the Code mlpotential-torchani@localhost'
    assert orm.QueryBuilder().append(orm.InstalledCode).count() == 0


def test_used_code_is_hidden(code: orm.InstalledCode, remote: Remote) -> None:
    """The provenance keeps it; its label is free, and it is not found again."""
    job = orm.CalcJobNode(computer=remote.computer)
    job.base.links.add_incoming(code, LinkType.INPUT_CALC, 'code')
    job.store()
    text = codes.retire_code(code)
    assert text.startswith('hid the Code mlpotential-torchani@localhost, which calculations used, as ')
    assert orm.load_node(code.pk).is_hidden
    assert codes.find_codes() == []
    codes.check_label(remote.computer, 'mlpotential-torchani')
