"""What a terminal shows of a calculation: a table of results, a summary, and why it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import numpy as np

from .tables import format_table

if TYPE_CHECKING:
    from aiida.orm import ProcessNode

    from aiida_mlpotential.data.frame_result import FrameResult
    from aiida_mlpotential.data.results import ResultsData
    from aiida_mlpotential.data.structures import StructureSetData

    from .progress import Step

#: At most so many structures are printed.
MAX_ROWS = 20


def format_results(results: ResultsData, structures: StructureSetData) -> str:
    """Return the first results as a table, and a summary of all."""
    from aiida_mlpotential.data.formulas import formulas_of

    shown = range(min(len(results), MAX_ROWS))
    formulas, _ = formulas_of(structures.get_frames().select(shown))
    rows = [
        {'#': str(index), 'label': '', 'formula': formulas[index], **_cells(results.frame(index))} for index in shown
    ]
    for row, label in zip(rows, structures.labels, strict=False):
        row['label'] = label
    # A column in which no structure has anything says nothing.
    headers = [name for name in rows[0] if any(row[name] for row in rows)]
    numbers = [index for index, name in enumerate(headers) if name not in ('label', 'formula', 'status')]
    lines = ['', format_table([[row[name] for name in headers] for row in rows], headers, right=numbers)]
    if len(results) > MAX_ROWS:
        lines.append(f'... and {len(results) - MAX_ROWS} more')
    return '\n'.join([*lines, '', summarise(results)])


def _cells(frame: FrameResult) -> dict[str, str]:
    status = frame.status.name
    return {
        'energy (eV)': _number(frame.energy, 6),
        'std (meV)': _number(frame.energy_std, 3, 1000),
        'std/√atoms (meV)': _number(frame.qbc, 3, 1000),
        'max force (eV/Å)': _number(frame.max_force, 4),
        'status': f'{status}: {frame.message}' if frame.message else status,
    }


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return '' if value is None or not np.isfinite(value) else f'{factor * value:.{digits}f}'


def summarise(results: ResultsData) -> str:
    """Return the numbers of structures, the extremes of energy and spread, and the node that has them all."""
    attributes: dict[str, Any] = results.base.attributes.all
    text = f'{results.n_ok} of {len(results)} structures evaluated'
    for name, number in (('failed', results.n_failed), ('not reached', results.n_pending)):
        text += f', {number} {name}' if number else ''
    if results.n_ok > 1:
        text += f'; energies from {attributes["energy_min"]:.6f} to {attributes["energy_max"]:.6f} eV'
        if attributes.get('energy_std_mean') is not None:
            mean, largest = 1000 * attributes['energy_std_mean'], 1000 * attributes['energy_std_max']
            text += f'; std {mean:.3f} meV on average, {largest:.3f} meV at most'
    return f'{text}.\nAll arrays are in ResultsData<{results.pk}>: `verdi node show {results.pk}`.'


def show_outcome(step: Step, node: ProcessNode) -> None:
    """Let a step of the progress say how a calculation ended."""
    step.good = node.is_finished_ok
    step.result = f'{node.process_label}<{node.pk}> {"finished" if step.good else "failed"}'


def fail_unless_finished(node: ProcessNode) -> None:
    """End the command with exit code 1 and the exit message of a calculation, unless it succeeded."""
    if node.is_finished_ok:
        return
    state = (
        f'exit code {node.exit_status}' if node.is_finished else str(getattr(node.process_state, 'value', 'unknown'))
    )
    message = node.exit_message or node.exception or 'there is no message'
    raise click.ClickException(
        f'{node.process_label}<{node.pk}> failed ({state}): {message}\n'
        f'See also its log: `verdi process report {node.pk}`.'
    )
