"""The screening as a whole, with real jobs."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.workflows.screening.chain import ScreeningWorkChain


def make_structures(number=10, bad=()):
    random = np.random.default_rng(3)
    found = []
    for index in range(number):
        atoms = bulk('Si' if index in bad else 'Cu') * (1 + index % 2, 1, 1)
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        found.append(atoms)
    return StructureSetData.from_ase(found, labels=[f's{index}' for index in range(number)]).store()


@pytest.fixture
def screen(python_code, emt_model):
    def function(**inputs):
        values = {'code': python_code, 'models': {'emt': emt_model}, 'slice_size': 4, 'max_concurrent': 2, **inputs}
        return run_get_node(ScreeningWorkChain, **values)

    return function


def test_slices_together_are_what_one_job_gives(screen, python_code, emt_model):
    structures = make_structures()
    outputs, node = screen(structures=structures)
    assert node.is_finished_ok, node.exit_message
    results = outputs['results']['emt']
    _, single = run_get_node(SinglePointCalculation, code=python_code, model=emt_model, structures=structures)
    for name in single.outputs.results.get_arraynames():
        np.testing.assert_array_equal(results.get_array(name), single.outputs.results.get_array(name), err_msg=name)
    assert outputs['summary']['slices']['slices'] == 3
    jobs = [item for item in node.called_descendants if isinstance(item, orm.CalcJobNode)]
    assert sorted(job.inputs.selection['start'] for job in jobs) == [0, 3, 6]
    assert {job.inputs.structures.pk for job in jobs} == {structures.pk}
    assert results.to_dataframe()['label'].tolist() == [f's{index}' for index in range(10)]
