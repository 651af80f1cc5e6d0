"""Which structures of a set a job takes."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from ase import Atoms

from aiida_mlpotential.data.selection import (
    Selection,
    SelectionError,
    frames_of_inputs,
    select_frames,
    validate_selection,
)
from aiida_mlpotential.data.structures import StructureSetData


@pytest.fixture
def five(aiida_profile):
    """Return five chains of 1 to 5 copper atoms, by name."""
    chains = [Atoms(f'Cu{n}', positions=np.arange(n)[:, None] * [2.5, 0, 0]) for n in range(1, 6)]
    return StructureSetData.from_ase(chains, labels=list('abcde'))


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        ({'start': 0, 'stop': 5}, [0, 1, 2, 3, 4]),
        ({'start': 2, 'stop': 3}, [2]),
        ({'indices': [4, 0]}, [4, 0]),
    ],
)
def test_indices_and_dictionary(content, expected) -> None:
    selection = Selection.from_dict(content)
    assert selection.indices(5).tolist() == expected
    assert len(selection) == len(expected)
    assert selection.to_dict() == content


@pytest.mark.parametrize(
    'content',
    [
        {},
        {'start': 0},
        {'start': -1, 'stop': 3},
        {'start': 0, 'stop': 2.0},
        {'start': False, 'stop': True},
        {'indices': []},
        {'indices': '12'},
        {'indices': [1, 'x']},
        {'start': 0, 'stop': 2, 'indices': [1]},
    ],
)
def test_what_is_no_selection_is_told_with_what_would_be(content) -> None:
    message = validate_selection(content)
    assert message.startswith('selection: ')
    assert "give {'start': 0, 'stop': 1000} or {'indices': [3, 17]}." in message


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        ({'start': 3, 'stop': 3}, 'start 3 is not below stop 3.'),
        ({'indices': [1, 2, 1]}, 'the same structure is named twice in indices.'),
        ({'start': 3, 'stop': 6}, 'there is no structure 5: the set has 5, counted from 0.'),
        ({'indices': [5]}, 'there is no structure 5: the set has 5, counted from 0.'),
    ],
)
def test_selections_that_cannot_be(content, text) -> None:
    assert validate_selection(content, 5) == f'selection: {text}'


def test_a_right_selection_has_no_complaint() -> None:
    assert validate_selection({'start': 0, 'stop': 5}, 5) is None


def test_the_selected_structures_in_the_order_asked_for(five) -> None:
    frames = select_frames(five, {'indices': [3, 1]})
    assert frames.labels == ('d', 'b')
    assert frames.counts.tolist() == [4, 2]
    assert select_frames(five).labels == ('a', 'b', 'c', 'd', 'e')


def test_the_frames_of_a_jobs_inputs(five) -> None:
    assert len(frames_of_inputs({'structures': five})) == 5
    chosen = frames_of_inputs({'structures': five, 'selection': orm.Dict({'start': 1, 'stop': 3})})
    assert chosen.labels == ('b', 'c')
    structure = orm.StructureData(ase=Atoms('Cu', cell=[9, 9, 9]))
    assert frames_of_inputs({'structure': structure, 'structures': None}).counts.tolist() == [1]
    with pytest.raises(SelectionError, match='no structure 8'):
        frames_of_inputs({'structures': five, 'selection': orm.Dict({'indices': [8]})})
