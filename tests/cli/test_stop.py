"""``stop``: a file in the work directory and an extra of the node; one sentence where there is nothing to stop."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiida import orm
from aiida.engine import ProcessState

from aiida_mlpotential.cli import stop
from aiida_mlpotential.cli.tasks import TASKS
from aiida_mlpotential.worker.schema import STOP_FILE


@pytest.fixture
def running(localhost: orm.Computer, tmp_path: Path) -> orm.CalcJobNode:
    """Return an optimization that runs in a work directory."""
    node = orm.CalcJobNode(computer=localhost, process_type=TASKS['geometry_optimization'].process_type)
    node.set_process_label('GeometryOptimizationCalculation')
    node.set_process_state(ProcessState.WAITING)
    (tmp_path / 'work').mkdir()
    node.set_remote_workdir(str(tmp_path / 'work'))
    node.set_job_id('17')
    return node.store()


def test_running_calculation(running: orm.CalcJobNode, invoke) -> None:
    """The worker finds the file, the monitor the extra, and the user the command to go on with."""
    result = invoke('stop', running.pk)
    assert result.exit_code == 0, result.output
    assert (Path(running.get_remote_workdir()) / STOP_FILE).is_file()
    assert running.base.extras.get(stop.STOP_EXTRA) is True
    assert f'Success: asked GeometryOptimizationCalculation<{running.pk}> to stop' in result.output
    text = ' '.join(result.output.split())
    assert f'`aiida-mlpotential watch {running.pk}`' in text
    assert f'`aiida-mlpotential launch geometry-optimization --continue {running.pk}`' in text


def test_twice_is_no_error(running: orm.CalcJobNode, invoke) -> None:
    """Whoever is impatient is told the same again."""
    assert invoke('stop', running.uuid).exit_code == 0
    assert invoke('stop', running.uuid).exit_code == 0


def test_nothing_to_stop(running: orm.CalcJobNode, localhost: orm.Computer, invoke) -> None:
    """No node, another node, one of another plugin, one that has not started, and one that has ended."""
    number = orm.Int(1).store()
    other = orm.CalcJobNode(computer=localhost, process_type='aiida.calculations:core.arithmetic.add').store()
    waiting, ended = (
        orm.CalcJobNode(computer=localhost, process_type=TASKS['vibrations'].process_type).store() for _ in range(2)
    )
    ended.set_process_state(ProcessState.FINISHED)
    cases = [
        (999999, 'there is no node'),
        (number.pk, f'node {number.pk} is no calculation of aiida-mlpotential, but a Int'),
        (other.pk, f'node {other.pk} is no calculation of aiida-mlpotential, but a CalcJobNode'),
        (waiting.pk, f'has not started yet: there is nothing to keep, end it with `verdi process kill {waiting.pk}`'),
        (ended.pk, 'has ended already'),
    ]
    for identifier, message in cases:
        result = invoke('stop', identifier)
        assert result.exit_code == 1
        assert message in ' '.join(result.output.split())
        assert 'Traceback' not in result.output
    assert not [node for node in (waiting, ended) if stop.STOP_EXTRA in node.base.extras.all]


def test_directory_that_is_gone(running: orm.CalcJobNode, invoke) -> None:
    """Somebody removed the work directory: nothing is asked of a monitor either."""
    Path(running.get_remote_workdir()).rmdir()
    result = invoke('stop', running.pk)
    assert result.exit_code == 1
    assert 'is gone' in result.output
    assert stop.STOP_EXTRA not in running.base.extras.all


def test_computer_that_cannot_be_reached(running: orm.CalcJobNode, invoke, monkeypatch) -> None:
    """What the transport says is one sentence."""

    def fail(self):
        raise OSError('no route to host')

    monkeypatch.setattr(orm.AuthInfo, 'get_transport', fail)
    result = invoke('stop', running.pk)
    assert result.exit_code == 1
    assert 'the computer localhost cannot be reached: no route to host.' in result.output
