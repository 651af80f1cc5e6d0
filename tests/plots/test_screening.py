"""Histogram of the spread, and the energies within each formula against it."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.plots.figures import PlotError
from aiida_mlpotential.plots.screening import energy_figure, relative_energies, spread_figure
from aiida_mlpotential.worker.units import KCAL_PER_MOL


def _legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_histogram_counts_what_was_evaluated(results):
    figure = spread_figure({'': results}, threshold=0.01)
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 5
    assert _legend(figure) == ['ANI-1ccx (5, 2 above 10)', '10 meV']
    assert all(tick == int(tick) for tick in figure.axes[0].get_yticks()), 'structures are counted'


def test_histogram_of_several_models(results):
    other = results.clone()
    other.base.attributes.set('model_name', 'ANI-2x')
    figure = spread_figure({'ANI_1ccx': results, 'ANI_2x': other}, threshold=0.005)
    assert _legend(figure) == ['ANI-1ccx (5, 3 above 5)', 'ANI-2x (5, 3 above 5)', '5 meV']
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert sum(heights) == 10


def test_a_wide_range_is_logarithmic(results):
    assert spread_figure({'': results}).axes[0].get_xscale() == 'linear'
    results.set_array('qbc', np.array([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, np.nan]))
    figure = spread_figure({'': results})
    assert figure.axes[0].get_xscale() == 'log'
    figure.draw_without_rendering()
    ticks = {text.get_text() for text in figure.axes[0].get_xticklabels()}
    assert {'0.1', '1', '10', '100'} <= ticks, 'numbers, and not powers of ten'


def test_models_that_share_a_name_are_told_apart(results):
    assert _legend(spread_figure({'one': results, 'two': results})) == ['one (5)', 'two (5)']


def test_energies_are_relative_within_a_formula(results, structures):
    figure = energy_figure(results, structures, threshold=0.01)
    points = {item.get_label(): item.get_offsets() for item in figure.axes[0].collections}
    assert set(points) == {'C2H6O (4)', 'H2O (1)'}
    expected = np.array([0.5, 0.0, 1.5, 0.25]) / KCAL_PER_MOL
    np.testing.assert_allclose(points['C2H6O (4)'][:, 1], expected)
    np.testing.assert_allclose(points['C2H6O (4)'][:, 0], [2.0, 4.0, 8.0, 12.0])
    np.testing.assert_allclose(points['H2O (1)'], [[20.0, 0.0]])
    assert '10 meV' in _legend(figure)
    assert '2 above 10' in figure.axes[0].get_xlabel()


def test_energies_of_several_models(results, structures):
    """One beside the other, in the same colours, also where a model fails with what is frequent."""
    other = results.clone()
    other.base.attributes.set('model_name', 'ANI-2x')
    other.set_array('status', np.array([11, 11, 0, 11, 11, 0], 'i1'))
    figure = energy_figure({'a': results, 'b': other}, structures)
    assert [axes.get_title() for axes in figure.axes] == ['ANI-1ccx', 'ANI-2x']
    colours = [[item.get_facecolor().tolist() for item in axes.collections] for axes in figure.axes]
    assert colours[0] == colours[1]
    assert 'kcal/mol' in figure.axes[0].get_ylabel()


def test_formulas_without_a_colour_cover_nothing(results, structures, monkeypatch):
    monkeypatch.setattr('aiida_mlpotential.plots.screening.MAX_FORMULAS', 1)
    (axes,) = energy_figure(results, structures).axes
    heights = {item.get_label(): item.get_zorder() for item in axes.collections}
    assert heights['others (1)'] < heights['C2H6O (4)']


def test_relative_energies_know_no_failed_ones():
    found = relative_energies(np.array([1.0, np.nan, 3.0, 7.0]), np.array(['a', 'a', 'a', 'b']))
    np.testing.assert_allclose(found, [0.0, np.nan, 2.0, 0.0])


@pytest.mark.usefixtures('aiida_profile')
def test_one_member_has_no_spread():
    node = ResultsData()
    node.set_array('energies', np.zeros(1))
    node.base.attributes.set('model_name', 'EMT')
    with pytest.raises(PlotError, match='EMT has one member'):
        spread_figure({'': node})


def test_nothing_was_evaluated(results, structures):
    results.set_array('status', np.full(6, 11, 'i1'))
    for make in (lambda: spread_figure({'': results}), lambda: energy_figure(results, structures)):
        with pytest.raises(PlotError, match='no structure that was evaluated'):
            make()
