"""The diagram of a reaction shows the numbers of its node, with their spread as error bars."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.plots.figures import PlotError
from aiida_mlpotential.plots.reaction import LEVELS, MINUS, reaction_figure
from aiida_mlpotential.worker.units import KCAL_PER_MOL

VALUES = {'energy': 4.9, 'enthalpy': -5.2, 'gibbs_energy': 6.0}


def _reaction(temperatures=(298.15,), std: float | None = 2.34):
    def item(symbol, value):
        values = [(value + number) * KCAL_PER_MOL for number in range(len(temperatures))]
        return {'symbol': symbol, 'value': values, 'std': None if std is None else [std * KCAL_PER_MOL] * len(values)}

    symbols = {'energy': 'ΔE', 'enthalpy': 'ΔH', 'gibbs_energy': 'ΔG'}
    return {
        'equation': '2 a → b',
        'model_name': 'ANI-1ccx',
        'n_members': 1 if std is None else 8,
        'temperatures': list(temperatures),
        'gas_pressure': 100000,
        'quantities': {name: item(symbol, VALUES[name]) for name, symbol in symbols.items()},
    }


def _texts(axes):
    return ' '.join(text.get_text() for text in axes.texts)


def test_levels_and_error_bars():
    (axes,) = reaction_figure(_reaction()).axes
    heights = {round(float(line.get_ydata()[0]), 6) for line in axes.lines if line.get_linewidth() == 2.5}
    assert heights == {0.0, *VALUES.values()}
    bars = [container.lines[2][0].get_segments()[0] for container in axes.containers]
    np.testing.assert_allclose([bar[1, 1] - bar[0, 1] for bar in bars], 2 * 2.34)
    np.testing.assert_allclose([bar[:, 1].mean() for bar in bars], list(VALUES.values()))
    text = _texts(axes)
    assert 'ΔG\n+6.00\n± 2.34' in text
    assert f'ΔH\n{MINUS}5.20' in text
    assert '298.15 K, 1 bar' in axes.get_title()


def test_texts_stand_away_from_the_line_of_the_educts():
    """Above levels that are above it, below those below it, and behind the error bar."""
    (axes,) = reaction_figure(_reaction()).axes
    found = {text.get_text()[:2]: text for text in axes.texts}
    for name, symbol in (('enthalpy', 'ΔH'), ('gibbs_energy', 'ΔG')):
        above = VALUES[name] > 0
        assert found[symbol].get_verticalalignment() == ('bottom' if above else 'top')
        assert found[symbol].xy[1] == pytest.approx(VALUES[name] + (2.34 if above else -2.34))


def test_title_names_reaction_and_model():
    figure = reaction_figure(_reaction())
    assert figure.get_suptitle() == '2 a → b\nANI-1ccx, ± spread of 8 members'


def test_one_member_has_no_error_bars():
    figure = reaction_figure(_reaction(std=None))
    assert figure.axes[0].containers == []
    assert '±' not in _texts(figure.axes[0]) + figure.get_suptitle()


def test_several_temperatures():
    figure = reaction_figure(_reaction((400.0, 298.15, 350.0)), temperature=350.0)
    levels, lines = figure.axes
    assert 'ΔG\n+8.00' in _texts(levels)
    assert '350 K' in levels.get_title()
    curve = next(line for line in lines.lines if line.get_label() == 'ΔG')
    assert curve.get_xdata().tolist() == [298.15, 350.0, 400.0]
    np.testing.assert_allclose(curve.get_ydata(), [7.0, 8.0, 6.0])
    assert len(lines.collections) == len(LEVELS) - 1


def test_a_temperature_that_was_not_computed():
    with pytest.raises(PlotError, match=r'not computed at 300 K: choose one of 298\.15'):
        reaction_figure(_reaction(), temperature=300.0)
