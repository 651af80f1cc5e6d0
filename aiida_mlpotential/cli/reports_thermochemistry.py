"""What a terminal shows of thermochemistry: the parts of entropy, energy and heat capacity, and the Gibbs energies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aiida_mlpotential.data.normal_modes import POINT_GROUPS
from aiida_mlpotential.worker.parameters import with_defaults
from aiida_mlpotential.worker.units import KCAL_PER_MOL

from .reports import MAX_ROWS, array_of, count, format_number, format_rows, others, status_name, where
from .reports_vibrations import character
from .tables import format_table

if TYPE_CHECKING:
    from aiida.orm import ProcessNode

    from aiida_mlpotential.data.results import ResultsData
    from aiida_mlpotential.data.structures import StructureSetData

#: Of at most so many structures everything is shown; of more, one line.
MAX_DETAILED = 2
_KCAL, _CAL = 1 / KCAL_PER_MOL, 1000 / KCAL_PER_MOL
#: Rows of the table of parts; the electrons have an entropy only.
_PARTS = ('translation', 'rotation', 'vibration', 'electronic')


def parameters_of_node(node: ProcessNode) -> dict[str, Any]:
    """Return all parameters of a calculation, with those left to their default."""
    given = node.inputs.parameters.get_dict() if 'parameters' in node.inputs else {}
    return with_defaults(given, 'thermochemistry')


def format_results(results: ResultsData, structures: StructureSetData, node: ProcessNode) -> str:
    """Return the first structures as a table, all about the first few, and a summary."""
    parameters = parameters_of_node(node)
    shown = range(min(len(results), MAX_ROWS))
    lines = [format_rows(results, structures, [_cells(results, index) for index in shown])]
    lines += ['', f'H and G at {conditions(parameters)}; both have E and the zero-point energy in them.']
    if len(results) <= MAX_DETAILED:
        frames = structures.get_frames()
        for index in shown:
            lines += details(results, index, frames.label(index), parameters)
    lines += ['', f'{results.n_ok} of {count(len(results))} computed{others(results)}.', where(results)]
    return '\n'.join(lines)


def conditions(parameters: Mapping[str, Any], which: int = 0) -> str:
    """Return temperature and pressure in words."""
    return f'{parameters["temperatures"][which]:g} K and {parameters["gas_pressure"] / 1e5:g} bar'


def _cells(results: ResultsData, index: int) -> dict[str, str]:
    spread = array_of(results, 'gibbs_energy_std')
    return {
        'E (eV)': format_number(results.energies[index], 6),
        'ZPE (kcal/mol)': format_number(results.get_array('zero_point_energies')[index], 3, _KCAL),
        'H (eV)': format_number(results.get_array('enthalpies')[index, 0], 6),
        'G (eV)': format_number(results.get_array('gibbs_energies')[index, 0], 6),
        'std of G (kcal/mol)': '' if spread is None else format_number(spread[index, 0], 3, _KCAL),
        'quasi-RRHO G (eV)': format_number(results.get_array('gibbs_energies_quasi_rrho')[index, 0], 6),
        'character': character(results, index),
        'status': status_name(results, index),
    }


def details(results: ResultsData, index: int, name: str, parameters: Mapping[str, Any]) -> list[str]:
    """Return the parts at the first temperature, and the totals at each."""
    if not np.isfinite(results.get_array('gibbs_energies')[index, 0]):
        return []
    symmetry, groups = int(results.get_array('symmetry_numbers')[index]), array_of(results, POINT_GROUPS)
    group = '' if groups is None else f'point group {groups[index]}, '
    title = f'{name} at {conditions(parameters)}, {group}symmetry number {symmetry}:'
    return ['', title, parts_table(results, index), '', totals_table(results, index, parameters['temperatures'])]


def parts_table(results: ResultsData, index: int) -> str:
    """Return thermal energy, entropy and heat capacity of a structure by kind of motion, at the first temperature."""

    def value(prefix: str, part: str, factor: float) -> str:
        values = array_of(results, f'{prefix}_{part}')
        return '' if values is None else format_number(values[index, 0], 3, factor)

    rows = [
        [part, value('internal_energy', part, _KCAL), value('entropy', part, _CAL), value('heat_capacity', part, _CAL)]
        for part in _PARTS
    ]
    thermal = sum(results.get_array(f'internal_energy_{part}')[index, 0] for part in _PARTS[:3])
    totals = (
        format_number(thermal, 3, _KCAL),
        format_number(results.get_array('entropies')[index, 0], 3, _CAL),
        format_number(results.get_array('heat_capacities')[index, 0], 3, _CAL),
    )
    headers = ['', 'U - E - ZPE (kcal/mol)', 'S (cal/(mol K))', 'Cv (cal/(mol K))']
    return format_table([*rows, ['total', *totals]], headers, right=(1, 2, 3))


def totals_table(results: ResultsData, index: int, temperatures: list[float]) -> str:
    """Return what is added to the energy of a structure to get U, H and G, at each temperature, kcal/mol."""
    energy = results.energies[index]
    rows = []
    for column, temperature in enumerate(temperatures):
        entropy = results.get_array('entropies')[index, column]
        values = (
            results.get_array('internal_energies')[index, column] - energy,
            results.get_array('enthalpies')[index, column] - energy,
            temperature * entropy,
            results.get_array('gibbs_energies')[index, column] - energy,
            results.get_array('gibbs_energies_quasi_rrho')[index, column] - energy,
        )
        spread = array_of(results, 'gibbs_energy_std')
        std = '' if spread is None else format_number(spread[index, column], 3, _KCAL)
        rows.append([f'{temperature:g}', *(format_number(value, 3, _KCAL) for value in values), std])
    headers = ['T (K)', 'U - E', 'H - E', 'TS', 'G - E', 'quasi-RRHO', 'std of G']
    if not rows or not rows[0][-1]:
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    zero_point = format_number(results.get_array('zero_point_energies')[index], 3, _KCAL)
    table = format_table(rows, headers, right=range(len(headers)))
    return f'In kcal/mol, with a zero-point energy of {zero_point}:\n{table}'
