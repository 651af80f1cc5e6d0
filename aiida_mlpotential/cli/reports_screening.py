"""What a terminal shows of a screening: the structures of lowest energy, and what is flagged and selected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiida_mlpotential.worker.errors import FrameStatus

from .reports import FACTORS, MAX_ROWS, count, format_number, others
from .tables import format_table

if TYPE_CHECKING:
    from aiida.orm import ArrayData, ProcessNode

    from aiida_mlpotential.data.structures import StructureSetData

_MEV = FACTORS['meV']


def format_screening(node: ProcessNode, models: Sequence[str]) -> str:
    """Return the ranking of a screening as a table, and a line for each thing that it made.

    :param node: the workflow, of which some model has results
    :param models: the labels of the models, in the order of the command line
    """
    outputs = node.outputs
    there = [label for label in models if label in outputs.results]
    structures = outputs.output_structures if 'output_structures' in outputs else node.inputs.structures
    lines = ['', format_ranking(outputs.ranking, structures, there), '']
    for label in there:
        results = outputs.results[label]
        name = results.base.attributes.get('model_name')
        done = f'{results.n_ok} of {count(len(results))} evaluated{others(results)}'
        lines.append(f'{name}: {done}; all numbers are in {type(results).__name__}<{results.pk}>.')
    limit = outputs.ranking.base.attributes.get('max_qbc')
    if limit is not None:
        flagged = outputs.ranking.base.attributes.get('n_flagged')
        lines.append(f'{count(flagged)} flagged (*): std/√atoms above {_MEV * limit:.1f} meV.')
    if 'output_structures' in outputs:
        lines.append(f'Optimized structures: {type(structures).__name__}<{structures.pk}>.')
    if 'selected_structures' in outputs:
        selected = outputs.selected_structures
        lines.append(f'{count(len(selected))} for references: {type(selected).__name__}<{selected.pk}>.')
    lines.append(f'Ranking of all structures: {type(outputs.ranking).__name__}<{outputs.ranking.pk}>.')
    return '\n'.join(lines)


def format_ranking(ranking: ArrayData, structures: StructureSetData, models: Sequence[str]) -> str:
    """Return the first structures of the ranking, formula by formula, with the energy above the lowest of it.

    :param models: whose columns are shown, in this order
    """
    rows_of = {label: row for row, label in enumerate(ranking.base.attributes.get('models'))}
    arrays = {name: ranking.get_array(name) for name in ranking.get_arraynames()}
    labels = structures.labels
    rows = []
    for index in arrays['order'][:MAX_ROWS].tolist():
        cells = [str(index), labels[index] if labels else '', str(arrays['formula'][index])]
        for label in models:
            row = rows_of[label]
            cells += [
                format_number(float(arrays[name][row, index]), digits, _MEV)
                for name, digits in (('relative_energy', 1), ('relative_energy_std', 1), ('qbc', 2))
            ]
        statuses = {FrameStatus(int(value)).name for value in arrays['status'][[rows_of[m] for m in models], index]}
        rows.append([*cells, ', '.join(sorted(statuses)) + (' *' if arrays['flagged'][index] else '')])
    table = _without_empty(['#', 'label', 'formula', *_headers(models), 'status'], rows)
    more = len(arrays['order']) - len(rows)
    return table if more <= 0 else f'{table}\n... and {more} more'


def _headers(models: Sequence[str]) -> list[str]:
    """Return the headers of the columns of all models, with their labels where there are several."""
    names = ('ΔE (meV)', 'std (meV)', 'std/√atoms (meV)')
    if len(models) == 1:
        return list(names)
    return [f'{label}: {name}' if number == 0 else name for label in models for number, name in enumerate(names)]


def _without_empty(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of the columns in which some row has something."""
    kept = [column for column in range(len(headers)) if any(row[column] for row in rows)]
    right = [place for place, column in enumerate(kept) if headers[column] == '#' or 'meV' in headers[column]]
    cells = [[row[column] for column in kept] for row in rows]
    return format_table(cells, [headers[column] for column in kept], right=right)
