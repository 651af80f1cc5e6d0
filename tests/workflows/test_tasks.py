"""There is a base restart workflow for each task, under the name of its calculation."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.plugins import CalculationFactory, WorkflowFactory
from ase import Atoms

from aiida_mlpotential.worker.tasks import TASKS


@pytest.mark.parametrize('task', sorted(TASKS))
def test_every_task_has_one(task):
    chain = WorkflowFactory(f'mlpotential.{task}.base')
    assert chain._process_class is CalculationFactory(f'mlpotential.{task}')
    assert chain.__name__ == f'{"".join(word.title() for word in task.split("_"))}BaseWorkChain'
    assert set(CalculationFactory(f'mlpotential.{task}').spec().outputs) <= set(chain.spec().outputs)


@pytest.mark.slow
@pytest.mark.parametrize('task', sorted(TASKS))
def test_it_runs(python_code, task):
    """One molecule at its minimum, as a node of its own."""
    from aiida_mlpotential.data.model import ModelData

    model = ModelData.from_ase_calculator('ase.calculators.emt.EMT', elements=['N'], name='EMT of N2').get_or_store()
    structure = orm.StructureData(ase=Atoms('N2', positions=[[0, 0, 0], [0, 0, 0.9987]], cell=[9, 9, 9]))
    structure.set_pbc((False, False, False))
    chain = WorkflowFactory(f'mlpotential.{task}.base')
    outputs, node = run_get_node(chain.get_builder_from_protocol(python_code, model, structure, 'fast'))
    assert node.is_finished_ok, node.exit_message
    assert outputs['results'].n_ok == 1
