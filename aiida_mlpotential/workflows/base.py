"""Base restart workflows: each runs one calculation, as often as it takes, and goes on from what is there."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessSpec, if_, while_

from aiida_mlpotential.worker.parameters import with_defaults

from .exit_codes import declare_exit_codes
from .handlers import Handlers
from .protocol import TaskProtocolMixin
from .staging import StagingMixin, declare_staging


class MlpotentialBaseWorkChain(TaskProtocolMixin, StagingMixin, Handlers):
    """Run a calculation to its end: a subclass names which.

    Whatever a run left is taken up by the next one, and the outputs of the last run are attached however it ended.
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
        spec.outline(
            cls.setup,
            while_(cls.should_run_process)(
                if_(cls.needs_staging)(cls.stage_model, cls.inspect_staging),
                cls.run_process,
                cls.inspect_process,
            ),
            cls.results,
        )
        spec.expose_outputs(cls._process_class)
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
        self.ctx.inputs.parameters = orm.Dict({**({} if node is None else node.get_dict()), **values})

    def inspect_process(self) -> ExitCode | None:
        """Let the handlers judge the last run; if the workflow ends with it, its outputs are kept."""
        exit_code = super().inspect_process()
        if exit_code is not None and exit_code.status:
            node = self.ctx.children[self.ctx.iteration - 1]
            if 'output_parameters' in node.outputs or 'results' in node.outputs:
                self.results()
        return exit_code
