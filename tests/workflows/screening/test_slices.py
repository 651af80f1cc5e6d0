"""Slices of a set, and how lanes share them."""

from __future__ import annotations

import pytest

from aiida_mlpotential.workflows.screening.slices import Slice, deal, take_apart


@pytest.mark.parametrize(('number', 'size'), [(1, 5), (5, 5), (6, 5), (10, 3), (20_000, 5000), (20_001, 5000)])
def test_slices_cover_the_set_and_are_of_equal_size(number, size):
    slices = take_apart(number, size)
    assert [index for start, stop in slices for index in range(start, stop)] == list(range(number))
    sizes = [stop - start for start, stop in slices]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_lanes_share_the_slices():
    slices = [Slice('a', start, start + 1) for start in range(7)]
    lanes = deal(slices, 3)
    assert sorted((item for lane in lanes for item in lane), key=lambda item: item.start) == slices
    assert [len(lane) for lane in lanes] == [3, 2, 2]


def test_there_are_no_empty_lanes():
    assert deal([Slice('a', 0, 1)], 4) == [[Slice('a', 0, 1)]]


def test_a_slice_survives_being_an_input():
    item = Slice('ani', 5, 9, parent=17)
    assert Slice(**item.to_dict()) == item
    assert item.name != Slice('ani', 6, 9).name
