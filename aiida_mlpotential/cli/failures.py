"""How many structures of a process failed, and why: a line for each model, of calculations and workflows alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiida_mlpotential.data.statistics import format_causes

if TYPE_CHECKING:
    from aiida.orm import ProcessNode

    from aiida_mlpotential.data.results import ResultsData


def results_of(node: ProcessNode) -> dict[str, ResultsData]:
    """Return the results of a process: of a screening by the labels of the models, else the only one, if any."""
    from aiida_mlpotential.data.results import ResultsData

    found: Any = node.outputs.results if 'results' in node.outputs else {}
    if isinstance(found, ResultsData):
        return {'': found}
    return {label: found[label] for label in found} if isinstance(found, Mapping) else {}


def describe_failures(node: ProcessNode) -> list[str]:
    """Return for each model how many structures failed, with the causes and their numbers; nothing where none did."""
    lines = []
    for results in results_of(node).values():
        causes = format_causes(results.base.attributes.get('status_counts', {}))
        if causes:
            name = results.base.attributes.get('model_name', 'the model')
            lines.append(f'{results.n_failed} of {len(results)} failed with {name} ({causes})')
    return [*_unoptimized(node), *lines]


def _unoptimized(node: ProcessNode) -> list[str]:
    """Return a line for what a screening could not optimize, with the causes where its summary names all of them."""
    summary = node.outputs.summary.get_dict() if 'summary' in node.outputs else {}
    number, named = summary.get('n_unoptimized', 0), summary.get('unoptimized', {})
    if not number:
        return []
    causes = format_causes(Counter(named.values())) if len(named) == number else ''
    return [f'{number} of {summary["n_structures"]} not optimized{f" ({causes})" if causes else ""}']
