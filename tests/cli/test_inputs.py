"""The inputs of what is launched: labels of models, files as one set, and messages without AiiDA's path of ports."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import ase.io
import click
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_mlpotential.cli.inputs import first_line, label_models, read_set, scheduler_options


def test_first_line() -> None:
    """AiiDA's path through the ports is left out; what it found wrong is not."""
    prefix = "Error occurred validating port 'inputs.parameters': "
    assert first_line(ValueError(f'{prefix}parameters: unknown key\nmore')) == 'parameters: unknown key'
    assert first_line(ValueError('plain')) == 'plain'
    assert first_line(ValueError('for the hessian set precision to double')) == 'for the hessian add --precision double'
    assert first_line(ValueError()) == 'ValueError'


def _models(*names: str) -> list[SimpleNamespace]:
    return [SimpleNamespace(name=name, pk=10 + number, uuid=str(number)) for number, name in enumerate(names)]


def test_labels_of_models() -> None:
    """Links have no dashes, no two underscores in a row, and begin with a letter; equal names get the PK."""
    models = _models('ANI-2x', 'a--b__c', '2nd', 'ANI 2x', '-')
    assert list(label_models(models)) == ['ANI_2x', 'a_b_c', 'model_2nd', 'ANI_2x_13', 'model']
    assert list(label_models(models).values()) == models


def test_a_model_twice() -> None:
    """The same model twice is a mistake."""
    (model,) = _models('ANI-2x')
    with pytest.raises(click.BadParameter, match='ANI-2x is there twice: leave one out'):
        label_models([model, model])


def test_scheduler_options() -> None:
    """Only what was given, under the names of AiiDA."""
    arguments = {'max_wallclock_seconds': 60, 'queue_name': None, 'account': 'me', 'daemon': True}
    assert scheduler_options(arguments) == {'max_wallclock_seconds': 60, 'account': 'me'}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Return two files, of molecules and of crystals."""
    paths = [tmp_path / 'molecules.xyz', tmp_path / 'crystals.xyz']
    ase.io.write(paths[0], [molecule('H2O'), molecule('CO')], format='extxyz')
    ase.io.write(paths[1], [bulk('Cu'), bulk('Ni', cubic=True)], format='extxyz')
    return paths


def _same(one: Atoms, other: Atoms) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ('numbers', 'positions', 'pbc'))


@pytest.mark.usefixtures('aiida_profile_clean')
def test_files_become_one_set(files: list[Path]) -> None:
    """Structures stand in the order of the files, with positions, cells and elements as they were."""
    structures = read_set(files, ':', None)
    expected = [atoms for path in files for atoms in ase.io.read(path, index=':')]
    assert len(structures) == 4
    for index, atoms in enumerate(expected):
        assert _same(structures.get_ase(index), atoms)
        np.testing.assert_array_equal(structures.get_ase(index).cell.array, atoms.cell.array)


@pytest.mark.usefixtures('aiida_profile_clean')
def test_a_set_that_is_known_is_taken(files: list[Path]) -> None:
    """The same files are the node that is stored already; in another order they are another set."""
    stored = read_set(files, ':', None).store()
    assert read_set(files, ':', None).uuid == stored.uuid
    assert not read_set(files[::-1], ':', None).is_stored
    assert not read_set(files[:1], ':', None).is_stored
