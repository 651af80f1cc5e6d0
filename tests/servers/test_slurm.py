"""SLURM for real: whatever it says of a job is kept, and so are the structures that were done."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiida.engine import CalcJob, submit
from aiida.engine.processes.control import kill_processes, play_processes
from ase.build import molecule
from waiting import wait_for

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData

pytestmark = [pytest.mark.servers, pytest.mark.slow]
_SCHEDULER = CalcJob.exit_codes
_OURS = SinglePointCalculation.exit_codes


def _on(node_name):
    """Return options that send a job to a node of the cluster."""
    return {'custom_scheduler_commands': f'#SBATCH --nodelist={node_name}'}


def _wait_until_computing(cluster, node):
    def started():
        directory = node.get_remote_workdir()
        return node.get_job_id() and cluster.shell(f'ls {directory}/arrays/status.npy 2>/dev/null || true')

    wait_for(started, 60, 'the job computes')


def _end(node, seconds=90.0):
    wait_for(lambda: node.is_terminated, seconds, f'the job ends: {node.process_status}')
    return node


@pytest.fixture
def torchani_job():
    """Return a function that submits one structure to a small model of TorchANI: it takes devices, EMT does not."""
    pytest.importorskip('torchani', reason='the torchani extra is not installed')

    def run(code, options, parameters):
        file = Path(__file__).parents[1] / 'fixtures' / 'torchani' / 'custom_full_ani.pt'
        model = ModelData.from_file(file, backend='torchani', elements=['H', 'C', 'O'])
        structures = StructureSetData.from_ase([molecule('CH3OH')]).store()
        inputs = {'code': code, 'model': model.get_or_store(), 'structures': structures, 'parameters': parameters}
        return submit(SinglePointCalculation, **inputs, metadata={'options': options})

    return run


@pytest.fixture(scope='module', autouse=True)
def out_of_time(cluster, cluster_profile, submit_copper):
    """Return a job that needs longer than its minute; SLURM knows no shorter time, so that it runs beside the tests."""
    options = {'max_wallclock_seconds': 60, **_on(cluster.nodes[1])}
    return submit_copper(cluster_profile.code, 500, calculator={'seconds': 0.5}, options=options)


def test_a_job_that_ends_well(cluster, cluster_profile, submit_copper, assert_energies):
    node = _end(submit_copper(cluster_profile.code, 20))
    assert node.is_finished_ok, node.exit_message
    assert cluster.sacct(node.get_job_id(), 'State') == ['COMPLETED']
    assert assert_energies(node.outputs.results) == 20


def test_out_of_memory(cluster, cluster_profile, submit_copper, assert_energies):
    """SLURM kills it: exit code 110, with our message added; the structures before it are stored."""
    if not cluster.limits_memory:
        pytest.skip('SLURM limits memory with control groups of the first generation, which this system has not')
    node = submit_copper(
        cluster_profile.code,
        40,
        calculator={'megabytes': 800, 'after': 12},
        options={'max_memory_kb': 300 * 1024},
    )
    _end(node)
    assert cluster.sacct(node.get_job_id(), 'State') == ['OUT_OF_MEMORY']
    assert node.exit_status == _SCHEDULER.ERROR_SCHEDULER_OUT_OF_MEMORY.status == 110
    assert _SCHEDULER.ERROR_SCHEDULER_OUT_OF_MEMORY.message in node.exit_message
    assert 'continue it with `parent_folder`' in node.exit_message
    assert node.outputs.output_parameters['n_pending'] == 28
    assert assert_energies(node.outputs.results, all_done=False) == 12


def test_more_threads_do_what_was_asked(cluster, cluster_profile, submit_copper):
    """Cores come from AiiDA's options; the worker uses what the scheduler grants."""
    resources = {'num_machines': 1, 'num_mpiprocs_per_machine': 1, 'num_cores_per_mpiproc': 2}
    node = submit_copper(cluster_profile.code, 2, options={'resources': resources}, parameters={'num_threads': 2})
    _end(node)
    assert node.is_finished_ok, node.exit_message
    assert 'cpu=2' in cluster.sacct(node.get_job_id(), 'AllocTRES')[0].split(',')
    assert node.outputs.output_parameters['num_threads'] == 2


def test_a_gpu_is_granted(cluster, cluster_profile, submit_copper):
    """The request in SLURM's own words leads to the node with the GPUs, and to one of them."""
    options = {'custom_scheduler_commands': '#SBATCH --gres=gpu:1', 'queue_name': 'gpu'}
    node = _end(submit_copper(cluster_profile.code, 2, options=options))
    assert node.is_finished_ok, node.exit_message
    name, granted = cluster.sacct(node.get_job_id(), 'NodeList', 'AllocTRES')
    assert name == cluster.nodes[0]
    assert 'gres/gpu=1' in granted.split(',')


def test_a_gpu_that_is_not_there_is_missed(cluster_profile, torchani_job):
    """The make-believe GPU is granted, but torch finds none: that has a name, and the CPU does not step in."""
    options = {'custom_scheduler_commands': '#SBATCH --gres=gpu:1', 'max_memory_kb': 2 * 1024**2}
    node = _end(torchani_job(cluster_profile.code, options=options, parameters={'device': 'cuda'}))
    assert node.exit_status == _OURS.ERROR_DEVICE_MISSING.status, node.exit_message


def test_cancelled_on_the_cluster(cluster, cluster_profile, submit_copper, assert_energies):
    """`scancel` has no exit code of AiiDA's: the job says itself that it can go on.

    SLURM sends SIGTERM to the steps that `srun` started, so that the worker ends in order; without `srun` only to the
    shell, and then kills: the batch at hand is lost (see test_out_of_time).
    """
    node = submit_copper(cluster_profile.code, 400, calculator={'seconds': 0.1}, options={'withmpi': True})
    _wait_until_computing(cluster, node)
    cluster.run('scancel', node.get_job_id())
    _end(node)
    assert cluster.sacct(node.get_job_id(), 'State')[0].startswith('CANCELLED')
    assert node.exit_status == _OURS.ERROR_INCOMPLETE.status, node.exit_message
    assert 'asked to stop after' in node.exit_message
    assert 0 < assert_energies(node.outputs.results, all_done=False) < 400


def test_killed_in_aiida(cluster, cluster_profile, submit_copper):
    """`verdi process kill` ends the job on the cluster."""
    node = submit_copper(cluster_profile.code, 400, calculator={'seconds': 0.1})
    _wait_until_computing(cluster, node)
    kill_processes([node], timeout=30)
    _end(node)
    assert node.is_killed
    wait_for(lambda: cluster.sacct(node.get_job_id(), 'State')[0].startswith('CANCELLED'), 30)


def test_a_node_that_fails(cluster, cluster_profile, submit_copper, assert_energies):
    """The power goes: exit code 140, what was done is stored, and another node does the rest only."""
    lost, other = cluster.nodes
    node = submit_copper(cluster_profile.code, 100, calculator={'seconds': 0.1}, options=_on(lost))
    _wait_until_computing(cluster, node)
    cluster.kill_node(lost)
    try:
        _end(node)
        assert cluster.sacct(node.get_job_id(), 'State') == ['NODE_FAIL']
        assert node.exit_status == _SCHEDULER.ERROR_SCHEDULER_NODE_FAILURE.status == 140
        assert _SCHEDULER.ERROR_SCHEDULER_NODE_FAILURE.message in node.exit_message
        done = assert_energies(node.outputs.results, all_done=False)
        assert 0 < done < 100

        again = submit_copper(
            cluster_profile.code,
            100,
            structures=node.inputs.structures,
            calculator={'seconds': 0.1},
            parent_folder=node.outputs.remote_folder,
            options=_on(other),
        )
        _end(again)
    finally:
        cluster.start_node(lost)
    assert again.is_finished_ok, again.exit_message
    assert f'went on with the results of {done} structures' in ' '.join(again.outputs.output_parameters['notes'])
    assert assert_energies(again.outputs.results) == 100


def test_an_account_that_does_not_exist(cluster_profile, submit_copper):
    """SLURM's refusal has an exit code of AiiDA's."""
    node = _end(submit_copper(cluster_profile.code, 2, options={'account': 'nobodys'}))
    assert node.exit_status == _SCHEDULER.ERROR_SCHEDULER_INVALID_ACCOUNT.status == 131, node.exit_message


def test_a_refused_submission_waits_for_repair(cluster, cluster_profile, submit_copper, assert_energies):
    """Any other refusal pauses the process and says why; when the queue is open again, `play` submits it."""
    cluster.run('scontrol', 'update', 'PartitionName=gpu', 'State=INACTIVE')
    try:
        node = submit_copper(cluster_profile.code, 4, options={'queue_name': 'gpu'})
        wait_for(lambda: node.paused, 60, 'the process is paused')
        assert node.get_job_id() is None
        assert 'submit' in node.process_status
    finally:
        cluster.run('scontrol', 'update', 'PartitionName=gpu', 'State=UP')
    play_processes([node], timeout=20)
    _end(node)
    assert node.is_finished_ok, node.exit_message
    assert assert_energies(node.outputs.results) == 4


def test_more_memory_than_any_node_has(cluster_profile, submit_copper):
    """A request that can never be met does not wait in the queue for ever: it is refused, and can be killed."""
    node = submit_copper(cluster_profile.code, 2, options={'max_memory_kb': 10**9})
    wait_for(lambda: node.paused, 60, 'the process is paused')
    kill_processes([node], timeout=30)
    _end(node)
    assert node.is_killed


def test_out_of_time(cluster, out_of_time, assert_energies):
    """SLURM ends it after its minute: exit code 120, with our message added; the structures until then are stored."""
    node = _end(out_of_time, 120)
    assert cluster.sacct(node.get_job_id(), 'State') == ['TIMEOUT']
    assert node.exit_status == _SCHEDULER.ERROR_SCHEDULER_OUT_OF_WALLTIME.status == 120
    assert _SCHEDULER.ERROR_SCHEDULER_OUT_OF_WALLTIME.message in node.exit_message
    assert 'continue it with `parent_folder`' in node.exit_message
    assert 60 < assert_energies(node.outputs.results, all_done=False) < 250
