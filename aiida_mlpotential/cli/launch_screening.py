"""``aiida-mlpotential launch screening``: files of any number of structures against one or several models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_mlpotential.worker.parameters import parameters_of
from aiida_mlpotential.worker.registry import DEFAULT_MODEL, PRETRAINED

from . import codes, params, reports, reports_screening, running
from .failures import describe_failures
from .files import check_output, write_output
from .inputs import find_model, first_line, label_models, read_set, scheduler_options
from .parameter_options import Command, collect_parameters, parameter_option, parameter_options
from .progress import Steps

if TYPE_CHECKING:
    from aiida.orm import ProcessNode

    from aiida_mlpotential.data.structures import StructureSetData

#: Parameters of the optimization that have an option here, which go without single points.
_OPTIMIZATION = ('optimizer', 'force_tolerance', 'max_steps')
#: Parameters that hold for all jobs.
_COMMON = ('precision', 'minimum_distance', 'device', 'device_fallback', 'num_threads', 'batch_atoms', 'memory_limit')

_NUMBER = click.IntRange(min=1)


def _optimization_options(command: Command) -> Command:
    """Give the command the options that say how structures are optimized."""
    table = parameters_of('geometry_optimization')
    for name in reversed(_OPTIMIZATION):
        command = parameter_option(table[name], table, 'With --optimize. ')(command)
    return command


@click.command('screening', cls=params.ProfileCommand)
@click.argument('files', nargs=-1, metavar='FILE...', type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    '--structures', 'set_pk', metavar='PK', help='In place of FILE: a set of structures that is in the profile.'
)
@click.option(
    '-M',
    '--model',
    'models',
    metavar='NAME|ID',
    multiple=True,
    default=(DEFAULT_MODEL,),
    show_default=True,
    help=f'Model: {", ".join(PRETRAINED)}, or the PK or UUID of a model. Repeat the option for several models.',
)
@params.CODE
@click.option('-i', '--index', default=':', help='Frames of each file, as ASE writes it: `::10`. [default: all, `:`]')
@click.option('-f', '--format', 'file_format', help='Format, as ASE calls it. [default: by the name of the file]')
@click.option('--slice-size', type=_NUMBER, help='Structures in one job at most. [default: 5000]')
@click.option('--max-concurrent', type=_NUMBER, help='Jobs at once. [default: 4]')
@click.option(
    '--max-qbc',
    type=click.FloatRange(min=0, min_open=True),
    help='Flag structures with a spread over the square root of the number of atoms above this, eV.',
)
@click.option(
    '--select', 'n_selected', type=_NUMBER, help='Choose so many uncertain and diverse structures for new references.'
)
@click.option('--optimize', is_flag=True, help='Optimize the structures first, with the first model.')
@_optimization_options
@parameter_options('single_point')
@click.option('--reuse/--no-reuse', default=True, help='Take what earlier jobs computed. [default: --reuse]')
@running.DAEMON
@click.option(
    '-o', '--output', type=click.Path(path_type=Path), help='Also write an extended XYZ file. [default: none]'
)
@click.option('--overwrite', is_flag=True, help='Replace the file of --output if there is one.')
@running.queue_options
@params.with_profile
def screening(files: tuple[Path, ...], set_pk: str | None, **arguments: Any) -> None:
    """Screen the structures of FILE... with one model or several: any number, in slices, several at once.

    Each slice is a job. Slices that fail are run again and cost the others nothing; a screening that was killed goes on
    where it was when the same command is given again. Structures are ranked by energy within each formula.

    With several models, --output has the numbers of the first.
    """
    daemon, output = arguments['daemon'], arguments['output']
    if daemon and output is not None:
        raise click.UsageError('--output needs the results, for which --daemon does not wait.')
    if bool(files) == (set_pk is not None):
        raise click.UsageError('name a FILE of structures or more, or a set of structures with --structures.')
    if daemon:
        running.check_daemon()
    for file in files if output is not None else ():
        check_output(output, file, arguments['overwrite'])
    structures = (
        load_set(set_pk) if set_pk is not None else read_set(files, arguments['index'], arguments['file_format'])
    )
    inputs = make_inputs(structures, arguments)
    label = ', '.join(file.name for file in files[:3]) if files else structures.label
    inputs['metadata'] = {'label': f'{label}, ...' if len(files) > 3 else label}
    for model in inputs['models'].values():
        reports.warn_of_trust(model)
    if daemon:
        _submit(inputs)
    else:
        _run(inputs, structures, output)


def load_set(identifier: str) -> StructureSetData:
    """Return a set of structures by its PK or UUID; for any other node, say what it is."""
    from aiida import orm
    from aiida.common.exceptions import MultipleObjectsError, NotExistent

    from aiida_mlpotential.data.structures import StructureSetData

    try:
        node = orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError):
        raise click.BadParameter(f'there is no node {identifier!r}.', param_hint='--structures') from None
    if not isinstance(node, StructureSetData):
        message = f'node {identifier} is no set of structures, but a {type(node).__name__}.'
        raise click.BadParameter(message, param_hint='--structures')
    return node


def make_inputs(structures: StructureSetData, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of the screening that the options of the command stand for."""
    parameters = collect_parameters(arguments, 'single_point')
    given = [name for name in _OPTIMIZATION if arguments[name] is not None]
    if given and not arguments['optimize']:
        raise click.UsageError(f'--{given[0].replace("_", "-")} is for optimizations: add --optimize.')
    models = label_models(find_model(name) for name in arguments['models'])
    inputs: dict[str, Any] = {
        'structures': structures,
        'models': models,
        'codes': {label: codes.find_code(arguments['code'], model.backend_name) for label, model in models.items()},
        'reuse': arguments['reuse'],
        'options': scheduler_options(arguments),
    }
    if parameters:
        inputs['parameters'] = parameters
    for name in ('slice_size', 'max_concurrent', 'max_qbc', 'n_selected'):
        if arguments[name] is not None:
            inputs[name] = arguments[name]
    if arguments['optimize']:
        common = {name: value for name, value in parameters.items() if name in _COMMON}
        own = collect_parameters({name: arguments[name] for name in _OPTIMIZATION}, 'geometry_optimization')
        inputs['optimization'] = {'model': next(iter(models)), 'parameters': {**common, **own}}
    return inputs


def _process_class() -> Any:
    from aiida.plugins import WorkflowFactory

    return WorkflowFactory('mlpotential.screening')


def _submit(inputs: dict[str, Any]) -> None:
    node = running.submit_to_daemon(_process_class(), inputs)
    running.say_submitted(node, f'; what it has found is in `verdi process show {node.pk}` when it has ended')


def _run(inputs: dict[str, Any], structures: StructureSetData, output: Path | None) -> None:
    models = list(inputs['models'])
    names = ', '.join(model.name for model in inputs['models'].values())
    with Steps().step(f'{reports.count(len(structures))} with {names}') as step:
        try:
            node = running.run_node(_process_class(), inputs)
        except ValueError as exception:  # an input that the workflow refuses
            raise click.ClickException(first_line(exception)) from exception
        step.result = f'{node.process_label}<{node.pk}> finished'
        if not node.is_finished_ok:
            step.state = 'partial' if 'results' in node.outputs else 'failed'
            step.result = f'{node.process_label}<{node.pk}> {"failed in part" if step.state == "partial" else "failed"}'
    if 'results' in node.outputs:
        click.echo(reports_screening.format_screening(node, models))
        if output is not None and models[0] in node.outputs.results:
            screened = node.outputs.output_structures if 'output_structures' in node.outputs else structures
            write_output(node.outputs.results[models[0]], screened, output)
    _fail_unless_finished(node)


def _fail_unless_finished(node: ProcessNode) -> None:
    """End the command with exit code 1 and the exit message of a screening, unless it succeeded."""
    if node.is_finished_ok:
        return
    state = f'exit code {node.exit_status}' if node.is_finished else str(node.process_state)
    missing = 'summary' not in node.outputs or node.outputs.summary['slices']['missing_slices']
    causes = [] if missing else describe_failures(node)
    text = '; '.join(causes) or str(node.exit_message or node.exception or 'there is no message')
    message = reports.with_options(text).rstrip('.')
    remedy = '\nThe same command again computes what is missing.' if missing else ''
    raise click.ClickException(
        f'{node.process_label}<{node.pk}> failed ({state}): {message}.{remedy}\n'
        f'See also its log: `verdi process report {node.pk}`.'
    )
