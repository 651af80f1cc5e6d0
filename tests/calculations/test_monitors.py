"""The soft stop: a job that somebody asks to end stores what it has, and can be gone on with."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.engine.processes.calcjobs.monitors import CalcJobMonitorAction
from aiida.schedulers.datastructures import JobState
from ase.build import bulk

from aiida_mlpotential.calculations.monitors import SINCE_EXTRA, STOP_EXTRA, soft_stop
from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.structures import StructureSetData


class Transport:
    """Stands for the connection to a computer, on which it keeps what was written where."""

    def __init__(self):
        self.written = {}

    def putfile(self, source, target):
        self.written[target] = Path(source).read_text()


@pytest.fixture
def node(localhost):
    """Return a calculation that runs."""
    node = orm.CalcJobNode(computer=localhost, process_type='aiida.calculations:mlpotential.single_point')
    node.set_option('resources', {'num_machines': 1, 'num_mpiprocs_per_machine': 1})
    node.set_remote_workdir('/work/ab/cd')
    node.set_scheduler_state(JobState.RUNNING)
    return node.store()


def test_nothing_happens_unasked(node):
    transport = Transport()
    assert soft_stop(node, transport) is None
    assert transport.written == {}


def test_an_extra_asks(node):
    transport = Transport()
    node.base.extras.set(STOP_EXTRA, True)
    result = soft_stop(node, transport)
    assert list(transport.written) == ['/work/ab/cd/stop']
    assert result.action is CalcJobMonitorAction.DISABLE_SELF
    assert (result.retrieve, result.parse, result.override_exit_code) == (True, True, False)
    assert STOP_EXTRA in result.message


def test_time_counts_from_the_moment_the_job_runs(node):
    transport = Transport()
    node.set_scheduler_state(JobState.QUEUED)
    assert soft_stop(node, transport, seconds=0) is None
    assert SINCE_EXTRA not in node.base.extras.all
    node.set_scheduler_state(JobState.RUNNING)
    assert soft_stop(node, transport, seconds=100) is None
    node.base.extras.set(SINCE_EXTRA, time.time() - 99)
    assert soft_stop(node, transport, seconds=100) is None
    assert transport.written == {}
    node.base.extras.set(SINCE_EXTRA, time.time() - 101)
    assert soft_stop(node, transport, seconds=100).message == 'asked to stop after 100 seconds'
    assert list(transport.written) == ['/work/ab/cd/stop']


def test_a_job_without_a_directory_is_left_alone(localhost):
    node = orm.CalcJobNode(computer=localhost, process_type='aiida.calculations:mlpotential.single_point')
    node.base.extras.set(STOP_EXTRA, True)
    transport = Transport()
    assert soft_stop(node, transport) is None
    assert transport.written == {}


@pytest.mark.slow
def test_a_real_job_ends_in_order_and_is_gone_on_with(python_code, emt_model):
    crystal = bulk('Cu') * (5, 5, 5)
    frames = [crystal.copy() for _ in range(400)]
    for index, atoms in enumerate(frames):
        atoms.rattle(0.01, seed=index)
    inputs = {
        'code': python_code,
        'model': emt_model,
        'structures': StructureSetData.from_ase(frames).store(),
        'parameters': {'batch_atoms': 125},
    }
    monitor = orm.Dict({'entry_point': 'mlpotential.soft_stop', 'kwargs': {'seconds': 0}})
    outputs, first = run_get_node(SinglePointCalculation, monitors={'stop': monitor}, **inputs)
    assert first.exit_status == SinglePointCalculation.exit_codes.ERROR_INCOMPLETE.status, first.exit_message
    assert 'asked to stop' in first.exit_message
    done = outputs['results'].n_ok
    assert done + outputs['results'].n_pending == 400
    assert outputs['results'].n_pending > 0
    assert any('the file `stop`' in note for note in outputs['output_parameters']['notes'])

    outputs, second = run_get_node(SinglePointCalculation, parent_folder=first.outputs.remote_folder, **inputs)
    assert second.is_finished_ok, second.exit_message
    assert np.isfinite(outputs['results'].energies).all()
