"""What a terminal shows of a vibrational analysis: the character of each stationary point, and its frequencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aiida_mlpotential.data.modes import character as kind_of_point
from aiida_mlpotential.worker.units import KCAL_PER_MOL

from .reports import MAX_ROWS, array_of, count, format_number, format_rows, others, status_name, where
from .tables import format_columns

if TYPE_CHECKING:
    from aiida.orm import ProcessNode

    from aiida_mlpotential.data.results import ResultsData
    from aiida_mlpotential.data.structures import StructureSetData

    from .reports import Array

#: The frequencies are listed of at most so many structures; of more, the table has the lowest and the highest.
MAX_LISTED = 3


def format_results(results: ResultsData, structures: StructureSetData, _: ProcessNode | None = None) -> str:
    """Return the first structures as a table, the frequencies of the first few, and a summary of all."""
    shown = range(min(len(results), MAX_ROWS))
    cells = [vibration_cells(results, index) for index in shown]
    lines = [format_rows(results, structures, cells)]
    if len(results) <= MAX_LISTED:
        for index in shown:
            name = structures.get_frames().label(index) if len(results) > 1 else ''
            lines += frequency_lines(results, index, name)
    lines += ['', f'{results.n_ok} of {count(len(results))} analysed{others(results)}.', where(results)]
    return '\n'.join(lines)


def vibration_cells(results: ResultsData, index: int) -> dict[str, str]:
    """Return what the table says of a structure."""
    frequencies = vibrations_of(results, index)
    real = frequencies[frequencies > 0]
    return {
        'energy (eV)': format_number(results.energies[index], 6),
        'ZPE (kcal/mol)': format_number(results.get_array('zero_point_energies')[index], 3, 1 / KCAL_PER_MOL),
        'character': character(results, index),
        'lowest (cm⁻¹)': f'{real[0]:.1f}' if len(real) else '',
        'highest (cm⁻¹)': f'{real[-1]:.1f}' if len(real) else '',
        'status': status_name(results, index),
    }


def character(results: ResultsData, index: int) -> str:
    """Return what kind of point of the energy surface a structure is at."""
    imaginary = int(results.get_array('n_imaginary')[index])
    if imaginary < 0:  # no result
        return ''
    return kind_of_point(imaginary, bool(results.get_array('stationary')[index] == 1))


def vibrations_of(results: ResultsData, index: int, name: str = 'frequencies') -> Array:
    """Return the values of the modes of a structure without translations and rotations; none if it has no result.

    :param name: an array with a value for each mode
    """
    n_rigid = int(results.get_array('n_rigid')[index])
    if n_rigid < 0:
        return np.zeros(0)
    start, stop = (3 * int(value) for value in results.offsets[index : index + 2])
    values: Array = results.get_array(name)[start + n_rigid : stop]
    return values


def frequency_lines(results: ResultsData, index: int, name: str = '') -> list[str]:
    """Return the frequencies of a structure, several on a line, with their spread over the members."""
    frequencies = vibrations_of(results, index)
    if not len(frequencies):
        return []
    spreads = vibrations_of(results, index, 'frequency_std') if array_of(results, 'frequency_std') is not None else None
    title = f'Frequencies{f" of {name}" if name else ""} (cm⁻¹{"" if spreads is None else " ± spread over the members"}'
    return ['', f'{title}; i: imaginary):', format_columns(frequency_texts(frequencies, spreads))]


def frequency_texts(frequencies: Array, spreads: Array | None = None) -> list[str]:
    """Return frequencies as texts of equal length; imaginary ones, which are negative, with an i."""
    texts = [f'{abs(value):7.1f}{"i" if value < 0 else " "}' for value in frequencies]
    if spreads is None:
        return texts
    return [f'{text}± {_spread(spread):<5}' for text, spread in zip(texts, spreads, strict=True)]


def _spread(value: float) -> str:
    return f'{value:.1f}' if np.isfinite(value) else '-'
