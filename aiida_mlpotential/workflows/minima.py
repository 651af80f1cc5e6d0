"""From saddle points to minima: structures moved along their imaginary modes, and the minima put in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from aiida import orm
from aiida.engine import calcfunction

from aiida_mlpotential.data.normal_modes import NormalModesData
from aiida_mlpotential.data.replacing import replace_results
from aiida_mlpotential.data.structures import StructureSetData, frames_of_structures
from aiida_mlpotential.parsers.geometry_optimization import moved
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import FloatArray, Frames

#: Parameters that may be a list with one number for each structure.
_FOR_EACH = ('symmetry_number', 'spin_multiplicity')


def saddle_points(results: NormalModesData) -> list[int]:
    """Return which structures should have been minima, and are stationary points with imaginary modes."""
    wrong = results.status == FrameStatus.WRONG_CHARACTER
    stationary = results.get_array('stationary') == 1
    return [int(index) for index in np.flatnonzero(wrong & stationary & (results.get_array('n_imaginary') > 0))]


def displacement(results: NormalModesData, index: int, amplitude: float) -> FloatArray:
    """Return the way along all imaginary modes of a structure together, ``(N, 3)``, angstrom.

    A mode has no sign: each is turned so that its largest component is positive, by which repeated runs agree.

    :param amplitude: by how much the atom moves that moves most, angstrom
    """
    modes, wavenumbers = results.modes(index), results.frequencies(index)
    if modes is None or wavenumbers is None or not (wavenumbers < 0).any():
        raise ValueError(f'structure {index} has no imaginary mode along which it could be moved')
    imaginary = modes[wavenumbers < 0].reshape(int((wavenumbers < 0).sum()), -1)
    largest = np.argmax(np.abs(imaginary), axis=1)
    signs = np.sign(np.take_along_axis(imaginary, largest[:, None], axis=1))
    way = (signs * imaginary).sum(axis=0).reshape(-1, 3)
    return np.asarray(amplitude * way / np.linalg.norm(way, axis=1).max())


@calcfunction
def displace_structure(
    structure: orm.StructureData, results: NormalModesData, amplitude: orm.Float
) -> orm.StructureData:
    """Move a structure along its imaginary modes.

    :param structure: at a saddle point
    :param results: its normal modes
    :param amplitude: by how much the atom moves that moves most, angstrom
    """
    frames = frames_of_structures([structure])
    way = displacement(results, 0, amplitude.value)
    return moved(structure, dataclasses.replace(frames, positions=frames.positions + way))


@calcfunction
def displace_structures(
    structures: StructureSetData, results: NormalModesData, indices: orm.List, amplitude: orm.Float
) -> StructureSetData:
    """Take the structures at saddle points out of a set, moved along their imaginary modes.

    :param structures: the whole set
    :param results: the normal modes of all of it
    :param indices: which structures to take
    :param amplitude: by how much the atom moves that moves most, angstrom
    """
    chosen: list[int] = indices.get_list()
    part = structures.get_frames().select(np.array(chosen))
    ways = np.concatenate([displacement(results, index, amplitude.value) for index in chosen])
    return StructureSetData.from_frames(dataclasses.replace(part, positions=part.positions + ways))


@calcfunction
def merge_minima(
    structures: StructureSetData,
    results: NormalModesData,
    new_structures: StructureSetData,
    new_results: NormalModesData,
    indices: orm.List,
    kept: orm.List,
) -> dict[str, orm.Data]:
    """Put structures that were optimized again, and their results, in the places that they have in the whole set.

    :param structures: the whole set
    :param results: the results of all of it
    :param new_structures: some of the structures, optimized again
    :param new_results: their results
    :param indices: their numbers in the whole set
    :param kept: which of these stay as they were, because the new optimization or analysis failed
    :return: the whole set (``output_structures``) and its results (``results``)
    """
    chosen, old = indices.get_list(), kept.get_list()
    places = {position: index for position, index in enumerate(chosen) if index not in old}
    whole, part = structures.get_frames(), new_structures.get_frames()
    positions: npt.NDArray[Any] = whole.positions.copy()
    new = part.positions[part.atom_indices(np.array(list(places)))]
    positions[whole.atom_indices(np.array(list(places.values())))] = new
    merged = StructureSetData.from_frames(dataclasses.replace(whole, positions=positions))
    return {
        'output_structures': merged,
        'results': replace_results(results, chosen, new_results, merged, old),
    }


def parameters_of_part(parameters: Mapping[str, Any], indices: Sequence[int]) -> dict[str, Any]:
    """Return the parameters of a set of structures as they are for a part of it.

    :param parameters: with lists of one number for each structure, or constraints of single structures
    :param indices: the structures of the part
    """
    result = dict(parameters)
    for name in _FOR_EACH:
        if isinstance(result.get(name), (list, tuple)):
            result[name] = [result[name][index] for index in indices]
    places = {index: position for position, index in enumerate(indices)}
    constraints = []
    for spec in result.get('constraints') or []:
        if spec.get('structures') is None:
            constraints.append(spec)
            continue
        numbers = [places[index] for index in spec['structures'] if index in places]
        if numbers:
            constraints.append({**spec, 'structures': numbers})
    if result.get('constraints'):
        result['constraints'] = constraints
    return result


def labels_of(frames: Frames, indices: Sequence[int]) -> str:
    """Return the first structures of a list by name, for a message."""
    names = [frames.label(index) for index in indices[:5]]
    return ', '.join(names) + ', ...' * (len(indices) > len(names))
