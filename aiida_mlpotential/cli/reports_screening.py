"""What a terminal shows of a screening: the structures of lowest energy, and what is flagged and selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aiida_mlpotential.worker.errors import FrameStatus

from .reports import FACTORS, MAX_ROWS, count, failure_lines, format_number, others
from .tables import format_table

if TYPE_CHECKING:
    from aiida.orm import ArrayData, ProcessNode

    from aiida_mlpotential.data.results import ResultsData
    from aiida_mlpotential.data.structures import StructureSetData

    Array = npt.NDArray[Any]

_MEV = FACTORS['meV']


def format_screening(node: ProcessNode, models: Sequence[str]) -> str:
    """Return the ranking of a screening as a table, and a line for each thing that it made.

    :param node: the workflow, of which some model has results
    :param models: the labels of the models, in the order of the command line
    """
    outputs = node.outputs
    there = [label for label in models if label in outputs.results]
    structures = outputs.output_structures if 'output_structures' in outputs else node.inputs.structures
    names = _names({label: outputs.results[label] for label in there})
    lines = ['', format_ranking(outputs.ranking, structures, names)]
    for label in there:
        failed = failure_lines(outputs.results[label], structures)
        lines += [f'{names[label]} {line}' if line and len(there) > 1 else line for line in failed]
    lines.append('')
    for label in there:
        results = outputs.results[label]
        done = f'{results.n_ok} of {count(len(results))} evaluated{others(results)}'
        where = f'{type(results).__name__}<{results.pk}> (`outputs.results.{label}`)'
        lines.append(f'{names[label]}: {done}; all numbers are in {where}.')
    lines += _reused(outputs.summary.get_dict() if 'summary' in outputs else {})
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


def _names(results: Mapping[str, ResultsData]) -> dict[str, str]:
    """Return the names of the models by their labels, which stand for names that two models share."""
    names = {label: str(node.base.attributes.get('model_name', label)) for label, node in results.items()}
    shared = [name for name in names.values() if list(names.values()).count(name) > 1]
    return {label: label if name in shared else name for label, name in names.items()}


def _reused(summary: Mapping[str, Any]) -> list[str]:
    """Return a line about what was there already, if anything was."""
    slices = summary.get('slices', {})
    reused, total = slices.get('reused_slices', 0), slices.get('slices', 0)
    if not reused:
        return []
    return [f'{reused} of {total} slice{"" if total == 1 else "s"} taken from the database.']


def format_ranking(ranking: ArrayData, structures: StructureSetData, models: Mapping[str, str]) -> str:
    """Return the first structures, formula by formula, with the energy above the lowest of it by the first model.

    :param models: names of the models whose columns are shown, in this order, by their labels
    """
    rows_of = {label: row for row, label in enumerate(ranking.base.attributes.get('models'))}
    arrays = {name: ranking.get_array(name) for name in ranking.get_arraynames()}
    labels = structures.labels
    rows = []
    for index in _shown(_order(arrays, rows_of[next(iter(models))]), arrays['formula']).tolist():
        cells = [str(index), labels[index] if labels else '', str(arrays['formula'][index])]
        for label in models:
            row = rows_of[label]
            cells += [
                format_number(float(arrays[name][row, index]), digits, _MEV)
                for name, digits in (('relative_energy', 1), ('relative_energy_std', 1), ('qbc', 2))
            ]
        statuses = {FrameStatus(int(value)).name for value in arrays['status'][[rows_of[m] for m in models], index]}
        rows.append([*cells, ', '.join(sorted(statuses)) + (' *' if arrays['flagged'][index] else '')])
    table = _without_empty(['#', 'label', 'formula', *_headers(list(models.values())), 'status'], rows)
    more = len(arrays['order']) - len(rows)
    return table if more <= 0 else f'{table}\n... and {more} more'


def _order(arrays: Mapping[str, Any], row: int) -> Array:
    """Return the structures by formula, in the order that the ranking has those, and by the energy of one model."""
    order, energies = arrays['order'], arrays['relative_energy'][row]
    _, first, groups = np.unique(arrays['formula'][order], return_index=True, return_inverse=True)
    values = energies[order]
    return np.asarray(order[np.lexsort((values, first[groups.reshape(-1)], ~np.isfinite(values)))])


def _shown(order: Array, formulas: Array) -> Array:
    """Return those of the structures that are shown: where there are too many, as many of each formula.

    :param order: all structures, formula by formula
    :param formulas: of all structures, by their numbers
    """
    if len(order) <= MAX_ROWS:
        return order
    _, groups, counts = np.unique(formulas[order], return_inverse=True, return_counts=True)
    groups = groups.reshape(-1)
    by_group = np.argsort(groups, kind='stable')
    place = np.empty(len(order), dtype=np.int64)  # of each structure among those of its formula
    place[by_group] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(order[place < max(MAX_ROWS // len(counts), 1)][:MAX_ROWS])


def _headers(names: Sequence[str]) -> list[str]:
    """Return the headers of the columns of all models, with a line for their names where there are several."""
    above = [f'{name}\n' for name in names] if len(names) > 1 else ['']
    quantities = ('ΔE (meV)', 'std (meV)', 'std/√atoms (meV)')
    return [f'{name}{text}' for name in above for text in quantities]


def _without_empty(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of the columns in which some row has something."""
    kept = [column for column in range(len(headers)) if any(row[column] for row in rows)]
    right = [place for place, column in enumerate(kept) if headers[column] == '#' or 'meV' in headers[column]]
    cells = [[row[column] for column in kept] for row in rows]
    return format_table(cells, [headers[column] for column in kept], right=right)
