"""The table of a ranking: formula by formula, lowest first, with the columns that have something."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from ase.build import bulk

from aiida_mlpotential.cli.reports_screening import format_ranking
from aiida_mlpotential.data.structures import StructureSetData

pytestmark = pytest.mark.usefixtures('aiida_profile')


def _ranking(n: int, **changes: np.ndarray) -> orm.ArrayData:
    """Return the ranking of n structures by two models, the last of which is the lowest."""
    arrays = {
        'order': np.arange(n)[::-1],
        'formula': np.array(['Cu'] * n),
        'relative_energy': np.array([np.arange(n)[::-1] / 1000, np.arange(n) / 100]),
        'relative_energy_std': np.full((2, n), np.nan),
        'qbc': np.array([np.full(n, np.nan), np.full(n, 0.0021)]),
        'status': np.zeros((2, n), dtype='i1'),
        'flagged': np.zeros(n, bool),
        **changes,
    }
    node = orm.ArrayData()
    for name, values in arrays.items():
        node.set_array(name, values)
    node.base.attributes.set('models', ['a', 'b'])
    return node


def _rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def _structures(n: int, labels: tuple[str, ...] = ()) -> StructureSetData:
    return StructureSetData.from_ase([bulk('Cu', a=3.5 + index / 100) for index in range(n)], labels=labels)


def test_lowest_first() -> None:
    """The order is that of the ranking; energies are in meV; a model without members has no spread."""
    rows = _rows(format_ranking(_ranking(3), _structures(3), {'a': 'A-1'}))
    assert rows[0] == ['#', 'formula', 'ΔE', '(meV)', 'status']
    assert rows[2:] == [['2', 'Cu', '0.0', 'OK'], ['1', 'Cu', '1.0', 'OK'], ['0', 'Cu', '2.0', 'OK']]


def test_columns_of_each_model() -> None:
    """Models stand as they were asked for, under their names, with their own numbers; the first says what is lowest."""
    text = format_ranking(_ranking(2), _structures(2, ('x', 'y')), {'b': 'B-2', 'a': 'A-1'})
    rows = _rows(text)
    assert rows[0] == ['#', 'label', 'formula', 'B-2', 'B-2', 'A-1', 'status']
    assert rows[1] == ['ΔE', '(meV)', 'std/√atoms', '(meV)', 'ΔE', '(meV)']
    assert rows[3:] == [
        ['0', 'x', 'Cu', '0.0', '2.10', '1.0', 'OK'],
        ['1', 'y', 'Cu', '10.0', '2.10', '0.0', 'OK'],
    ]


def test_formulas_stay_together() -> None:
    """The order of the formulas is that of the ranking also where another model says what is lowest."""
    energies = np.array([[0.0, 0.001, 0.0, 0.002], [0.01, 0.0, 0.03, 0.0]])
    changes = {
        'order': np.array([2, 3, 0, 1]),
        'formula': np.array(['B', 'B', 'Cu', 'Cu']),
        'relative_energy': energies,
    }
    ranking = _ranking(4, **changes)
    for models, expected in (({'a': 'A'}, ['2', '3', '0', '1']), ({'b': 'B'}, ['3', '2', '1', '0'])):
        assert [row[0] for row in _rows(format_ranking(ranking, _structures(4), models))[2:]] == expected


def test_every_formula_is_shown() -> None:
    """Where there are too many structures for the table, it has as many of each formula, the lowest ones."""
    formulas = np.array(['Au'] * 20 + ['Cu'] * 5)
    ranking = _ranking(25, formula=formulas, order=np.arange(25), relative_energy=np.arange(50.0).reshape(2, 25))
    rows = _rows(format_ranking(ranking, _structures(25), {'a': 'A'}))
    assert [row[0] for row in rows[2:-1]] == [*map(str, range(10)), *map(str, range(20, 25))]
    assert rows[-1] == ['...', 'and', '10', 'more']


def test_flags_and_failures() -> None:
    """A flagged structure has a star; one that failed has its status and no numbers."""
    changes = {
        'flagged': np.array([True, False]),
        'status': np.array([[0, 1], [0, 1]], dtype='i1'),
        'relative_energy': np.array([[0.0, np.nan], [0.0, np.nan]]),
        'order': np.array([0, 1]),
    }
    rows = _rows(format_ranking(_ranking(2, **changes), _structures(2), {'a': 'A-1'}))
    assert rows[2] == ['0', 'Cu', '0.0', 'OK', '*']
    assert rows[3][:2] == ['1', 'Cu']
    assert rows[3][-1] not in ('OK', '*')
    assert len(rows[3]) == 3


def test_many_structures() -> None:
    """Only the first are shown, and how many more there are."""
    text = format_ranking(_ranking(23), _structures(23), {'a': 'A-1'})
    assert len(text.splitlines()) == 2 + 20 + 1
    assert text.endswith('... and 3 more')
