"""What a terminal shows of a geometry optimization: energies, how far they went down, steps and statuses."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from aiida_mlpotential.worker.units import KCAL_PER_MOL

from .reports import (
    FACTORS,
    MAX_ROWS,
    count,
    format_number,
    format_rows,
    others,
    spread_unit,
    status_name,
    warn_of_spread,
    where,
)

if TYPE_CHECKING:
    from aiida.orm import ProcessNode, StructureData

    from aiida_mlpotential.data.results import ResultsData
    from aiida_mlpotential.data.structures import StructureSetData
    from aiida_mlpotential.worker.frames import Frames


def format_results(results: ResultsData, structures: StructureSetData, node: ProcessNode) -> str:
    """Return the first end points as a table, and a summary of all."""
    shown = range(min(len(results), MAX_ROWS))
    energies, initial, steps = results.energies, results.get_array('initial_energies'), results.get_array('steps')
    stds, forces = results.energy_std, results.max_forces()
    unit = spread_unit([] if stds is None else stds[: len(shown)])
    cells = [
        {
            'energy (eV)': format_number(energies[index], 6),
            'change (kcal/mol)': format_number(energies[index] - initial[index], 3, 1 / KCAL_PER_MOL),
            'steps': str(steps[index]) if steps[index] >= 0 else '',
            'max force (eV/Å)': '' if forces is None else format_number(forces[index], 5),
            f'std ({unit})': '' if stds is None else format_number(stds[index], 3, FACTORS[unit]),
            'status': 'CONVERGED' if results.status[index] == 0 else status_name(results, index),
        }
        for index in shown
    ]
    return f'{format_rows(results, structures, cells)}\n\n{summarise(results, node)}'


def summarise(results: ResultsData, node: ProcessNode) -> str:
    """Return how many structures converged in how many steps, and where everything is."""
    steps = results.get_array('steps')
    done = results.status == 0
    text = f'{results.n_ok} of {count(len(results))} converged{others(results)}'
    if results.n_ok > 1:
        energies = results.energies[done]
        text += (
            f'; {steps[done].min()} to {steps[done].max()} steps, {steps[done].mean():.1f} on average; '
            f'energies from {energies.min():.6f} to {energies.max():.6f} eV'
        )
    lines = [f'{text}.', *warn_of_spread(results)]
    lines += [f'The geometries at the end are in {type(end).__name__}<{end.pk}>.' for end in end_points(node)]
    return '\n'.join([*lines, where(results)])


def end_points(node: ProcessNode) -> list[StructureData | StructureSetData]:
    """Return the node with the geometries at the end, if there is one."""
    return [node.outputs[name] for name in ('output_structure', 'output_structures') if name in node.outputs]


def optimized(_: ResultsData, structures: StructureSetData, node: ProcessNode) -> Frames:
    """Return the structures at the end of an optimization; those without an end point are as they were."""
    from aiida_mlpotential.data.structures import to_frames

    found = end_points(node)
    return dataclasses.replace(to_frames(found[0]) if found else structures.get_frames(), labels=structures.labels)
