"""A calculation for each structure, some of them at once: what a screening is compared with."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine import WorkChain, append_, while_
from aiida.plugins import CalculationFactory


class Singles(WorkChain):
    """Run a calculation for each structure."""

    @classmethod
    def define(cls, spec: Any) -> None:
        """Declare inputs and outline."""
        super().define(spec)
        spec.input('code')
        spec.input('model')
        spec.input('parameters')
        spec.input('at_once', non_db=True)
        spec.input_namespace('structures', dynamic=True, valid_type=orm.StructureData)
        spec.outline(cls.setup, while_(cls.has_more)(cls.launch))

    def setup(self) -> None:
        """Begin with the first structures."""
        self.ctx.left = sorted(self.inputs.structures)

    def has_more(self) -> bool:
        """Return whether there are structures left."""
        return bool(self.ctx.left)

    def launch(self) -> None:
        """Run the next ones."""
        for name in self.ctx.left[: self.inputs.at_once]:
            node = self.submit(
                CalculationFactory('mlpotential.single_point'),
                code=self.inputs.code,
                model=self.inputs.model,
                structure=self.inputs.structures[name],
                parameters=self.inputs.parameters,
            )
            self.to_context(children=append_(node))
        self.ctx.left = self.ctx.left[self.inputs.at_once :]
