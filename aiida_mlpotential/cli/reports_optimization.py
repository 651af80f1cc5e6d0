"""What a terminal shows of a geometry optimization: energies, how far they went down, steps and statuses."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from aiida_mlpotential.worker.units import KCAL_PER_MOL

from .reports import (
    FACTORS,
    MAX_ROWS,
    array_of,
    count,
    format_number,
    format_rows,
    others,
    spread_unit,
    status_text,
    warn_of_spread,
    where,
)

if TYPE_CHECKING:
    from aiida.orm import ProcessNode

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
            'status': 'CONVERGED' if results.status[index] == 0 else status_text(results, index),
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
    optimized = [name for name in ('structure', 'structures') if name in node.outputs]
    lines += [
        f'The optimized geometries are in {type(node.outputs[name]).__name__}<{node.outputs[name].pk}>.'
        for name in optimized
    ]
    return '\n'.join([*lines, where(results)])


def optimized(results: ResultsData, structures: StructureSetData) -> Frames:
    """Return the structures at the end of an optimization; those without an end point stay as they were."""
    frames = structures.get_frames()
    positions, cells = results.get_array('positions'), array_of(results, 'cells')
    moved = np.isfinite(positions).all(axis=1, keepdims=True)
    changes = {'positions': np.where(moved, positions, frames.positions)}
    if cells is not None:
        changes['cells'] = np.where(np.isfinite(cells).all(axis=(1, 2), keepdims=True), cells, frames.cells)
    return dataclasses.replace(frames, **changes)
