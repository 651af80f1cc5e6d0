"""The numbers that people look at first."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.workflows.screening import summary as module
from aiida_mlpotential.workflows.screening.summary import summarize

SLICES = {'slices': 2, 'reused_slices': 1, 'missing_slices': []}


def ranking(**changes):
    """Return the arrays of a ranking of five structures of two formulas; the last one has no energy."""
    arrays = {
        'order': np.array([1, 0, 3, 2, 4]),
        'formula': np.array(['Cu', 'Cu', 'Cu2', 'Cu2', 'Cu']),
        'relative_energy': np.array([[0.5, 0.0, 0.2, 0.0, np.nan]]),
        'uncertainty': np.array([0.1, 0.3, 0.2, 0.3, np.nan]),
        'flagged': np.array([False, True, False, True, False]),
    }
    return {**arrays, **changes}


def test_the_lowest_structure_of_each_formula_is_named():
    found = summarize(ranking(), 0.25, SLICES, {})
    assert found['n_structures'] == 5
    assert found['lowest'] == [{'index': 1, 'formula': 'Cu'}, {'index': 3, 'formula': 'Cu2'}]


def test_formulas_without_an_energy_have_no_lowest_structure():
    energies = np.array([[0.5, 0.0, np.nan, np.nan, np.nan]])
    found = summarize(ranking(order=np.array([1, 0, 2, 3, 4]), relative_energy=energies), None, SLICES, {})
    assert found['lowest'] == [{'index': 1, 'formula': 'Cu'}]
    nothing = summarize(ranking(relative_energy=np.full((1, 5), np.nan)), None, SLICES, {})
    assert nothing['lowest'] == []


def test_the_energies_of_the_first_model_decide():
    energies = np.array([[0.5, 0.0, 0.2, 0.0, np.nan], [0.0, 0.5, 0.0, 0.2, 0.0]])
    assert [item['index'] for item in summarize(ranking(relative_energy=energies), None, SLICES, {})['lowest']] == [
        1,
        3,
    ]


def test_the_most_uncertain_ones_come_first_and_equal_ones_by_number():
    found = summarize(ranking(), 0.25, SLICES, {})
    assert [item['index'] for item in found['most_uncertain']] == [1, 3, 2, 0]
    assert found['most_uncertain'][0] == {'index': 1, 'qbc': 0.3}
    assert (found['max_qbc'], found['n_flagged']) == (0.25, 2)


def test_nothing_is_uncertain_where_no_spread_is_known():
    found = summarize(ranking(uncertainty=np.full(5, np.nan), flagged=np.zeros(5, bool)), None, SLICES, {})
    assert found['most_uncertain'] == []
    assert (found['max_qbc'], found['n_flagged']) == (None, 0)


def test_only_so_many_are_named(monkeypatch):
    monkeypatch.setattr(module, 'MAX_NAMED', 1)
    found = summarize(ranking(), 0.25, SLICES, {})
    assert (len(found['lowest']), len(found['most_uncertain'])) == (1, 1)


def test_slices_are_taken_over_and_not_shared():
    found = summarize(ranking(), None, SLICES, {})
    assert found['slices'] == SLICES
    assert found['slices'] is not SLICES


def test_models_are_counted_apart(copper, make_results):
    status = [FrameStatus.OK] * 4 + [FrameStatus.ATOMS_TOO_CLOSE, FrameStatus.PENDING]
    members = np.array([[-1.0, -2.0, -3.0, -4.0, 0, 0], [-1.0, -2.0, -3.2, -4.0, 0, 0]])
    nodes = {'b': make_results(copper), 'a': make_results(copper, members=members, status=status)}
    models = summarize(ranking(), None, SLICES, nodes)['models']
    assert list(models) == ['a', 'b']
    first = models['a']
    assert (first['n_frames'], first['n_ok'], first['n_failed'], first['n_pending']) == (6, 4, 1, 1)
    assert first['status_counts'] == {'OK': 4, 'ATOMS_TOO_CLOSE': 1, 'PENDING': 1}
    assert first['energy_min'] == -4.0
    assert first['energy_std_max'] == pytest.approx(0.2 / np.sqrt(2))
    assert first['failures'] == {'4': 'too close'}
    assert (first['model_name'], first['model_sha256']) == ('ANI-x', 'ab' * 32)
    assert 'qbc_max' not in models['b'], 'a single model has no spread'
