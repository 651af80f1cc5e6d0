"""What a terminal shows of a calculation: a table of results, a summary, and why it failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from aiida_mlpotential.worker.errors import EXIT_CODES, FrameStatus

from .tables import format_table
from .tasks import TASKS, task_of

if TYPE_CHECKING:
    from aiida.orm import ProcessNode

    from aiida_mlpotential.data.frame_result import FrameResult
    from aiida_mlpotential.data.model import ModelData
    from aiida_mlpotential.data.results import ResultsData
    from aiida_mlpotential.data.structures import StructureSetData

    from .progress import Step

    Array = npt.NDArray[Any]

#: At most so many structures are printed.
MAX_ROWS = 20
#: At most so many arrays are named.
MAX_NAMES = 12
#: Spread over √atoms (eV) above which structures were chosen for new reference calculations, 0.23 kcal/mol: Smith et
#: al., J. Chem. Phys. 148 (2018) 241733, doi:10.1063/1.5023802.
SPREAD_THRESHOLD = 0.010
#: A spread (eV) from which on it is shown in eV, not in meV.
_LARGE_SPREAD = 1.0
FACTORS = {'eV': 1.0, 'meV': 1000.0}
#: Headers of the columns that hold texts.
TEXTS = ('label', 'formula', 'character', 'status')
_STATUS = {code.label: code.status for code in EXIT_CODES}
#: The exit code that the table of results explains.
_SOME_FAILED = _STATUS['ERROR_SOME_STRUCTURES_FAILED']
_NOT_CONVERGED = _STATUS['ERROR_NOT_CONVERGED']
#: Exit codes with which there are results, though perhaps of no structure that is done.
_UNFINISHED = (_NOT_CONVERGED, _STATUS['ERROR_WRONG_CHARACTER'], _STATUS['ERROR_INCOMPLETE'])
#: What the worker calls a parameter, and the command line an option.
_OPTIONS = {
    'set device_fallback': 'add --device-fallback',
    'set `reorder_atoms`': 'add --reorder-atoms',
    'set precision to ': 'add --precision ',
    'continue it with `parent_folder`': 'what is done is kept',
    'go on from it with `parent_folder`': 'go on from it with --continue',
}


def format_results(results: ResultsData, structures: StructureSetData, _: ProcessNode | None = None) -> str:
    """Return the first results of single points as a table, and a summary of all."""
    frames = [results.frame(index) for index in range(min(len(results), MAX_ROWS))]
    unit = spread_unit(frame.energy_std for frame in frames)
    table = format_rows(results, structures, [_cells(frame, unit) for frame in frames])
    return f'{table}\n\n{summarise(results)}'


def format_rows(results: ResultsData, structures: StructureSetData, cells: Sequence[Mapping[str, str]]) -> str:
    """Return the table of the first structures: number, label and formula of each, before what else there is to say.

    What failed is said below it, also of structures that the table leaves out: a sentence would make it too wide.

    :param cells: by header, one mapping for each structure that is shown; the status stands last
    """
    from aiida_mlpotential.data.formulas import formulas_of

    formulas, _ = formulas_of(structures.get_frames().select(range(len(cells))))
    labels = structures.labels or [''] * len(cells)
    rows = [
        {'#': str(index), 'label': labels[index], 'formula': formulas[index], **cells[index]}
        for index in range(len(cells))
    ]
    # A column in which no structure has anything says nothing.
    headers = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    numbers = [index for index, name in enumerate(headers) if name not in TEXTS]
    lines = ['', format_table([[row[name] for name in headers] for row in rows], headers, right=numbers)]
    if len(results) > len(cells):
        lines.append(f'... and {len(results) - len(cells)} more')
    return '\n'.join([*lines, *failure_lines(results, structures)])


def failure_lines(results: ResultsData, structures: StructureSetData) -> list[str]:
    """Return a line for each of the first structures that failed: which one, its status and the reason."""
    failed = np.flatnonzero(np.asarray(results.status) > FrameStatus.PENDING)
    lines = []
    for index in failed[:MAX_ROWS]:
        frame = results.frame(int(index))
        name = ' '.join(part for part in (f'#{index}', structures.labels[index] if structures.labels else '') if part)
        lines.append(with_options(': '.join(part for part in (name, frame.status.name, frame.message) if part)))
    if len(failed) > len(lines):
        lines.append(f'... and {len(failed) - len(lines)} more failed')
    return ['', *lines] if lines else []


def status_name(results: ResultsData, index: int) -> str:
    """Return the status of a structure as the tables have it."""
    return str(results.frame(index).status.name)


def array_of(results: ResultsData, name: str) -> Array | None:
    """Return an array of the results, or ``None`` if they do not have it."""
    return results.get_array(name) if name in results.get_arraynames() else None


def spread_unit(values: Iterable[float | None]) -> str:
    """Return the unit that suits all of some spreads in eV."""
    large = any(value is not None and np.isfinite(value) and value >= _LARGE_SPREAD for value in values)
    return 'eV' if large else 'meV'


def _cells(frame: FrameResult, unit: str) -> dict[str, str]:
    factor = FACTORS[unit]
    return {
        'energy (eV)': format_number(frame.energy, 6),
        f'std ({unit})': format_number(frame.energy_std, 3, factor),
        f'std/√atoms ({unit})': format_number(frame.qbc, 3, factor),
        'max force (eV/Å)': format_number(frame.max_force, 4),
        'status': frame.status.name,
    }


def with_options(text: str) -> str:
    """Return a message of the worker with the options of the command line in place of parameters."""
    for key, option in _OPTIONS.items():
        text = text.replace(key, option)
    return text


def format_number(value: float | None, digits: int, factor: float = 1.0) -> str:
    """Return a number with so many digits behind the point, or nothing where there is none."""
    return '' if value is None or not np.isfinite(value) else f'{factor * value:.{digits}f}'


def count(number: int) -> str:
    """Return a number of structures in words."""
    return f'{number} structure{"" if number == 1 else "s"}'


def summarise(results: ResultsData) -> str:
    """Return the numbers of structures, the extremes of energy and spread, and the node that has them all."""
    attributes: dict[str, Any] = results.base.attributes.all
    text = f'{results.n_ok} of {count(len(results))} evaluated{others(results)}'
    if results.n_ok > 1:
        text += f'; energies from {attributes["energy_min"]:.6f} to {attributes["energy_max"]:.6f} eV'
        largest = attributes.get('energy_std_max')
        if largest is not None:
            unit = spread_unit([largest])
            mean, largest = (FACTORS[unit] * value for value in (attributes['energy_std_mean'], largest))
            text += f'; std {mean:.3f} {unit} on average, {largest:.3f} {unit} at most'
    return '\n'.join([f'{text}.', *warn_of_spread(results), where(results)])


def where(results: ResultsData) -> str:
    """Return where all numbers are, and how to get them."""
    names = list(results.base.attributes.all['units'])
    more = len(names) - MAX_NAMES
    arrays = ', '.join(names if more <= 0 else [*names[:MAX_NAMES], f'... and {more} more'])
    python = f'in Python `orm.load_node({results.pk}).frame(0)`'
    return (
        f'All arrays are in {type(results).__name__}<{results.pk}>: {arrays}.\n'
        f'Its numbers: `verdi node attributes {results.pk}`; each structure: {python}.'
    )


def others(results: ResultsData) -> str:
    """Return how many structures have no result, and why."""
    numbers = (('failed', results.n_failed), ('not reached', results.n_pending))
    return ''.join(f', {number} {name}' for name, number in numbers if number)


def warn_of_spread(results: ResultsData) -> list[str]:
    """Return a line about the structures of which the model is not certain, if there are any."""
    if results.qbc is None:
        return []
    number = int(np.sum(np.nan_to_num(results.qbc) > SPREAD_THRESHOLD))
    if not number:
        return []
    return [
        f'{count(number)} with std/√atoms above {1000 * SPREAD_THRESHOLD:.0f} meV, at which the authors of the ANI '
        'models saw a need for more training data: see Uncertainty in the documentation.'
    ]


def notes_of(node: ProcessNode) -> list[str]:
    """Return what the worker found worth noting about a calculation."""
    if 'output_parameters' not in node.outputs:
        return []
    return [with_options(str(note)).rstrip('.') for note in node.outputs.output_parameters.get_dict().get('notes', [])]


def warn_of_trust(model: ModelData) -> None:
    """Say that the files of a model may run code, where somebody allowed that."""
    if model.trusted:
        reason = f': {model.trust_reason}' if model.trust_reason else ''
        click.echo(f'Note: {model.name} is trusted, its files may run code on the computer of the job{reason}.')


def show_outcome(step: Step, node: ProcessNode) -> None:
    """Let a step of the progress say how a calculation ended."""
    results = _results_of(node)
    step.result = f'{node.process_label}<{node.pk}> finished'
    if node.is_finished_ok:
        return
    step.state = 'failed'
    step.result = f'{node.process_label}<{node.pk}> failed'
    if results is not None and (results.n_ok or node.exit_status in _UNFINISHED):
        step.state = 'partial'
        done = f'{results.n_ok} of {len(results)} {_verb(node)}'
        step.result = f'{node.process_label}<{node.pk}>, {done}{others(results)}'


def _verb(node: ProcessNode) -> str:
    task = task_of(node)
    return 'evaluated' if task is None else task.done


def _results_of(node: ProcessNode) -> ResultsData | None:
    results: ResultsData | None = node.outputs.results if 'results' in node.outputs else None
    return results


def fail_unless_finished(node: ProcessNode) -> None:
    """End the command with exit code 1 and the exit message of a calculation, unless it succeeded.

    Where some structures failed, and all of them have been listed, everything has been said.
    """
    if node.is_finished_ok:
        return
    results = _results_of(node)
    if node.exit_status == _SOME_FAILED and results is not None and results.n_failed <= MAX_ROWS:
        raise click.exceptions.Exit(1)
    state = (
        f'exit code {node.exit_status}' if node.is_finished else str(getattr(node.process_state, 'value', 'unknown'))
    )
    message = str(node.exit_message or node.exception or 'there is no message').rstrip('.')
    message = with_options(message)
    remedy = ''
    if results is not None and (results.n_pending or node.exit_status == _NOT_CONVERGED):
        task = task_of(node) or TASKS['single_point']
        remedy = f'\nGo on with it: `aiida-mlpotential launch {task.command} --continue {node.pk}`.'
    raise click.ClickException(
        f'{node.process_label}<{node.pk}> failed ({state}): {message}.{remedy}\n'
        f'See also its log: `verdi process report {node.pk}`.'
    )
