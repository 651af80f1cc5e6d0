"""Results and structures of slices become those of the whole set, with the provenance of each."""

from __future__ import annotations

import dataclasses

import numpy as np
from aiida import orm
from aiida.engine import calcfunction

from aiida_mlpotential.data.merged import MergedResultsData, Part
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.structures import StructureSetData


def part_name(start: int) -> str:
    """Return under which name the part that begins with a structure goes into the functions below."""
    return f'part_{start:09d}'


@calcfunction
def merge_results(structures: StructureSetData, slices: orm.List, **parts: ResultsData) -> MergedResultsData:
    """Return the results of slices as those of the whole set.

    :param structures: the whole set
    :param slices: first structure and the one after the last of each slice, in order
    :param parts: the results there are, by :func:`part_name`
    """
    found = [Part(start, stop, parts.get(part_name(start))) for start, stop in slices.get_list()]
    return MergedResultsData.from_parts(structures, found)


@calcfunction
def merge_structures(structures: StructureSetData, slices: orm.List, **parts: StructureSetData) -> StructureSetData:
    """Return the optimized structures of slices as one set; those of slices without any stay as they are.

    :param structures: the whole set, as it was before
    :param slices: first structure and the one after the last of each slice, in order
    :param parts: the optimized structures there are, by :func:`part_name`
    :raises ValueError: if a part does not have the atoms of the structures that it stands for
    """
    frames = structures.get_frames()
    positions, cells = np.array(frames.positions), np.array(frames.cells)
    for start, stop in slices.get_list():
        if part_name(start) in parts:
            part = parts[part_name(start)].get_frames()
            atoms = slice(frames.offsets[start], frames.offsets[stop])
            if len(part) != stop - start or not np.array_equal(part.numbers, frames.numbers[atoms]):
                raise ValueError(f'the structures of {start} to {stop - 1} have other atoms than those of the set')
            positions[atoms] = part.positions
            cells[start:stop] = part.cells
    return StructureSetData.from_frames(dataclasses.replace(frames, positions=positions, cells=cells))
