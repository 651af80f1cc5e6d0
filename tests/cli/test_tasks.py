"""The table of tasks: each has its process, its report and its command."""

from __future__ import annotations

import importlib

import pytest
from aiida import orm
from aiida.engine import CalcJob

from aiida_mlpotential.cli.launch import launch
from aiida_mlpotential.cli.tasks import TASKS, LaunchTask, task_of
from aiida_mlpotential.worker import tasks as worker_tasks


def test_every_task_of_the_worker_can_be_launched() -> None:
    """No task is only to be had from Python."""
    assert set(TASKS) == set(worker_tasks.TASKS)
    workflows = {'reaction', 'screening'}  # of several tasks
    assert set(launch.commands) == {task.command for task in TASKS.values()} | workflows


@pytest.mark.parametrize('task', TASKS.values(), ids=TASKS)
def test_entries(task: LaunchTask) -> None:
    """What the table names is there, and is of its task."""
    process = task.process_class()
    assert issubclass(process, CalcJob)
    assert task.name == process.TASK
    assert process.build_process_type() == task.process_type
    assert launch.commands[task.command].help == task.help
    for module, name in (task.report, task.output):
        assert callable(getattr(importlib.import_module(f'aiida_mlpotential.cli.{module}'), name))


def test_task_of_a_node(aiida_profile_clean) -> None:
    """A calculation has the task of its type; one of another plugin has none."""
    node = orm.CalcJobNode(process_type='aiida.calculations:mlpotential.vibrations')
    assert task_of(node) is TASKS['vibrations']
    assert task_of(orm.CalcJobNode(process_type='aiida.calculations:core.arithmetic.add')) is None
