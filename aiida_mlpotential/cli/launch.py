"""``aiida-mlpotential launch``: calculations from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import codes, params, reports, resume, running
from .files import check_output, read_structures, write_output
from .inputs import find_model, first_line, make_inputs, scheduler_options
from .launch_minima import OPTIONS as WORKFLOW_OPTIONS
from .launch_minima import launch_minima
from .launch_reaction import reaction
from .launch_screening import screening
from .parameter_options import Command, collect_parameters, parameter_options
from .progress import Steps
from .tasks import TASKS, LaunchTask

if TYPE_CHECKING:
    from aiida_mlpotential.data.structures import StructureSetData


@click.group('launch', cls=params.ProfileGroup)
def launch() -> None:
    """Launch calculations."""


def _options(task: LaunchTask) -> list[Callable[[Command], Command]]:
    """Return the options and the argument of the command of a task, in the order of its help."""
    return [
        click.argument('file', required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.option(
            '--continue',
            'parent',
            metavar='PK',
            help='In place of FILE: go on with a calculation that ended early, with the same inputs and what it has '
            'done.',
        ),
        params.MODEL,
        params.CODE,
        click.option(
            '-i', '--index', default=':', help='Frames of the file, as ASE writes it: `0`, `-10:`. [default: all, `:`]'
        ),
        click.option(
            '-f', '--format', 'file_format', help='Format, as ASE calls it. [default: by the name of the file]'
        ),
        *(WORKFLOW_OPTIONS if task.workflow else ()),
        parameter_options(task.name),
        click.option('-D', '--daemon', is_flag=True, help='Submit to the daemon instead of waiting for the results.'),
        click.option(
            '-o', '--output', type=click.Path(path_type=Path), help='Also write an extended XYZ file. [default: none]'
        ),
        click.option('--overwrite', is_flag=True, help='Replace the file of --output if there is one.'),
        click.option('-w', '--max-wallclock-seconds', type=click.IntRange(min=1), help='Time limit for the scheduler.'),
        click.option('-q', '--queue', 'queue_name', help='Queue or partition of the scheduler.'),
        click.option('--account', help='Account that the scheduler charges.'),
    ]


def _make_command(task: LaunchTask) -> click.Command:
    """Return the command of a task: all have the same options beside those for its own parameters."""

    @click.pass_context
    @params.with_profile
    def command(context: click.Context, file: Path | None, parent: str | None, **arguments: Any) -> None:
        _launch(context, task, file, parent, arguments)

    decorated: Command = command
    for option in reversed(_options(task)):
        decorated = option(decorated)
    return launch.command(task.command, help=task.help)(decorated)


def _launch(
    context: click.Context, task: LaunchTask, file: Path | None, parent: str | None, arguments: dict[str, Any]
) -> None:
    """Check what was given on the command line, and run or submit the calculation."""
    parameters = collect_parameters(arguments, task.name)
    options = scheduler_options(arguments)
    daemon, output = arguments['daemon'], arguments['output']
    if daemon and output is not None:
        raise click.UsageError('--output needs the results, for which --daemon does not wait.')
    if daemon:
        running.check_daemon()
    if output is not None:
        check_output(output, file, arguments['overwrite'])
    if parent is not None:
        _refuse_with_continue(context)
        if arguments.get('optimize'):
            raise click.UsageError('--optimize begins with a FILE: leave out --continue.')
        calculation = resume.load_calculation(parent, task)
        inputs = resume.make_inputs(calculation, task, parameters, options)
        structures = resume.structures_of(calculation)
    elif file is not None:
        structures = read_structures(file, arguments['index'], arguments['file_format'])
        model = find_model(arguments['model'])
        code = codes.find_code(arguments['code'], model.backend_name)
        inputs = make_inputs(file, structures, model, parameters)
        inputs.update(code=code, metadata={'label': file.name, 'options': options})
    else:
        raise click.UsageError('name a FILE of structures, or a calculation with --continue.')
    reports.warn_of_trust(inputs['model'])
    if arguments.get('optimize'):
        launch_minima(inputs, structures, arguments, task.format_results)
    elif daemon:
        _submit(task, inputs)
    else:
        _run(task, inputs, structures, output)


def _refuse_with_continue(context: click.Context) -> None:
    """Raise if something was given that a continued calculation has from the earlier one."""
    fixed = {'file': 'FILE', 'model': '--model', 'code': '--code', 'index': '--index', 'file_format': '--format'}
    given = [
        text
        for name, text in fixed.items()
        if context.params.get(name) is not None
        and context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(f'--continue takes it from the earlier calculation: leave out {", ".join(given)}.')


def _submit(task: LaunchTask, inputs: dict[str, Any]) -> None:
    node = running.submit_to_daemon(task.process_class(), inputs)
    running.say_submitted(node, f', and read its numbers with `verdi calcjob res {node.pk}` when it has ended')


def _run(task: LaunchTask, inputs: dict[str, Any], structures: StructureSetData, output: Path | None) -> None:
    from aiida.engine import run_get_node

    process = task.process_class()
    with Steps().step(f'{reports.count(len(structures))} with {inputs["model"].name}') as step:
        try:
            _, node = run_get_node(process, inputs)
        except ValueError as exception:  # an input that the calculation refuses
            raise click.ClickException(first_line(exception)) from exception
        reports.show_outcome(step, node)
    if 'results' in node.outputs:
        results = node.outputs.results
        click.echo(task.format_results(results, structures, node))
        for note in reports.notes_of(node):
            click.echo(f'Note: {note}.')
        if output is not None:
            write_output(results, task.structures_to_write(results, structures, node), output)
    reports.fail_unless_finished(node)


for _task in TASKS.values():
    _make_command(_task)
for _command in (reaction, screening):
    launch.add_command(_command)
