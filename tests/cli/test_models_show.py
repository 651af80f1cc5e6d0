"""``models show``: what is known of one model, from the registry, the node, and what used it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiida import orm
from aiida.common.links import LinkType

from aiida_mlpotential import library
from aiida_mlpotential.cli.models_show import describe_node
from aiida_mlpotential.data.model import ModelData, ModelInfo
from aiida_mlpotential.worker.backends.base import FileFacts
from aiida_mlpotential.worker.registry import PRETRAINED


@pytest.fixture
def installed(emt: ModelData, monkeypatch) -> ModelData:
    """Let the library find, and give, a small model in place of ANI-1x."""
    monkeypatch.setattr(library, 'find_model', lambda name: emt if name == 'ANI-1x' else None)
    return emt


def test_show_a_node(emt: ModelData, invoke) -> None:
    """A model is shown by PK and by UUID, with the number of its calculations."""
    for identifier in (emt.pk, emt.uuid):
        result = invoke('models', 'show', identifier)
        assert result.exit_code == 0, result.output
        shown = dict(re.split(r'  +', line, maxsplit=1) for line in result.output.splitlines() if '  ' in line)
        assert shown['Name'] == 'EMT'
        assert shown['Backend'] == 'ase'
        assert shown['sha256'] == emt.sha256
        assert shown['Energy unit'] == 'eV (default of the backend)'
        assert shown['Option calculator'] == '"ase.calculators.emt.EMT"'
        assert 'Used by 0 processes.' in result.output
        assert 'Trusted' not in shown


def test_show_lists_what_used_it(emt: ModelData, localhost: orm.Computer, invoke) -> None:
    """The latest ten of the processes that had the model as an input, and how many there are."""
    pks = []
    for number in range(12):
        cls, link = (orm.CalcJobNode, LinkType.INPUT_CALC) if number else (orm.WorkChainNode, LinkType.INPUT_WORK)
        node = cls(computer=localhost) if number else cls()
        node.set_process_label('SinglePointCalculation' if number else 'SomeWorkChain')
        node.base.links.add_incoming(emt, link_type=link, link_label='model')
        node.set_process_state('finished')
        node.set_exit_status(400 if number == 11 else 0)
        pks.append(node.store().pk)
        if number == 0:
            output = invoke('models', 'show', emt.pk).output
            assert 'Used by 1 process.' in output
            assert f'{pks[0]}  SomeWorkChain  finished [0]' in output
    output = invoke('models', 'show', emt.pk).output
    assert 'Used by 12 processes.' in output
    assert 'The latest 10:' in output
    listed = [int(line.split()[0]) for line in output.splitlines() if 'finished' in line]
    assert listed == pks[:1:-1]
    assert f'{pks[-1]}  SinglePointCalculation  finished [400]' in output


def test_show_what_the_file_said(aiida_profile_clean, file_facts, invoke, tmp_path: Path) -> None:
    """Units with their origin, cutoff, atom order by symbols, members, trust, files with the names that they had."""
    for name in 'ab':
        (tmp_path / f'{name} x.npz').write_text(name)
        file_facts[f'{name}_x.npz'] = FileFacts(
            ('C', 'H'),
            energy_unit='Hartree',
            cutoff=4.5,
            options={'atom_order': [6, 1, 1]},
            needs_trust='a pickle of os.system',
            remarks=('energies are relative',),
        )
    paths = [tmp_path / 'a x.npz', tmp_path / 'b x.npz']
    node = ModelData.from_members(paths, backend='sgdml', info=ModelInfo(distance_unit='bohr'), trusted=True).store()
    output = invoke('models', 'show', node.pk).output
    shown = dict(re.split(r'  +', line, maxsplit=1) for line in output.splitlines() if '  ' in line)
    assert shown['Members'] == '2, a committee of separate files'
    assert shown['Energy unit'] == 'Hartree (from the file)'
    assert shown['Distance unit'] == 'bohr (as given)'
    assert shown['Cutoff'] == '2.3813 angstrom'  # 4.5 bohr
    assert shown['Option atom_order'] == 'C H H'
    assert shown['Trusted'] == 'yes, its files may run code: a pickle of os.system'
    assert shown["member-000/a_x.npz (was 'a x.npz')"] == node.files['member-000/a_x.npz']
    assert 'Note: energies are relative.' in output


def test_show_a_published_model(aiida_profile_clean, invoke) -> None:
    """What is not installed is shown from the registry, with the command that installs it."""
    result = invoke('models', 'show', 'ani-1ccx')
    assert result.exit_code == 0, result.output
    assert PRETRAINED['ANI-1ccx'].doi in result.output
    assert 'DLPNO-CCSD(T)/CBS' in result.output
    assert '`aiida-mlpotential models install ANI-1ccx`' in result.output


def test_show_an_installed_model(installed: ModelData, invoke) -> None:
    """A published model that is installed is shown with its node."""
    assert installed.uuid in invoke('models', 'show', 'ANI-1x').output


@pytest.mark.parametrize(
    ('identifier', 'message'),
    [('ANI-3x', 'known are ANI-2x, ANI-1ccx, ANI-1x'), ('999999', "there is no model '999999'")],
)
def test_show_what_is_not_there(aiida_profile_clean, invoke, identifier: str, message: str) -> None:
    """Neither a name nor a node: one sentence."""
    result = invoke('models', 'show', identifier)
    assert result.exit_code == 1
    assert message in result.output
    assert 'Traceback' not in result.output


def test_show_another_node(aiida_profile_clean, invoke) -> None:
    """A node of another type is named as what it is."""
    node = orm.Int(1).store()
    result = invoke('models', 'show', node.pk)
    assert result.exit_code == 1
    assert f'node {node.pk} is of type Int, not ModelData' in result.output


def test_units_of_an_earlier_version(emt: ModelData) -> None:
    """Where nobody recorded who said a unit, nothing is said about that."""
    clone = emt.clone()
    clone.base.attributes.delete('units_from')
    assert dict(describe_node(clone))['Energy unit'] == 'eV'


def test_show_one_of_two_with_a_name(aiida_profile_clean, invoke) -> None:
    """A name that several nodes have is not taken for an unknown one."""
    for sigma in (1.0, 2.0):
        ModelData.from_ase_calculator('ase.calculators.lj.LennardJones', {'sigma': sigma}, name='twin').store()
    result = invoke('models', 'show', 'twin')
    assert result.exit_code == 1
    assert "there are several nodes 'twin': give the PK" in result.output
