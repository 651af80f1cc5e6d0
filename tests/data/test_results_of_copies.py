"""Results of a part of a set, asked for their structures through another node with the same content."""

from __future__ import annotations

import numpy as np
from aiida.engine import run_get_node

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.structures import StructureSetData


def test_a_copy_of_the_set_gives_the_same_part(python_code, emt_model):
    """So it is with results from the cache, whose job has the copy as its input."""
    from ase.build import bulk

    atoms = [bulk('Cu', a=a) for a in (3.4, 3.5, 3.6, 3.7)]
    structures, copy = (StructureSetData.from_ase(atoms).store() for _ in range(2))
    assert copy.uuid != structures.uuid
    selection = {'start': 1, 'stop': 3}
    inputs = {'code': python_code, 'model': emt_model, 'structures': structures, 'selection': selection}
    _, node = run_get_node(SinglePointCalculation, **inputs)
    results = node.outputs.results
    for source in (structures, copy):
        np.testing.assert_array_equal(results.frames_of(source).cells, structures.get_frames().cells[1:3])
        assert [item.get_potential_energy() for item in results.to_ase(source)] == results.energies.tolist()
