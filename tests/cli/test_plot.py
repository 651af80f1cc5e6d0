"""``plot``: a picture of a stored node, in the format that the suffix says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from aiida import orm

from aiida_mlpotential.data.results import ResultsData

REACTION = {
    'equation': 'a → b',
    'model_name': 'EMT',
    'n_members': 1,
    'temperatures': [298.15, 400.0],
    'gas_pressure': 1e5,
    'quantities': {
        name: {'symbol': name, 'value': [1.0, 2.0], 'std': None} for name in ('energy', 'enthalpy', 'gibbs_energy')
    },
}


@pytest.fixture
def reaction(aiida_profile_clean, tmp_path: Path, monkeypatch) -> orm.Dict:
    """Return a stored reaction, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return orm.Dict(REACTION).store()


def test_default_file(reaction, invoke, tmp_path: Path) -> None:
    result = invoke('plot', reaction.pk)
    assert result.exit_code == 0, result.output
    assert result.output.strip() == f'Wrote reaction-{reaction.pk}.png.'
    assert (tmp_path / f'reaction-{reaction.pk}.png').read_bytes().startswith(b'\x89PNG')


def test_format_and_temperature(reaction, invoke, tmp_path: Path) -> None:
    result = invoke('plot', reaction.uuid, '-o', tmp_path / 'x.svg', '--temperature', '400')
    assert result.exit_code == 0, result.output
    assert '<svg' in (tmp_path / 'x.svg').read_text()


def test_kinds_of_results(make_results, reaction, invoke, monkeypatch) -> None:
    """The first kind is drawn, and the others are named."""
    monkeypatch.setattr(ResultsData, '_validate', lambda self: True)
    arrays = {'energies': np.zeros(2), 'qbc': np.array([0.01, 0.02]), 'energy_std': np.ones(2)}
    results = make_results([1, 1], [0, 0], **arrays).store()
    result = invoke('plot', results.pk, '--threshold', '0.015')
    assert result.exit_code == 0, result.output
    assert result.output.strip() == f'Wrote spread-{results.pk}.png. There is also `--kind energies`.'


def test_files_are_not_replaced_unasked(reaction, invoke, tmp_path: Path) -> None:
    path = tmp_path / 'x.png'
    path.write_text('mine')
    result = invoke('plot', reaction.pk, '-o', path)
    assert result.exit_code == 2
    assert 'add --overwrite' in result.output
    assert path.read_text() == 'mine'
    assert invoke('plot', reaction.pk, '-o', path, '--overwrite').exit_code == 0
    assert path.read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['999999'], "there is no node '999999'"),
        (['{pk}', '-o', 'x.doc'], "'.doc' is none"),
        (['{pk}', '--temperature', '5'], 'not computed at 5 K'),
        (['{pk}', '--kind', 'spread'], "no picture 'spread' of node"),
        (['{other}'], 'name a reaction, a screening, or results of an ensemble'),
    ],
)
def test_mistakes(reaction, invoke, arguments, message) -> None:
    other = orm.Int(1).store()
    result = invoke('plot', *(word.format(pk=reaction.pk, other=other.pk) for word in arguments))
    assert result.exit_code in (1, 2)
    assert message in ' '.join(result.output.split())
    assert 'Traceback' not in result.output


def test_without_matplotlib(reaction, invoke, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, 'matplotlib.backend_bases', None)
    result = invoke('plot', reaction.pk)
    assert result.exit_code == 2
    assert "pip install 'aiida-mlpotential[plots]'" in ' '.join(result.output.split())
