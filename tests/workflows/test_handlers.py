"""What is done after each end of a run: decided by its exit code and outputs alone, so without running jobs."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.common import LinkType
from aiida.engine import ProcessState
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.plugins.entry_point import get_entry_point_string_from_class
from ase.build import bulk

from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.workflows.exit_codes import OFFSET, calculation_codes
from aiida_mlpotential.workflows.handlers import MAX_IDLE, MAX_IDLE_WITH_CHECKPOINTS, MAX_SHRINKS
from aiida_mlpotential.workflows.tasks import GeometryOptimizationBaseWorkChain, SinglePointBaseWorkChain

#: AiiDA's own codes that no handler takes: a person stopped the job, or wants files that are not there.
UNHANDLED = (150, 160)
HOPELESS = (303, 310, 311, 321, 323, 330, 331, 131)


class Chain:
    """A workflow whose runs are made up."""

    def __init__(self, process, computer):
        self.process, self.computer = process, computer
        self.process.setup()
        self.process.ctx.children = []

    def end(self, status, counts=None, **summary):
        """Let a run end, and return the exit code of the workflow, or ``None`` where there is another run."""
        process_class = self.process.process_class
        node = orm.CalcJobNode(
            computer=self.computer,
            process_type=get_entry_point_string_from_class(process_class.__module__, process_class.__name__),
        )
        node.set_process_label(process_class.__name__)
        node.set_process_state(ProcessState.FINISHED)
        node.set_exit_status(status)
        node.set_exit_message(f'message of {status}')
        node.store()
        outputs = {'remote_folder': orm.RemoteData(computer=self.computer, remote_path='/nowhere')}
        if summary:
            outputs['output_parameters'] = orm.Dict(summary)
        if counts is not None:
            outputs['results'] = results = ResultsData()
            for name in ('energies', 'status', 'offsets'):
                results.set_array(name, np.zeros(1))
            results.base.attributes.set_many({'n_frames': sum(counts.values()), 'status_counts': counts})
        for label, output in outputs.items():
            output.base.links.add_incoming(node, LinkType.CREATE, label)
            output.store()
        node.seal()
        self.process.ctx.children.append(node)
        self.process.ctx.iteration = len(self.process.ctx.children)
        exit_code = self.process.inspect_process()
        return exit_code if exit_code is not None and exit_code.status else None

    @property
    def changes(self):
        """Return the parameters of the next run that were given."""
        node = self.process.ctx.inputs.get('parameters')
        return {} if node is None else node.get_dict()

    @property
    def parent(self):
        """Return the run that the next one goes on from."""
        folder = self.process.ctx.inputs.get('parent_folder')
        return None if folder is None else folder.creator


@pytest.fixture
def make(python_code, emt_model, localhost):
    """Return a function that makes a workflow, which runs nothing."""

    def function(chain=SinglePointBaseWorkChain, parameters=None, **inputs):
        structures = StructureSetData.from_ase([bulk('Cu')] * 3).store()
        calc = {'code': python_code, 'model': emt_model, 'structures': structures, 'parameters': parameters or {}}
        runner = get_manager().get_runner()
        return Chain(instantiate_process(runner, chain, calc=calc, **inputs), localhost)

    return function


@pytest.mark.slow
@pytest.mark.parametrize('status', sorted(set(calculation_codes()) - set(UNHANDLED)))
def test_every_end_has_a_handler_and_every_message_a_cause(make, status):
    """Nothing goes on for ever, and however the workflow ends, it says what the last run said."""
    chain = make(max_iterations=orm.Int(30))
    for _ in range(29):
        exit_code = chain.end(status)
        if exit_code:
            break
    expected = calculation_codes()[status]
    assert (exit_code.status, exit_code.invalidates_cache) == (status + OFFSET, expected.invalidates_cache)
    assert f'[{status}] message of {status} (' in exit_code.message


@pytest.mark.parametrize('status', UNHANDLED)
def test_what_no_handler_takes(make, status):
    exit_code = make().end(status)
    assert exit_code.status == SinglePointBaseWorkChain.exit_codes.ERROR_UNHANDLED_FAILURE.status
    assert f'[{status}] message of {status}' in exit_code.message


@pytest.mark.parametrize('status', HOPELESS)
def test_what_a_person_has_to_mend_is_not_run_again(make, status):
    assert make().end(status).status == status + OFFSET


def test_a_full_disk_says_how_to_go_on(make):
    chain = make()
    exit_code = chain.end(342)
    folder = chain.process.ctx.children[0].outputs.remote_folder
    assert exit_code.status == 642
    assert f'make room, then go on with calc.parent_folder = {folder.pk}' in exit_code.message
    assert chain.process.outputs['remote_folder'].pk == folder.pk


@pytest.mark.parametrize('status', [341, 110])
def test_out_of_memory(make, status):
    """A quarter of the batch, then one thread as well, then no more."""
    chain = make()
    assert chain.end(status, batch_atoms=4096, device='cpu') is None
    assert chain.changes == {'batch_atoms': 1024}
    assert chain.parent.pk == chain.process.ctx.children[0].pk
    assert chain.end(status, batch_atoms=1024, device='cpu') is None
    assert chain.changes == {'batch_atoms': 256, 'num_threads': 1}
    for _ in range(MAX_SHRINKS - 2):
        assert chain.end(status) is None
    assert chain.end(status).status == status + OFFSET


def test_out_of_memory_of_a_gpu(make):
    chain = make(parameters={'batch_atoms': 100})
    assert chain.end(341, device='cuda:0') is None
    assert chain.end(341, device='cuda:0') is None
    assert chain.changes == {'batch_atoms': 6, 'device': 'cpu'}


def test_out_of_memory_of_a_gpu_that_is_not_to_be_left(make):
    chain = make(parameters={'batch_atoms': 100}, allow_cpu=False)
    assert chain.end(341, device='cuda:0') is None
    assert chain.end(341, device='cuda:0') is None
    assert chain.changes == {'batch_atoms': 6, 'num_threads': 1}


def test_structures_too_large_for_a_gpu(make):
    chain = make()
    assert chain.end(400, {'OK': 2, 'OUT_OF_MEMORY': 1}, device='cuda') is None
    assert chain.changes == {'device': 'cpu'}
    exit_code = chain.end(400, {'OK': 2, 'OUT_OF_MEMORY': 1}, device='cpu')
    assert exit_code.status == 700


@pytest.mark.slow
@pytest.mark.parametrize('status', [120, 402, 140, 304])
def test_it_goes_on_while_structures_get_done(make, status):
    chain = make(max_iterations=orm.Int(40))
    for n_done in range(1, 6):
        assert chain.end(status, n_ok=n_done, n_failed=0) is None
        assert chain.parent.pk == chain.process.ctx.children[-1].pk
    assert chain.changes == {}
    for _ in range(MAX_IDLE - 1):
        assert chain.end(status, n_ok=5, n_failed=0) is None
    assert chain.end(status, n_ok=5, n_failed=0).status == status + OFFSET


def test_structures_that_failed_are_progress_too(make):
    chain = make()
    for n_done in range(1, 8):
        assert chain.end(402, n_ok=0, n_failed=n_done) is None


@pytest.mark.slow
def test_a_task_with_checkpoints_may_get_on_within_a_structure(make):
    chain = make(GeometryOptimizationBaseWorkChain)
    for _ in range(MAX_IDLE_WITH_CHECKPOINTS - 1):
        assert chain.end(120, n_ok=0, n_failed=0) is None
    assert chain.end(120, n_ok=0, n_failed=0).status == 120 + OFFSET


def test_the_second_kill_without_a_result_makes_the_batch_smaller(make):
    chain = make()
    assert chain.end(301) is None
    assert chain.changes == {}
    assert chain.end(304, batch_atoms=4096) is None
    assert chain.changes == {'batch_atoms': 1024}


@pytest.mark.parametrize('status', [340, 343])
def test_a_gpu_that_is_missing_or_broken(make, status):
    chain = make(parameters={'device': 'cuda'})
    assert chain.end(status) is None
    assert chain.changes == {'device': 'cuda'}
    assert chain.end(status) is None
    assert chain.changes == {'device': 'cpu'}
    assert chain.end(status).status == status + OFFSET


def test_not_converged(make):
    chain = make(GeometryOptimizationBaseWorkChain)
    assert chain.end(410, {'NOT_CONVERGED': 3}) is None
    assert chain.changes == {}
    assert chain.end(400, {'OK': 1, 'NOT_CONVERGED': 2}) is None
    assert chain.changes == {'optimizer': 'FIRE'}
    exit_code = chain.end(400, {'OK': 2, 'NOT_CONVERGED': 1})
    assert exit_code.status == 700
    assert '1 still do not converge' in exit_code.message
    assert 'results' in chain.process.outputs


def test_not_converged_with_fire_from_the_beginning(make):
    chain = make(GeometryOptimizationBaseWorkChain, {'optimizer': 'FIRE'})
    assert chain.end(410, {'NOT_CONVERGED': 3}) is None
    assert chain.end(410, {'NOT_CONVERGED': 3}).status == 710


@pytest.mark.parametrize('status', [400, 401])
def test_bad_structures(make, status):
    exit_code = make().end(status, {'ATOMS_TOO_CLOSE': 3})
    assert exit_code.status == status + OFFSET


def test_changed_parameters_survive_a_restart_of_the_daemon(make):
    """The context is written to the database between two steps, which takes stored nodes only."""
    chain = make()
    chain.end(341, batch_atoms=400)
    assert chain.process.ctx.inputs.parameters.is_stored
    assert 'verdict' not in chain.process.ctx


def test_a_handler_that_gives_up_in_the_last_run_is_heard(make):
    exit_code = make(max_iterations=orm.Int(1)).end(310)
    assert exit_code.status == 610


def test_the_results_of_an_earlier_run_are_kept_when_the_last_one_has_none(make):
    chain = make(max_iterations=orm.Int(2))
    assert chain.end(402, {'OK': 2, 'PENDING': 1}, n_ok=2, n_failed=0) is None
    exit_code = chain.end(301)
    assert exit_code.status == SinglePointBaseWorkChain.exit_codes.ERROR_MAXIMUM_ITERATIONS_EXCEEDED.status
    assert chain.process.outputs['results'].pk == chain.process.ctx.children[0].outputs.results.pk


@pytest.mark.parametrize('state', ['excepted', 'killed'])
def test_a_run_that_excepted_or_was_killed_is_not_repeated(make, state):
    chain = make()
    node = orm.CalcJobNode(computer=chain.computer)
    node.set_process_label('SinglePointCalculation')
    node.set_process_state(ProcessState(state))
    node.set_exception('ValueError: oops') if state == 'excepted' else node.set_process_status('Killed by a person')
    chain.process.ctx.children.append(node.store())
    chain.process.ctx.iteration = 1
    exit_code = chain.process.inspect_process()
    assert exit_code.status == getattr(chain.process.exit_codes, f'ERROR_SUB_PROCESS_{state.upper()}').status
    assert {'excepted': 'ValueError: oops', 'killed': 'Killed by a person'}[state] in exit_code.message
