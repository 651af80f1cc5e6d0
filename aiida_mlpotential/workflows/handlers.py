"""What to do after a run that did not end well: each handler knows one kind of end and changes the next run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiida import orm
from aiida.engine import BaseRestartWorkChain, ExitCode, ProcessHandlerReport, process_handler

from aiida_mlpotential.worker.errors import EXIT_CODES, FrameStatus
from aiida_mlpotential.worker.parameters import parameters_of

from .exit_codes import exit_code_of

if TYPE_CHECKING:
    from aiida.common import AttributeDict

_STATUS = {code.label: code.status for code in EXIT_CODES}
#: AiiDA's exit codes: nothing was retrieved, and the verdicts of schedulers.
_NOT_RETRIEVED, _OUT_OF_MEMORY, _OUT_OF_TIME, _BAD_ACCOUNT, _NODE_FAILURE = 100, 110, 120, 131, 140
#: Runs in a row that may end without one structure more.
MAX_IDLE = 3
#: The same for tasks with checkpoints, which may have got on with a structure.
MAX_IDLE_WITH_CHECKPOINTS = 10
#: So many times a smaller batch is tried, each a quarter of the one before.
MAX_SHRINKS = 3
_SHRINK = 4
#: Atoms in a batch when nothing is known of the one that was too large.
_GUESS = 4000
#: Runs that may end with an exception of the worker, in a row and without one structure more.
_MAX_EXCEPTIONS = 2


def _codes(*codes: str | int) -> list[ExitCode]:
    """Return exit codes by their names, or by their numbers where they are AiiDA's own."""
    return [ExitCode(code if isinstance(code, int) else _STATUS[code]) for code in codes]


class Handlers(BaseRestartWorkChain):
    """The handlers that the workflows of all tasks share; those with a higher priority are asked first.

    None of them changes what is computed, only how fast, where and with which optimizer: each run goes on from what the
    one before has left.
    """

    if TYPE_CHECKING:
        ctx: AttributeDict

    def setup_handlers(self) -> None:
        """Count from zero what is tried a limited number of times."""
        self.ctx.n_done, self.ctx.n_idle = 0, 0
        self.ctx.n_shrinks, self.ctx.n_device_failures, self.ctx.n_unconverged = 0, 0, 0

    def parameters(self) -> dict[str, Any]:
        """Return all parameters of the next run."""
        return {}

    def change_parameters(self, **values: Any) -> None:
        """Change parameters of the next run."""

    @process_handler(
        priority=600,
        exit_codes=_codes(
            'ERROR_JOB_INVALID',
            'ERROR_STRUCTURES_INVALID',
            'ERROR_MODEL_CORRUPT',
            'ERROR_MODEL_UNSUPPORTED',
            'ERROR_BACKEND_MISSING',
            'ERROR_PROPERTY_UNAVAILABLE',
            'ERROR_RESULTS_VERSION',
            _BAD_ACCOUNT,
        ),
    )
    def handle_hopeless(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Give up where another run would end in the same way: a person has to act."""
        return self._give_up(node, 'another run would end in the same way')

    @process_handler(priority=590, exit_codes=_codes('ERROR_DISK_FULL'))
    def handle_disk_full(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Give up on a full disk, which another run would only fill again; what is done is kept."""
        remote = f'calc.parent_folder = {node.outputs.remote_folder.pk}' if 'remote_folder' in node.outputs else ''
        return self._give_up(node, f'make room, then go on with {remote or "another run"}')

    @process_handler(priority=560, exit_codes=_codes('ERROR_OUT_OF_MEMORY', _OUT_OF_MEMORY))
    def handle_out_of_memory(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on with a smaller batch, from the second time on also with one thread, or on the CPU after a GPU."""
        if self.ctx.n_shrinks >= MAX_SHRINKS:
            return self._give_up(node, 'no batch was small enough: ask for more memory')
        changes = self._smaller_batch(node)
        if self.ctx.n_shrinks > 1:
            changes.update({'device': 'cpu'} if self._may_leave_gpu(node) else {'num_threads': 1})
        return self._go_on(node, 'out of memory', changes)

    @process_handler(priority=550, exit_codes=_codes('ERROR_INCOMPLETE', _OUT_OF_TIME))
    def handle_incomplete(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on after the time limit or another early end, as long as structures get done."""
        return self._go_on_if_moving(node, 'it ended early', _patience(node))

    @process_handler(priority=545, exit_codes=_codes('ERROR_WORKER_KILLED', _NODE_FAILURE))
    def handle_killed(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on after the node failed or the worker was killed; from the second time on with a smaller batch.

        Where no scheduler tells, a kill is all that is seen of memory that ran out.
        """
        return self._go_on_if_moving(node, 'the worker was killed or its node failed', _patience(node))

    @process_handler(priority=540, exit_codes=_codes('ERROR_RESULTS_MISSING', 'ERROR_RESULTS_INVALID', _NOT_RETRIEVED))
    def handle_missing_results(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on after a kill before the first result, and after files that were lost or damaged on their way."""
        return self._go_on_if_moving(node, 'its results are missing or damaged', MAX_IDLE)

    @process_handler(priority=530, exit_codes=_codes('ERROR_DEVICE_MISSING', 'ERROR_DEVICE_FAILED'))
    def handle_device(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Try another time, perhaps on another node, where the GPU is missing or broken; then take the CPU."""
        self.ctx.n_device_failures += 1
        if self.ctx.n_device_failures == 1:
            return self._go_on(node, 'the GPU is missing or broken, trying once more')
        if self.inputs.allow_cpu and self.parameters()['device'] != 'cpu':
            return self._go_on(node, 'the GPU is missing or broken', {'device': 'cpu'})
        return self._give_up(node, 'there is no GPU that works, and the CPU is not allowed')

    @process_handler(priority=525, exit_codes=_codes('ERROR_SOME_STRUCTURES_FAILED', 'ERROR_ALL_STRUCTURES_FAILED'))
    def handle_large_structures(self, node: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Compute on the CPU what is too large for the memory of a GPU even on its own."""
        number = _count(node, FrameStatus.OUT_OF_MEMORY)
        if not number or not self._may_leave_gpu(node) or self.parameters()['device'] == 'cpu':
            return None
        return self._go_on(node, f'{number} too large for the GPU', {'device': 'cpu'})

    @process_handler(
        priority=520,
        exit_codes=_codes('ERROR_NOT_CONVERGED', 'ERROR_SOME_STRUCTURES_FAILED', 'ERROR_ALL_STRUCTURES_FAILED'),
    )
    def handle_not_converged(self, node: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Go on where structures did not converge, then with FIRE, which is slower and hard to lead astray."""
        number = _count(node, FrameStatus.NOT_CONVERGED)
        if not number:
            return None
        self.ctx.n_unconverged += 1
        if self.ctx.n_unconverged == 1:
            return self._go_on(node, f'{number} not converged')
        if self.ctx.n_unconverged == 2 and self.parameters().get('optimizer') != 'FIRE':
            return self._go_on(node, f'{number} not converged', {'optimizer': 'FIRE'})
        return self._give_up(node, f'after more steps {number} still do not converge, their last geometries are kept')

    @process_handler(
        priority=500,
        exit_codes=_codes(
            'ERROR_SOME_STRUCTURES_FAILED',
            'ERROR_ALL_STRUCTURES_FAILED',
            'ERROR_NOT_CONVERGED',
            'ERROR_WRONG_CHARACTER',
        ),
    )
    def handle_bad_structures(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Say which structures failed; another run would not mend them, and the others are done."""
        return self._give_up(node, 'another run would not mend these structures')

    @process_handler(priority=100, exit_codes=_codes('ERROR_WORKER_EXCEPTION'))
    def handle_exception(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Try once more after an error that nobody foresaw."""
        return self._go_on_if_moving(node, 'the worker failed', _MAX_EXCEPTIONS)

    def _may_leave_gpu(self, node: orm.CalcJobNode) -> bool:
        device = _summary(node).get('device') or self.parameters()['device']
        return bool(self.inputs.allow_cpu) and str(device).startswith('cuda')

    def _smaller_batch(self, node: orm.CalcJobNode) -> dict[str, Any]:
        """Return the parameters of a run with a smaller batch than the last one had."""
        self.ctx.n_shrinks += 1
        atoms = self.parameters()['batch_atoms'] or _summary(node).get('batch_atoms') or _GUESS
        return {'batch_atoms': max(int(atoms) // _SHRINK, 1)}

    def _go_on(self, node: orm.CalcJobNode, why: str, changes: dict[str, Any] | None = None) -> ProcessHandlerReport:
        """Let the next run take up what this one left, with some parameters changed."""
        if 'remote_folder' in node.outputs:
            self.ctx.inputs.parent_folder = node.outputs.remote_folder
        text = ''.join(f', {key} = {value!r}' for key, value in (changes or {}).items())
        if changes:
            self.change_parameters(**changes)
        self.report(f'{node.process_label}<{node.pk}>: {why} [{node.exit_status}]: going on{text}')
        return ProcessHandlerReport(do_break=True)

    def _go_on_if_moving(self, node: orm.CalcJobNode, why: str, patience: int) -> ProcessHandlerReport:
        """Go on, but not when several runs in a row got nothing done.

        :param patience: number of such runs
        """
        summary = _summary(node)
        n_done = int(summary.get('n_ok', 0)) + int(summary.get('n_failed', 0))
        self.ctx.n_idle = 0 if n_done > self.ctx.n_done else self.ctx.n_idle + 1
        self.ctx.n_done = max(n_done, self.ctx.n_done)
        if self.ctx.n_idle >= patience:
            return self._give_up(node, f'{self.ctx.n_idle} runs in a row got nothing done')
        killed = node.exit_status in (_STATUS['ERROR_WORKER_KILLED'], _STATUS['ERROR_RESULTS_MISSING'])
        shrink = killed and self.ctx.n_idle > 1 and self.ctx.n_shrinks < MAX_SHRINKS
        return self._go_on(node, why, self._smaller_batch(node) if shrink else None)

    def _give_up(self, node: orm.CalcJobNode, why: str) -> ProcessHandlerReport:
        """End the workflow with the exit code of the last run; what it has is kept."""
        self.report(f'{node.process_label}<{node.pk}> ended with [{node.exit_status}] {node.exit_message}: {why}')
        self.ctx.verdict = exit_code_of(self, node, why)
        return ProcessHandlerReport(do_break=True, exit_code=self.ctx.verdict)


def _summary(node: orm.CalcJobNode) -> dict[str, Any]:
    """Return the output parameters of a run, or nothing if it has none."""
    return node.outputs.output_parameters.get_dict() if 'output_parameters' in node.outputs else {}


def _count(node: orm.CalcJobNode, status: FrameStatus) -> int:
    """Return how many structures ended in one way."""
    counts = node.outputs.results.base.attributes.get('status_counts', {}) if 'results' in node.outputs else {}
    return int(counts.get(status.name, 0))


def _patience(node: orm.CalcJobNode) -> int:
    """Return how many runs in a row may end without one structure more: where there are checkpoints, more of them."""
    task = getattr(node.process_class, 'TASK', 'single_point')
    return MAX_IDLE_WITH_CHECKPOINTS if 'checkpoint_interval' in parameters_of(task) else MAX_IDLE
