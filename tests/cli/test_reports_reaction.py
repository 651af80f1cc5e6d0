"""The tables of a reaction: numbers of the node in kcal/mol, with their spread."""

from __future__ import annotations

import click
import pytest

from aiida_mlpotential.cli.reports_reaction import format_reaction
from aiida_mlpotential.data.reactions import SYMBOLS
from aiida_mlpotential.worker.units import HARTREE, KCAL_PER_MOL


def _reaction(std):
    def item(index, symbol):
        spread = None if std is None else [std * KCAL_PER_MOL] * 2
        return {
            'symbol': symbol,
            'value': [index * KCAL_PER_MOL, -index * KCAL_PER_MOL],
            'std': spread,
            'std_if_independent': None if std is None else [2 * std * KCAL_PER_MOL] * 2,
        }

    species = {
        'energy': -HARTREE,
        'zero_point_energy': 2 * KCAL_PER_MOL,
        'gibbs_energies': [-2 * HARTREE, 0.0],
        'lowest_frequency': 12.34,
        'point_group': 'C2v',
        'symmetry_number': 2,
        'spin_multiplicity': 3,
    }
    return {
        'equation': '2 a → b',
        'stoichiometry': {'a': -2.0, 'b': 1.0},
        'model_name': 'ANI-1ccx',
        'n_members': 8,
        'temperatures': [298.15, 400.0],
        'gas_pressure': 1e5,
        'quantities': {name: item(index, symbol) for index, (name, symbol) in enumerate(SYMBOLS.items(), 1)},
        'species': {'a': species, 'b': {**species, 'lowest_frequency': None, 'point_group': None}},
    }


def _rows(text):
    return {line.split()[0]: line.split() for line in click.unstyle(text).splitlines() if line.strip()}


def test_with_spread():
    text = format_reaction(_reaction(1.5))
    rows = _rows(text)
    assert rows['298.15'][1:4] == ['+1.00', '±', '1.50']
    assert rows['400'][1:4] == ['-1.00', '±', '1.50']
    assert rows['-2'] == ['-2', 'a', '-1.00000000', '2.00', '-2.00000000', 'C2v', '2', '3', '12.3']
    assert rows['+1'] == ['+1', 'b', '-1.00000000', '2.00', '-2.00000000', '2', '3']
    plain = click.unstyle(text)
    assert 'Reaction Gibbs energy at 298.15 K and 1 bar: +5.00 ± 1.50 kcal/mol' in plain
    assert 'combined as if independent, give 3.00 kcal/mol' in plain
    assert '2 a → b with ANI-1ccx:' in plain


def test_without_spread():
    text = click.unstyle(format_reaction(_reaction(None)))
    assert '±' not in text
    assert 'Reaction Gibbs energy at 298.15 K and 1 bar: +5.00 kcal/mol' in text


@pytest.mark.parametrize('symbol', SYMBOLS.values())
def test_every_quantity_has_a_column(symbol):
    assert symbol in format_reaction(_reaction(None))
