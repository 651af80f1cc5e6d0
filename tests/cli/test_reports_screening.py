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
    rows = _rows(format_ranking(_ranking(3), _structures(3), ['a']))
    assert rows[0] == ['#', 'formula', 'ΔE', '(meV)', 'status']
    assert rows[2:] == [['2', 'Cu', '0.0', 'OK'], ['1', 'Cu', '1.0', 'OK'], ['0', 'Cu', '2.0', 'OK']]


def test_columns_of_each_model() -> None:
    """Models stand as they were asked for, not as they are sorted, and each has its own numbers."""
    text = format_ranking(_ranking(2), _structures(2, ('x', 'y')), ['b', 'a'])
    assert text.splitlines()[0].index('b: ΔE') < text.splitlines()[0].index('a: ΔE')
    assert _rows(text)[2:] == [
        ['1', 'y', 'Cu', '10.0', '2.10', '0.0', 'OK'],
        ['0', 'x', 'Cu', '0.0', '2.10', '1.0', 'OK'],
    ]


def test_flags_and_failures() -> None:
    """A flagged structure has a star; one that failed has its status and no numbers."""
    changes = {
        'flagged': np.array([True, False]),
        'status': np.array([[0, 1], [0, 1]], dtype='i1'),
        'relative_energy': np.array([[0.0, np.nan], [0.0, np.nan]]),
        'order': np.array([0, 1]),
    }
    rows = _rows(format_ranking(_ranking(2, **changes), _structures(2), ['a']))
    assert rows[2] == ['0', 'Cu', '0.0', 'OK', '*']
    assert rows[3][:2] == ['1', 'Cu']
    assert rows[3][-1] not in ('OK', '*')
    assert len(rows[3]) == 3


def test_many_structures() -> None:
    """Only the first are shown, and how many more there are."""
    text = format_ranking(_ranking(23), _structures(23), ['a'])
    assert len(text.splitlines()) == 2 + 20 + 1
    assert text.endswith('... and 3 more')
