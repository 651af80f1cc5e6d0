"""The step of a workflow that brings a model to the computer once, before its jobs need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiida import orm
from aiida.engine import ExitCode, ProcessHandlerReport, ProcessSpec, ToContext, process_handler

from aiida_mlpotential.calculations.linking import can_link
from aiida_mlpotential.calculations.stage_model import StageModelCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.queries.staged import find_staged, linked_copy, mark_broken
from aiida_mlpotential.worker.errors import EXIT_CODES

if TYPE_CHECKING:
    from aiida.common import AttributeDict
    from aiida.engine import WorkChain

    Base = WorkChain
else:
    Base = object

_BAD_FILES = [ExitCode(code.status) for code in EXIT_CODES if code.label in ('ERROR_MODEL_MISSING', 'ERROR_MODEL_HASH')]
#: So many times a model is sent again after its files turned out bad on the computer.
MAX_BAD_FILES = 2


def declare_staging(spec: ProcessSpec) -> None:
    """Give a workflow the input of :class:`StagingMixin`."""
    spec.input(
        'stage_model',
        valid_type=bool,
        non_db=True,
        required=False,
        help='Whether to bring the model to the computer first, as a copy that all later jobs there link. By default: '
        'if the computer is another machine, and the code runs in no container.',
    )


def should_stage(model: ModelData, code: orm.AbstractCode, computer: orm.Computer | None, wish: bool | None) -> bool:
    """Return whether a model is to be copied to a computer before jobs need it.

    :param wish: the input ``stage_model``; ``None`` leaves it to the computer
    """
    if wish is False or computer is None or not model.files or not can_link(code):
        return False
    if wish is None and computer.transport_type == 'core.local':
        return False
    return find_staged(model, computer) is None


class StagingMixin(Base):
    """Steps ``needs_staging``, ``stage_model`` and ``inspect_staging`` of a workflow, and the handler of bad copies.

    A workflow with several models calls :meth:`submit_staging` for each.
    """

    if TYPE_CHECKING:
        ctx: AttributeDict

        def _give_up(self, node: orm.CalcJobNode, why: str) -> ProcessHandlerReport: ...
        def _go_on(
            self, node: orm.CalcJobNode, why: str, changes: dict[str, Any] | None = None
        ) -> ProcessHandlerReport: ...

    def needs_staging(self) -> bool:
        """Return whether the model is to be copied to the computer before the next run."""
        if self.ctx.get('staging_failed', False):
            return False
        inputs = self.ctx.inputs
        computer = inputs.code.computer or inputs.metadata.get('computer', None)
        return should_stage(inputs.model, inputs.code, computer, self.inputs.get('stage_model', None))

    def stage_model(self) -> ToContext[str, Any]:
        """Copy the model to the computer."""
        inputs = self.ctx.inputs
        computer = inputs.code.computer or inputs.metadata.computer
        return ToContext(staging=self.submit_staging(inputs.model, computer))

    def submit_staging(self, model: ModelData, computer: orm.Computer) -> orm.ProcessNode:
        """Submit the calculation that copies a model to a computer, and return its node."""
        metadata: dict[str, Any] = {'computer': computer, 'call_link_label': 'stage_model'}
        node = self.submit(StageModelCalculation, model=model, metadata=metadata)
        self.report(
            f'bringing {model.name} to {computer.label} once for all jobs there: {node.process_label}<{node.pk}>'
        )
        return node

    def inspect_staging(self) -> None:
        """Go on without a copy where it could not be made: each job then gets the files itself."""
        node = self.ctx.staging
        if not node.is_finished_ok:
            self.ctx.staging_failed = True
            self.report(f'{node.process_label}<{node.pk}> failed: each job gets the files of the model itself')

    @process_handler(priority=570, exit_codes=_BAD_FILES)
    def handle_bad_model_files(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Drop the copy on the computer where its files turn out bad, and send the model again."""
        self.ctx.n_bad_files = self.ctx.get('n_bad_files', 0) + 1
        if self.ctx.n_bad_files > MAX_BAD_FILES:
            return self._give_up(node, 'the files of the model do not arrive whole')
        copy = linked_copy(node)
        if copy is None:
            return self._go_on(node, 'a file of the model did not arrive whole, sending it again')
        mark_broken(copy, f'{node.process_label}<{node.pk}>: {node.exit_message}')
        return self._go_on(node, f'the staged copy in {copy.get_remote_path()} is bad, sending the model again')
