"""Parts become the whole, with the provenance of each."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType

from aiida_mlpotential.data.merged import MergedResultsData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.workflows.screening.merging import merge_results, merge_structures, part_name

SLICES = [[0, 3], [3, 6]]


def inputs_of(node):
    return node.creator.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()


def moved(structures, start, stop, distance=1.0):
    """Return a part of a set with every atom moved, and a cell that is twice as large."""
    frames = structures.get_frames().select(range(start, stop))
    positions, cells = frames.positions + distance, 2 * frames.cells
    return StructureSetData.from_frames(dataclasses.replace(frames, positions=positions, cells=cells)).store()


def test_names_of_parts_sort_like_the_structures():
    names = [part_name(start) for start in (0, 5, 40, 300, 1_000_000)]
    assert names == sorted(names)
    assert len(set(names)) == 5


def test_merged_results_come_from_set_and_parts(copper, make_results):
    parts = {
        part_name(start): make_results(copper, start, stop, members=[np.arange(start, stop, dtype=float)]).store()
        for start, stop in SLICES
    }
    node = merge_results(copper, orm.List(SLICES), **parts)
    assert isinstance(node, MergedResultsData)
    np.testing.assert_array_equal(node.energies, np.arange(6))
    assert {name: item.pk for name, item in inputs_of(node).items() if name != 'slices'} == {
        'structures': copper.pk,
        **{name: item.pk for name, item in parts.items()},
    }


def test_results_of_a_missing_part_are_pending(copper, make_results):
    node = merge_results(copper, orm.List(SLICES), **{part_name(3): make_results(copper, 3, 6).store()})
    assert np.isnan(node.energies).tolist() == [True] * 3 + [False] * 3
    assert (node.n_ok, node.n_pending) == (3, 3)


def test_optimized_structures_stand_where_they_were(copper):
    """The second part is missing: its structures stay as they are. Names stay, too."""
    node = merge_structures(copper, orm.List(SLICES), **{part_name(0): moved(copper, 0, 3)})
    before, after = copper.get_frames(), node.get_frames()
    atoms = before.offsets[3]
    np.testing.assert_array_equal(after.positions[:atoms], before.positions[:atoms] + 1.0)
    np.testing.assert_array_equal(after.positions[atoms:], before.positions[atoms:])
    np.testing.assert_array_equal(after.cells, before.cells * np.array([2, 2, 2, 1, 1, 1])[:, None, None])
    assert after.labels == before.labels
    assert set(inputs_of(node)) == {'structures', 'slices', part_name(0)}


def test_the_set_itself_is_not_changed(copper):
    before = copper.get_frames().positions.copy()
    merge_structures(copper, orm.List(SLICES), **{part_name(0): moved(copper, 0, 3)})
    np.testing.assert_array_equal(copper.get_frames().positions, before)


@pytest.mark.parametrize('borders', [(0, 2), (1, 4)])
def test_structures_of_another_part_are_refused(copper, borders):
    """One structure too few, and sizes 2, 1, 2 instead of 1, 2, 1: an atom too many."""
    with pytest.raises(ValueError, match='the structures of 0 to 2 have other atoms than those of the set'):
        merge_structures(copper, orm.List(SLICES), **{part_name(0): moved(copper, *borders)})


def test_structures_of_other_elements_are_refused(copper):
    frames = copper.get_frames().select(range(3))
    silver = StructureSetData.from_frames(dataclasses.replace(frames, numbers=np.full_like(frames.numbers, 47))).store()
    with pytest.raises(ValueError, match='have other atoms'):
        merge_structures(copper, orm.List(SLICES), **{part_name(0): silver})
