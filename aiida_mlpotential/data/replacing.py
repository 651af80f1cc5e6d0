"""Results of some structures computed anew, put in the place of those that were there."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from aiida_mlpotential.worker.quantities import QUANTITIES, Shape

from .frame_result import rows_of
from .normal_modes import NormalModesData
from .npy import NpyFile
from .statistics import statistics
from .structures import StructureSetData


def replace_results(
    results: NormalModesData,
    indices: Sequence[int],
    newer: NormalModesData,
    structures: StructureSetData,
    kept: Collection[int] = (),
) -> NormalModesData:
    """Return an unstored node with the results of some structures replaced by newer ones.

    :param results: of n structures, with thermochemistry
    :param indices: which of them have newer results, in the order of these
    :param newer: results of the same task for the same molecules
    :param structures: the n structures that the new node is about
    :param kept: which of the indices keep what they had
    :raises ValueError: if the results do not have the same arrays, or the molecules are others
    """
    names = sorted(results.get_arraynames())
    if names != sorted(newer.get_arraynames()) or len(indices) != len(newer):
        raise ValueError('the newer results are not those of the same task for the structures that are named')
    if not np.array_equal(np.diff(results.offsets)[list(indices)], np.diff(newer.offsets)):
        raise ValueError('the newer results are those of other molecules')
    places = {position: index for position, index in enumerate(indices) if index not in kept}
    arrays = {}
    for name in names:
        old, new = results.get_array(name), newer.get_array(name)
        arrays[name] = old.astype(np.result_type(old, new))  # a copy, and point groups may be longer texts now
        if name != 'offsets':
            shape: Shape = QUANTITIES[name].shape if name in QUANTITIES else 'frame'
            for position, index in places.items():
                arrays[name][rows_of(index, results.offsets)[shape]] = new[rows_of(position, newer.offsets)[shape]]
    status, attributes = arrays.pop('status'), results.base.attributes.all
    node = results.with_thermochemistry(arrays, status, {key: attributes[key] for key in ('temperatures', 'settings')})
    files = {name: NpyFile.inspect(node.base.repository, f'{name}.npy', name) for name in names if name in QUANTITIES}
    messages = {index: text for index, text in results.messages.items() if index not in places.values()}
    messages.update((places[position], text) for position, text in newer.messages.items() if position in places)
    node.base.attributes.set_many(
        {
            **statistics(files, results.offsets, status),
            'messages': {str(index): messages[index] for index in sorted(messages)},
            'structures_uuid': structures.uuid,
            'structures_sha256': structures.sha256,
            'selection': None,
        }
    )
    return node
