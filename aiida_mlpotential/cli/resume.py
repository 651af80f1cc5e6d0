"""A calculation that ended early, taken up again with the same inputs and the work directory that it left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aiida_mlpotential.worker.parameters import parameters_of

from .parameter_options import flag_of
from .tasks import task_of

if TYPE_CHECKING:
    from aiida.orm import CalcJobNode

    from aiida_mlpotential.data.structures import StructureSetData

    from .tasks import LaunchTask

#: Inputs that are those of the earlier calculation.
_TAKEN = ('code', 'model', 'structure', 'structures', 'selection', 'parameters')


def load_calculation(identifier: str, task: LaunchTask) -> CalcJobNode:
    """Return a calculation of a task that can be continued; for any other node, say why it cannot."""
    from aiida import orm
    from aiida.common.exceptions import MultipleObjectsError, NotExistent

    def refusal(message: str) -> click.BadParameter:
        return click.BadParameter(message, param_hint='--continue')

    try:
        node = orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError):
        raise refusal(f'there is no node {identifier!r}.') from None
    found = task_of(node) if isinstance(node, orm.CalcJobNode) else None
    if found is None or not isinstance(node, orm.CalcJobNode):
        raise refusal(f'node {identifier} is no {task.noun}, but a {_kind_of(node)}.')
    if found is not task:
        raise refusal(
            f'node {identifier} is a {found.noun}: use `aiida-mlpotential launch {found.command} --continue '
            f'{identifier}`.'
        )
    if not node.is_terminated:
        raise refusal(f'calculation {node.pk} has not ended yet: follow it with `aiida-mlpotential watch {node.pk}`.')
    if node.is_finished_ok:
        raise refusal(f'calculation {node.pk} is done with all structures: there is nothing to continue.')
    if 'remote_folder' not in node.outputs:
        raise refusal(f'calculation {node.pk} left no work directory: launch it anew.')
    return node


def _kind_of(node: Any) -> str:
    return str(getattr(node, 'process_label', None) or type(node).__name__)


def make_inputs(
    node: CalcJobNode, task: LaunchTask, parameters: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """Return the inputs of a calculation, to go on with a copy of what it left.

    :param parameters: those to change, on which the results must not depend
    :param options: scheduler options to change
    """
    table = parameters_of(task.name)
    fixed = [name for name in parameters if table[name].affects_results]
    if fixed:
        raise click.UsageError(
            f'{flag_of(table[fixed[0]])} changes the results, of which some are there already: '
            'leave it out, or launch the file anew without --continue.'
        )
    inputs: dict[str, Any] = {name: node.inputs[name] for name in _TAKEN if name in node.inputs}
    if parameters:
        before = inputs['parameters'].get_dict() if 'parameters' in inputs else {}
        inputs['parameters'] = {**before, **parameters}
    inputs['parent_folder'] = node.outputs.remote_folder
    inputs['metadata'] = {'label': node.label, 'options': {**node.get_options(), **options}}
    if inputs['code'].computer is None:  # a portable code
        inputs['metadata']['computer'] = node.computer
    return inputs


def structures_of(node: CalcJobNode) -> StructureSetData:
    """Return the structures of a calculation as a set, which is unstored if they were a single one."""
    from aiida_mlpotential.data.selection import frames_of_inputs
    from aiida_mlpotential.data.structures import StructureSetData

    if 'structures' in node.inputs and 'selection' not in node.inputs:
        structures: StructureSetData = node.inputs.structures
        return structures
    return StructureSetData.from_frames(frames_of_inputs({name: node.inputs[name] for name in node.inputs}))
