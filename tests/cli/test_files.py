"""Files in and out: what is refused before anything runs, and in which words."""

from __future__ import annotations

from pathlib import Path

import ase.io
import click
import numpy as np
import pytest
from ase.build import molecule

from aiida_mlpotential.cli.files import check_output, read_structures, single_structure

pytestmark = pytest.mark.usefixtures('aiida_profile')


@pytest.fixture
def water(tmp_path: Path) -> Path:
    """Return a file with one structure."""
    path = tmp_path / 'water.xyz'
    ase.io.write(path, molecule('H2O'))
    return path


@pytest.mark.parametrize(
    ('index', 'file_format', 'message'),
    [
        ('1', None, "'1' is out of range: 'water.xyz' holds 1 structure, counted from 0."),
        ('-2', None, "'-2' is out of range"),
        ('5:', None, "'5:' is out of range"),
        ('x', None, "'x' is no index: write `0`, `-1`, `10:20` or `::10`."),
        ('::0', None, "'::0' is no index"),
        ('', None, "'' is no index"),
        (':', 'extxzy', "ASE has no format 'extxzy'; did you mean 'extxyz'?"),
        (':', '', 'ase info --formats'),
        (':', 'cif', "'water.xyz' cannot be read"),
    ],
)
def test_what_cannot_be_read(water: Path, index: str, file_format: str | None, message: str) -> None:
    """An index or a format that is wrong is said as such; what ASE cannot read names the file."""
    with pytest.raises(click.ClickException) as caught:
        read_structures(water, index, file_format)
    assert message in caught.value.message


def test_unknown_symbol(water: Path) -> None:
    """A symbol of no element is named."""
    water.write_text('1\n\nXx 0 0 0\n')
    with pytest.raises(click.ClickException, match=r"'water.xyz' has the unknown chemical symbol 'Xx'"):
        read_structures(water, ':', None)


def test_empty_file(tmp_path: Path) -> None:
    """The file is named, and its emptiness, whatever ASE would say of it; a format does not help."""
    (tmp_path / 'empty.xyz').touch()
    for file_format in (None, 'cif'):
        with pytest.raises(click.ClickException) as caught:
            read_structures(tmp_path / 'empty.xyz', ':', file_format)
        assert caught.value.message == "'empty.xyz' is empty: name a file with at least one structure."


def test_format_is_an_option(tmp_path: Path) -> None:
    """The remedy for an unknown format is the option of the command line."""
    path = tmp_path / 'data.nothing'
    path.write_text('nonsense')
    with pytest.raises(click.ClickException, match='name its ASE format with --format'):
        read_structures(path, ':', None)


def test_single_structure(water: Path) -> None:
    """One structure is a StructureData; where it cannot be one, its file is named."""
    assert single_structure(read_structures(water, ':', None), water).get_formula() == 'H2O'
    atoms = molecule('H2O')
    atoms.positions[0, 0] = np.nan
    ase.io.write(water, atoms)
    message = r"the structure of 'water.xyz' has coordinates that are not finite, .*: correct the file\.$"
    with pytest.raises(click.ClickException, match=message):
        single_structure(read_structures(water, ':', None), water)


def test_outputs_that_are_refused(water: Path, tmp_path: Path) -> None:
    """No name, no directory, the input itself and, without being asked to, what exists already."""
    other = tmp_path / 'other.xyz'
    other.touch()
    link = tmp_path / 'link.xyz'
    link.symlink_to(water)
    cases = [
        (Path(), True, 'it names no file'),
        (tmp_path / 'no' / 'x.xyz', True, 'does not exist'),
        (tmp_path, True, 'is a directory'),
        (water, True, 'is the file of the structures'),
        (link, True, 'is the file of the structures'),
        (other, False, 'replace it with --overwrite'),
    ]
    for output, overwrite, message in cases:
        with pytest.raises(click.BadParameter, match=message):
            check_output(output, water, overwrite)
    check_output(other, water, overwrite=True)
    check_output(other, None, overwrite=True)
    check_output(tmp_path / 'new.xyz', water, overwrite=False)
    assert list(tmp_path.glob('new*')) == []


def test_output_without_permission(water: Path, tmp_path: Path, monkeypatch) -> None:
    """A directory that may not be written to is noticed before anything is computed."""
    monkeypatch.setattr('os.access', lambda path, mode: False)
    with pytest.raises(click.BadParameter, match='there is no permission'):
        check_output(tmp_path / 'new.xyz', water, overwrite=False)
