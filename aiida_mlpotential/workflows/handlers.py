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
#: Runs in a row that may end without one structure more.
MAX_IDLE = 3
#: So many times a smaller batch is tried, each a quarter of the one before.
MAX_SHRINKS = 3
_SHRINK = 4
#: Atoms in a batch when nothing is known of the one that was too large.
_GUESS = 4000


def _codes(*codes: str | int) -> list[ExitCode]:
    """Return exit codes by their names, or by their numbers where a scheduler gives them."""
    return [ExitCode(code if isinstance(code, int) else _STATUS[code]) for code in codes]


class Handlers(BaseRestartWorkChain):
    """The handlers that the workflows of all tasks share; those with a higher priority are asked first."""

    if TYPE_CHECKING:
        ctx: AttributeDict

    def setup_handlers(self) -> None:
        """Count from zero what is tried a limited number of times."""
        self.ctx.n_done, self.ctx.n_idle = 0, 0
        self.ctx.n_shrinks, self.ctx.n_device_failures, self.ctx.n_unconverged = 0, 0, 0

    def parameters(self) -> dict[str, Any]:
        """Return all parameters of the next run; see the subclass."""
        return {}

    def change_parameters(self, **values: Any) -> None:
        """Change parameters of the next run; see the subclass."""

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
            'ERROR_DISK_FULL',
            131,
        ),
    )
    def handle_hopeless(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Give up where another run would end in the same way: a person has to act."""
        return self._give_up(node, 'another run would end in the same way')

    @process_handler(priority=560, exit_codes=_codes('ERROR_OUT_OF_MEMORY', 110))
    def handle_out_of_memory(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on with a smaller batch, then also with one thread, and where it was a GPU on the CPU."""
        if self.ctx.n_shrinks >= MAX_SHRINKS:
            return self._give_up(node, 'no batch was small enough')
        self.ctx.n_shrinks += 1
        last = _summary(node)
        atoms = self.parameters()['batch_atoms'] or last.get('batch_atoms') or _GUESS
        changes: dict[str, Any] = {'batch_atoms': max(int(atoms) // _SHRINK, 1)}
        if self.ctx.n_shrinks > 1:
            on_gpu = str(last.get('device', self.parameters()['device'])).startswith('cuda')
            changes.update({'device': 'cpu'} if on_gpu and self.inputs.allow_cpu else {'num_threads': 1})
        return self._go_on(node, 'out of memory', changes)

    @process_handler(priority=550, exit_codes=_codes('ERROR_INCOMPLETE', 120))
    def handle_incomplete(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on after the time limit or another early end, as long as structures get done."""
        return self._go_on_if_moving(node, 'ended early')

    @process_handler(
        priority=540,
        exit_codes=_codes('ERROR_RESULTS_MISSING', 'ERROR_RESULTS_INVALID', 'ERROR_WORKER_KILLED', 100, 140),
    )
    def handle_killed(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on after the node failed or the worker was killed."""
        return self._go_on_if_moving(node, 'the worker was killed or its node failed')

    @process_handler(priority=530, exit_codes=_codes('ERROR_DEVICE_MISSING'))
    def handle_device(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Try another time, perhaps on another node, where the GPU is missing or broken; then take the CPU."""
        self.ctx.n_device_failures += 1
        if self.ctx.n_device_failures == 1:
            return self._go_on(node, 'the GPU is missing or broken, trying once more')
        if self.inputs.allow_cpu and self.parameters()['device'] != 'cpu':
            return self._go_on(node, 'the GPU is missing or broken', {'device': 'cpu'})
        return self._give_up(node, 'there is no GPU that works, and the CPU is not allowed')

    @process_handler(priority=520, exit_codes=_codes('ERROR_NOT_CONVERGED', 'ERROR_SOME_STRUCTURES_FAILED'))
    def handle_not_converged(self, node: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Go on where structures did not converge, then with FIRE, which is slower and hard to lead astray."""
        counts = node.outputs.results.base.attributes.get('status_counts', None) or {}
        number = counts.get(FrameStatus.NOT_CONVERGED.name, 0)
        if not number:
            return None
        self.ctx.n_unconverged += 1
        if self.ctx.n_unconverged == 1:
            return self._go_on(node, f'{number} not converged')
        if self.ctx.n_unconverged == 2 and self.parameters().get('optimizer') == 'LBFGS':
            return self._go_on(node, f'{number} not converged', {'optimizer': 'FIRE'})
        return self._give_up(node, f'{number} do not converge, their last geometries are kept')

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
        return self._give_up(node, 'the structures themselves are the cause')

    @process_handler(priority=100, exit_codes=_codes('ERROR_WORKER_EXCEPTION'))
    def handle_exception(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Try once more after an error that nobody foresaw."""
        return self._go_on_if_moving(node, 'the worker failed')

    def _go_on(self, node: orm.CalcJobNode, why: str, changes: dict[str, Any] | None = None) -> ProcessHandlerReport:
        """Let the next run take up what this one left, with some parameters changed."""
        if 'remote_folder' in node.outputs:
            self.ctx.inputs.parent_folder = node.outputs.remote_folder
        text = ''.join(f', {key} = {value!r}' for key, value in (changes or {}).items())
        if changes:
            self.change_parameters(**changes)
        self.report(f'{node.process_label}<{node.pk}>: {why} [{node.exit_status}]: going on{text}')
        return ProcessHandlerReport(do_break=True)

    def _go_on_if_moving(self, node: orm.CalcJobNode, why: str) -> ProcessHandlerReport:
        """Go on, but not when several runs in a row got nothing done."""
        summary = _summary(node)
        n_done = int(summary.get('n_ok', 0)) + int(summary.get('n_failed', 0))
        moved = n_done > self.ctx.n_done
        self.ctx.n_done = max(n_done, self.ctx.n_done)
        self.ctx.n_idle = 0 if moved else self.ctx.n_idle + 1
        has_checkpoints = 'checkpoint_interval' in parameters_of(summary.get('task', 'single_point'))
        if self.ctx.n_idle >= MAX_IDLE and not has_checkpoints:
            return self._give_up(node, f'{MAX_IDLE} runs in a row got nothing done')
        return self._go_on(node, why)

    def _give_up(self, node: orm.CalcJobNode, why: str) -> ProcessHandlerReport:
        """End the workflow with the exit code of the last run; what it has is kept."""
        self.report(f'{node.process_label}<{node.pk}> ended with [{node.exit_status}] {node.exit_message}: {why}')
        return ProcessHandlerReport(do_break=True, exit_code=exit_code_of(self, node))


def _summary(node: orm.CalcJobNode) -> dict[str, Any]:
    """Return the output parameters of a run, or nothing if it has none."""
    return node.outputs.output_parameters.get_dict() if 'output_parameters' in node.outputs else {}
