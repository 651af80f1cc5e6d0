"""A lane: works through its slices one after the other, so that as many jobs run at once as there are lanes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine import ToContext, WorkChain, while_
from aiida.plugins import WorkflowFactory

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.structures import StructureSetData

from ..exit_codes import cause_of
from ..staging import declare_staging
from .slices import Slice


def workflow_of(item: Slice, shared: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the base workflow that computes a slice, and its inputs.

    :param shared: what all slices have in common, as :class:`ScreeningLaneWorkChain` takes it
    """
    calc: dict[str, Any] = {
        'model': shared['models'][item.model],
        'code': shared['codes'][item.model],
        'structures': shared['structures'],
        'selection': orm.Dict({'start': item.start, 'stop': item.stop}),
        'metadata': {'label': item.name, 'options': dict(shared['options'])},
    }
    if 'parameters' in shared:
        calc['parameters'] = shared['parameters']
    if item.parent is not None:
        calc['parent_folder'] = orm.load_node(item.parent)
    inputs: dict[str, Any] = {'calc': calc, 'allow_cpu': shared['allow_cpu']}
    inputs.update({name: shared[name] for name in ('max_iterations', 'stage_model') if name in shared})
    inputs['metadata'] = {'label': item.name, 'call_link_label': f'slice_{item.name}'}
    return WorkflowFactory(f'mlpotential.{shared["task"]}.base'), inputs


class ScreeningLaneWorkChain(WorkChain):
    """Run the base workflow of a task for each slice in turn; one that fails does not stop the others.

    It always ends well: whoever called it looks at the results, and at what is missing among them.
    """

    @classmethod
    def define(cls, spec: Any) -> None:
        """Declare inputs, outline and outputs."""
        super().define(spec)
        spec.input('structures', valid_type=StructureSetData, help='The whole set.')
        spec.input_namespace('models', dynamic=True, valid_type=ModelData, help='The models by their labels.')
        spec.input_namespace('codes', dynamic=True, valid_type=orm.AbstractCode, help='The code of each model.')
        spec.input('slices', valid_type=orm.List, help='The slices of this lane, in the order of their turn.')
        spec.input('parameters', valid_type=orm.Dict, required=False, help='Parameters of all jobs.')
        spec.input('max_iterations', valid_type=orm.Int, required=False, help='Runs of a slice at most.')
        spec.input('task', valid_type=str, non_db=True, default='single_point', help='What is done with the slices.')
        spec.input('options', valid_type=dict, non_db=True, default=dict, help='`metadata.options` of all jobs.')
        spec.input('allow_cpu', valid_type=bool, non_db=True, default=True, help='Whether the CPU may be taken.')
        declare_staging(spec)
        spec.outline(cls.setup, while_(cls.has_more)(cls.run_slice, cls.inspect_slice))
        spec.output_namespace('results', dynamic=True, valid_type=ResultsData, help='Results of slices by their names.')
        spec.output_namespace(
            'structures', dynamic=True, valid_type=StructureSetData, help='Optimized structures by the same names.'
        )

    def setup(self) -> None:
        """Begin with the first slice."""
        self.ctx.number = 0

    def has_more(self) -> bool:
        """Return whether there is a slice left."""
        return bool(self.ctx.number < len(self.inputs.slices))

    def _slice(self) -> Slice:
        return Slice(**self.inputs.slices[self.ctx.number])

    def run_slice(self) -> Any:
        """Run the base workflow for the next slice."""
        item = self._slice()
        chain, inputs = workflow_of(item, self.inputs)
        return ToContext(slice=self.submit(chain, **inputs))

    def inspect_slice(self) -> None:
        """Keep what the slice has, however it ended."""
        node, item = self.ctx.slice, self._slice()
        for namespace, name in (('results', 'results'), ('structures', 'output_structures')):
            if name in node.outputs:
                self.out(f'{namespace}.{item.name}', node.outputs[name])
        if not node.is_finished_ok:
            self.report(f'{item.name}: {cause_of(node)}')
        self.ctx.number += 1
