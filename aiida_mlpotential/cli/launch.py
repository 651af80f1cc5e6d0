"""``aiida-mlpotential launch``: calculations from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from aiida.cmdline.utils import echo

from aiida_mlpotential.worker.registry import PretrainedModel

from . import codes, params, reports, resume
from .files import check_output, read_structures, single_structure, write_output
from .models import install_model
from .models_show import resolve_model
from .progress import Steps

if TYPE_CHECKING:
    from aiida_mlpotential.data.model import ModelData
    from aiida_mlpotential.data.structures import StructureSetData

#: Command line options that become ``metadata.options`` of the calculation.
_SCHEDULER_OPTIONS = ('max_wallclock_seconds', 'queue_name', 'account')


@click.group('launch', cls=params.ProfileGroup)
def launch() -> None:
    """Launch calculations."""


@launch.command('single-point')
@click.argument('file', required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    '--continue',
    'parent',
    metavar='PK',
    help='In place of FILE: go on with a calculation that ended early, with the same inputs and what it has done.',
)
@params.MODEL
@params.CODE
@click.option(
    '-i', '--index', default=':', help='Frames of the file, as ASE writes it: `0`, `-10:`. [default: all, `:`]'
)
@click.option('-f', '--format', 'file_format', help='Format, as ASE calls it. [default: by the name of the file]')
@params.parameter_options
@click.option('-D', '--daemon', is_flag=True, help='Submit to the daemon instead of waiting for the results.')
@click.option(
    '-o', '--output', type=click.Path(path_type=Path), help='Also write an extended XYZ file. [default: none]'
)
@click.option('--overwrite', is_flag=True, help='Replace the file of --output if there is one.')
@click.option('-w', '--max-wallclock-seconds', type=click.IntRange(min=1), help='Time limit for the scheduler.')
@click.option('-q', '--queue', 'queue_name', help='Queue or partition of the scheduler.')
@click.option('--account', help='Account that the scheduler charges.')
@click.pass_context
@params.with_profile
def single_point(context: click.Context, file: Path | None, parent: str | None, **arguments: Any) -> None:
    """Energies, forces and their spread for the structures of FILE, in any format that ASE reads."""
    parameters = params.collect_parameters(arguments)
    options = {key: arguments[key] for key in _SCHEDULER_OPTIONS if arguments[key] is not None}
    daemon, output = arguments['daemon'], arguments['output']
    if daemon and output is not None:
        raise click.UsageError('--output needs the results, for which --daemon does not wait.')
    if output is not None:
        check_output(output, file, arguments['overwrite'])
    if parent is not None:
        _refuse_with_continue(context)
        calculation = resume.load_calculation(parent)
        inputs, structures = resume.make_inputs(calculation, parameters, options), resume.structures_of(calculation)
    elif file is not None:
        structures = read_structures(file, arguments['index'], arguments['file_format'])
        model = find_model(arguments['model'])
        code = codes.find_code(arguments['code'], model.backend_name)
        inputs = make_inputs(file, structures, model, parameters)
        inputs.update(code=code, metadata={'label': file.name, 'options': options})
    else:
        raise click.UsageError('name a FILE of structures, or a calculation with --continue.')
    reports.warn_of_trust(inputs['model'])
    if daemon:
        _submit(inputs)
    else:
        _run(inputs, structures, output)


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


def find_model(identifier: str) -> ModelData:
    """Return a model by name, installing a published one where the profile has none, or by PK or UUID."""
    from aiida_mlpotential import library

    found = resolve_model(identifier)
    if not isinstance(found, PretrainedModel):
        return found
    return library.find_model(found.name) or install_model(found.name, Steps())


def make_inputs(
    file: Path, structures: StructureSetData, model: ModelData, parameters: dict[str, Any]
) -> dict[str, Any]:
    """Return the inputs of a calculation; one structure becomes a ``StructureData``, which other plugins know too."""
    inputs: dict[str, Any] = {'model': model}
    if len(structures) == 1:
        inputs['structure'] = single_structure(structures, file)
    else:
        inputs['structures'] = structures
    if parameters:
        inputs['parameters'] = parameters
    return inputs


def _submit(inputs: dict[str, Any]) -> None:
    from aiida.common.exceptions import InvalidOperation
    from aiida.engine import submit

    from aiida_mlpotential.calculations.single_point import SinglePointCalculation

    try:
        node = submit(SinglePointCalculation, inputs)
    except ValueError as exception:  # an input that the calculation refuses
        raise click.ClickException(first_line(exception)) from exception
    except (InvalidOperation, ConnectionError) as exception:
        raise click.ClickException(f'{first_line(exception)} Or leave out --daemon.') from exception
    echo.echo_success(f'submitted SinglePointCalculation<{node.pk}> to the daemon.')
    echo.echo(
        f'Follow it with `verdi process status {node.pk}`, and read its numbers with `verdi calcjob res {node.pk}`.'
    )


def _run(inputs: dict[str, Any], structures: StructureSetData, output: Path | None) -> None:
    from aiida.engine import run_get_node

    from aiida_mlpotential.calculations.single_point import SinglePointCalculation

    with Steps().step(f'{reports.count(len(structures))} with {inputs["model"].name}') as step:
        try:
            _, node = run_get_node(SinglePointCalculation, inputs)
        except ValueError as exception:  # an input that the calculation refuses
            raise click.ClickException(first_line(exception)) from exception
        reports.show_outcome(step, node)
    if 'results' in node.outputs:
        click.echo(reports.format_results(node.outputs.results, structures))
        for note in reports.notes_of(node):
            click.echo(f'Note: {note}.')
        if output is not None:
            write_output(node.outputs.results, structures, output)
    reports.fail_unless_finished(node)


def first_line(exception: Exception) -> str:
    """Return what is wrong with an input, without the path through the ports that AiiDA puts before it."""
    text = str(exception).strip()
    if text.startswith('Error occurred validating port'):
        text = text.partition("': ")[2] or text
    return reports.with_options(text.splitlines()[0]) if text else type(exception).__name__
