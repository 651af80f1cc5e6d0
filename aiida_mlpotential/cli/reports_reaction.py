"""What a terminal shows of a reaction: its energies with their spread at every temperature, and its species."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from aiida_mlpotential.data.reactions import SYMBOLS
from aiida_mlpotential.worker.units import HARTREE, KCAL_PER_MOL

from .tables import format_table


def format_reaction(reaction: Mapping[str, Any]) -> str:
    """Return the species and the energies of a reaction as tables.

    :param reaction: the content of the output ``reaction`` of the workflow
    """
    lines = ['', f'{reaction["equation"]} with {reaction["model_name"]}:', '', _species_table(reaction), '']
    lines += [_quantities_table(reaction), '']
    gibbs = reaction['quantities']['gibbs_energy']
    text = f'{gibbs["value"][0] / KCAL_PER_MOL:+.2f}'
    if gibbs['std'] is not None:
        text += f' ± {gibbs["std"][0] / KCAL_PER_MOL:.2f}'
    where = f'{reaction["temperatures"][0]:g} K and {reaction["gas_pressure"] / 1e5:g} bar'
    lines.append(f'Reaction Gibbs energy at {where}: ' + click.style(f'{text} kcal/mol', bold=True))
    if gibbs['std'] is not None:
        separate = gibbs['std_if_independent'][0] / KCAL_PER_MOL
        lines += [
            '',
            f'± is the sample standard deviation of {reaction["n_members"]} values, one for each member.',
            f'The deviations of the species, combined as if independent, give {separate:.2f} kcal/mol.',
        ]
    return '\n'.join(lines)


def _species_table(reaction: Mapping[str, Any]) -> str:
    coefficients = reaction['stoichiometry']
    rows = []
    for name, item in reaction['species'].items():
        lowest = item['lowest_frequency']
        rows.append(
            [
                f'{coefficients[name]:+g}',
                name,
                f'{item["energy"] / HARTREE:.8f}',
                f'{item["zero_point_energy"] / KCAL_PER_MOL:.2f}',
                f'{item["gibbs_energies"][0] / HARTREE:.8f}',
                item['point_group'] or '',
                str(item['symmetry_number']),
                str(item['spin_multiplicity']),
                '' if lowest is None else f'{lowest:.1f}',
            ]
        )
    headers = [
        '',
        'species',
        'E (Hartree)',
        'ZPE (kcal/mol)',
        'G (Hartree)',
        'group',
        'symmetry',
        '2S+1',
        'lowest (cm⁻¹)',
    ]
    return format_table(rows, headers, right=(0, 2, 3, 4, 6, 7, 8))


def _quantities_table(reaction: Mapping[str, Any]) -> str:
    """Return a row for each temperature, a column for each quantity, kcal/mol."""
    quantities = {name: reaction['quantities'][name] for name in SYMBOLS}
    rows = []
    for column, temperature in enumerate(reaction['temperatures']):
        cells = [_cell(item['value'][column], item['std'] and item['std'][column]) for item in quantities.values()]
        rows.append([f'{temperature:g}', *cells])
    headers = ['T (K)', *(item['symbol'] for item in quantities.values())]
    return f'In kcal/mol:\n{format_table(rows, headers, right=range(len(headers)))}'


def _cell(value: float, std: float | None) -> str:
    text = f'{value / KCAL_PER_MOL:+.2f}'
    return text if std is None else f'{text} ± {std / KCAL_PER_MOL:.2f}'
