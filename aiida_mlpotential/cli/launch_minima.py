"""``aiida-mlpotential launch thermochemistry --optimize``: the workflow that finds the minima first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_mlpotential.worker.parameters.common import ROWS

from . import running
from .files import write_output
from .reports import count, fail_unless_finished, notes_of

if TYPE_CHECKING:
    from aiida_mlpotential.data.structures import StructureSetData

#: Parameters that are those of both jobs; all others are of the thermochemistry alone.
_SHARED = tuple(parameter.name for parameter in ROWS if parameter.name != 'properties')

#: What the workflow says of structures that were at saddle points, by its words for them.
_MOVED = {
    'displaced': 'moved along imaginary modes and optimized again',
    'left_at_saddle': 'left at the saddle point, as what came of moving failed',
}
#: Options of the command beside those of the calculation.
OPTIONS = (
    click.option(
        '--optimize',
        is_flag=True,
        help='Optimize the structures first, and leave saddle points along their imaginary modes.',
    ),
    click.option(
        '--protocol',
        type=click.Choice(running.PROTOCOLS),
        default='balanced',
        show_default=True,
        help='With --optimize: how tight the minima are. Other options win over it.',
    ),
)


def launch_minima(
    inputs: dict[str, Any],
    structures: StructureSetData,
    arguments: dict[str, Any],
    format_results: Any,
) -> None:
    """Run or submit the workflow for the inputs of a thermochemistry calculation.

    :param inputs: of the calculation, as ``launch`` makes them
    :param structures: what was read, as a set
    :param arguments: of the command
    :param format_results: turns results, structures and the last calculation into text
    """
    from aiida_mlpotential.workflows.thermochemistry import ThermochemistryWorkChain

    parameters: dict[str, Any] = inputs.get('parameters', {})
    shared = {name: value for name, value in parameters.items() if name in _SHARED}
    stages = {'optimization': shared, 'thermochemistry': parameters}
    builder: Any = ThermochemistryWorkChain.get_builder_from_protocol(
        inputs['code'],
        inputs['model'],
        inputs['structure'] if 'structure' in inputs else inputs['structures'],
        arguments['protocol'],
        {name: {'calc': {'parameters': values}} for name, values in stages.items()},
        inputs['metadata']['options'],
    )
    builder.metadata.label = inputs['metadata']['label']
    if arguments['daemon']:
        running.submit_workflow(builder)
        return
    node = running.run_workflow(builder, f'Minima of {count(len(structures))} with {inputs["model"].name}')
    if 'results' in node.outputs:
        _show(node, structures, arguments['output'], format_results)
    fail_unless_finished(node)


def _show(node: Any, structures: StructureSetData, output: Path | None, format_results: Any) -> None:
    from aiida import orm

    from aiida_mlpotential.data.structures import StructureSetData, to_frames

    results = node.outputs.results
    name = 'output_structure' if 'output_structure' in node.outputs else 'output_structures'
    minima = StructureSetData.from_frames(to_frames(node.outputs[name]))
    jobs = [item for item in node.called_descendants if isinstance(item, orm.CalcJobNode)]
    # The first analysis is of all structures; later ones are of those that had been at saddle points.
    analysis = next(job for job in jobs if job.process_label == 'ThermochemistryCalculation')
    click.echo(format_results(results, minima, analysis))
    summary = node.outputs.output_parameters.get_dict()
    for key, what in _MOVED.items():
        if summary[key]:
            names = ', '.join(minima.get_frames().label(int(index)) for index in list(summary[key])[:5])
            more = ', ...' if len(summary[key]) > 5 else ''
            click.echo(f'Note: {count(len(summary[key]))} {what}: {names}{more}.')
    for note in notes_of(jobs[-1]):
        click.echo(f'Note: {note}.')
    click.echo(f'The minima are in {type(node.outputs[name]).__name__}<{node.outputs[name].pk}>.')
    if output is not None:
        write_output(results, minima, output)
