"""What can be continued, and what cannot; a whole run is in ``test_launch.py``."""

from __future__ import annotations

import click
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessState
from ase.build import molecule

from aiida_mlpotential.cli import resume
from aiida_mlpotential.cli.tasks import TASKS
from aiida_mlpotential.data.model import ModelData

SINGLE_POINT, OPTIMIZATION = TASKS['single_point'], TASKS['geometry_optimization']


@pytest.fixture
def calculation(code: orm.InstalledCode, emt: ModelData, tmp_path) -> orm.CalcJobNode:
    """Return a calculation of one structure that ended early."""
    node = orm.CalcJobNode(computer=code.computer, process_type=SINGLE_POINT.process_type)
    structure = orm.StructureData(ase=molecule('H2O'))
    structure.label = 'water'
    for name, data in (('code', code), ('model', emt), ('structure', structure)):
        node.base.links.add_incoming(data.store(), link_type=LinkType.INPUT_CALC, link_label=name)
    node.set_options({'resources': {'num_machines': 1}, 'queue_name': 'long'})
    node.label = 'earlier'
    node.set_process_state(ProcessState.FINISHED)
    node.set_exit_status(402)
    node.store()
    folder = orm.RemoteData(computer=code.computer, remote_path=str(tmp_path))
    folder.base.links.add_incoming(node, link_type=LinkType.CREATE, link_label='remote_folder')
    folder.store()
    return node


def test_inputs(calculation: orm.CalcJobNode) -> None:
    """All inputs are those of the earlier calculation; its options too, where no other is given."""
    node = resume.load_calculation(str(calculation.pk), SINGLE_POINT)
    inputs = resume.make_inputs(node, SINGLE_POINT, {'batch_atoms': 100}, {'max_wallclock_seconds': 60})
    assert {name: inputs[name].pk for name in ('code', 'model', 'structure')} == {
        name: node.inputs[name].pk for name in ('code', 'model', 'structure')
    }
    assert inputs['parent_folder'].pk == node.outputs.remote_folder.pk
    assert inputs['parameters'] == {'batch_atoms': 100}
    assert inputs['metadata']['label'] == 'earlier'
    options = inputs['metadata']['options']
    assert (options['queue_name'], options['max_wallclock_seconds']) == ('long', 60)
    structures = resume.structures_of(node)
    assert (structures.labels, structures.formulas) == (('water',), ['H2O'])


def test_results_cannot_change(calculation: orm.CalcJobNode) -> None:
    """A parameter on which the results depend is refused."""
    with pytest.raises(click.UsageError, match='--precision changes the results'):
        resume.make_inputs(calculation, SINGLE_POINT, {'precision': 'double'}, {})


def test_more_steps_change_no_result(calculation: orm.CalcJobNode) -> None:
    """An optimization that ran out of steps goes on with others; another tolerance would be another optimization."""
    inputs = resume.make_inputs(calculation, OPTIMIZATION, {'max_steps': 50, 'trajectory': 1}, {})
    assert inputs['parameters'] == {'max_steps': 50, 'trajectory': 1}
    with pytest.raises(click.UsageError, match='--force-tolerance changes the results'):
        resume.make_inputs(calculation, OPTIMIZATION, {'force_tolerance': 0.001}, {})


def test_calculation_of_another_task(calculation: orm.CalcJobNode) -> None:
    """Who names a single point to another command is told the right one."""
    with pytest.raises(
        click.BadParameter, match=f'use `aiida-mlpotential launch single-point --continue {calculation.pk}`'
    ):
        resume.load_calculation(str(calculation.pk), OPTIMIZATION)


def test_what_cannot_be_continued(calculation: orm.CalcJobNode) -> None:
    """No node, another node, and a calculation that runs, succeeded or left nothing."""
    number = orm.Int(1).store()
    running = orm.CalcJobNode(computer=calculation.computer, process_type=SINGLE_POINT.process_type).store()
    running.set_process_state(ProcessState.RUNNING)
    done, lost = (
        orm.CalcJobNode(computer=calculation.computer, process_type=SINGLE_POINT.process_type).store() for _ in range(2)
    )
    for node, status in ((done, 0), (lost, 301)):
        node.set_process_state(ProcessState.FINISHED)
        node.set_exit_status(status)
    cases = [
        ('999999', 'there is no node'),
        (number.pk, 'is no single-point calculation, but a Int'),
        (running.pk, 'has not ended yet'),
        (done.pk, 'there is nothing to continue'),
        (lost.pk, 'left no work directory'),
    ]
    for identifier, message in cases:
        with pytest.raises(click.BadParameter, match=message):
            resume.load_calculation(str(identifier), SINGLE_POINT)
