"""Base restart workflows: each runs one calculation, as often as it takes, and goes on from what is there."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessSpec, if_, while_

from aiida_mlpotential.worker.parameters import with_defaults

from .exit_codes import cause_of, declare_exit_codes
from .handlers import Handlers
from .ports import close_namespaces
from .protocol import TaskProtocolMixin
from .staging import StagingMixin, declare_staging

#: Ends that AiiDA's restart workflow knows, whose messages name no cause.
_OF_RESTARTS = (
    'ERROR_SUB_PROCESS_EXCEPTED',
    'ERROR_SUB_PROCESS_KILLED',
    'ERROR_MAXIMUM_ITERATIONS_EXCEEDED',
    'ERROR_UNHANDLED_FAILURE',
)


class MlpotentialBaseWorkChain(TaskProtocolMixin, StagingMixin, Handlers):
    """Run a calculation to its end: a subclass names which.

    Whatever a run left is taken up by the next one. The outputs of the last run that has results are attached however
    that ended.
    """

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:  # type: ignore[override]
        """Declare inputs, outline, outputs and exit codes: those of the calculation and those of restarts."""
        super().define(spec)
        assert cls._process_class is not None  # noqa: S101 - for the type checker; every subclass has one
        spec.expose_inputs(cls._process_class, namespace='calc')
        spec.inputs['max_iterations'].default = lambda: orm.Int(20)  # type: ignore[union-attr]
        spec.input(
            'allow_cpu',
            valid_type=bool,
            non_db=True,
            default=True,
            help='Whether to compute on the CPU when the GPU is missing, broken, or too small.',
        )
        declare_staging(spec)
        spec.outline(  # type: ignore[attr-defined]
            cls.setup,
            while_(cls.should_run_process)(
                if_(cls.needs_staging)(cls.stage_model, cls.inspect_staging),
                cls.run_process,
                cls.inspect_process,
            ),
            cls.results,
        )
        spec.expose_outputs(cls._process_class)
        close_namespaces(spec.inputs)
        declare_exit_codes(spec)

    def setup(self) -> None:
        """Take the inputs of the calculation; handlers change them between runs."""
        super().setup()
        assert self._process_class is not None  # noqa: S101 - for the type checker
        self.ctx.inputs = AttributeDict(self.exposed_inputs(self._process_class, 'calc'))
        self.setup_handlers()

    def parameters(self) -> dict[str, Any]:
        """Return all parameters of the next run."""
        node: orm.Dict | None = self.ctx.inputs.get('parameters')
        return with_defaults({} if node is None else node.get_dict(), self._process_class.TASK)  # type: ignore

    def change_parameters(self, **values: Any) -> None:
        """Change parameters of the next run."""
        node: orm.Dict | None = self.ctx.inputs.get('parameters')
        changed = orm.Dict({**({} if node is None else node.get_dict()), **values})
        self.ctx.inputs.parameters = changed.store()  # the context is written to disk between two steps

    def inspect_process(self) -> ExitCode | None:
        """Let the handlers judge the last run; if the workflow ends with it, the cause is told and outputs are kept."""
        exit_code = super().inspect_process()
        verdict: ExitCode | None = self.ctx.pop('verdict', None)
        if exit_code is None or not exit_code.status:
            return exit_code
        self.attach_last()
        if exit_code.status not in {getattr(self.exit_codes, label).status for label in _OF_RESTARTS}:
            return exit_code
        if verdict is not None:  # a handler gave up in the last run that was allowed
            return verdict
        cause = cause_of(self.ctx.children[self.ctx.iteration - 1])
        return ExitCode(exit_code.status, f'{exit_code.message} Last: {cause}', exit_code.invalidates_cache)

    def attach_last(self) -> None:
        """Attach the outputs of the last run that has results, or of the last one that has anything."""
        assert self._process_class is not None  # noqa: S101 - for the type checker
        for name in ('results', 'output_parameters', 'remote_folder'):
            for node in reversed(self.ctx.children):
                if name in node.outputs:
                    self.out_many(self.exposed_outputs(node, self._process_class))
                    return
