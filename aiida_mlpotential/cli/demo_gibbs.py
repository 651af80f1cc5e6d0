"""``aiida-mlpotential demo --gibbs``: the Gibbs energy of a reaction, from two jobs: optimization, thermochemistry."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from aiida_mlpotential.worker.ideal_gas import comparable
from aiida_mlpotential.worker.parameters import with_defaults
from aiida_mlpotential.worker.thermochemistry import vibration, zero_point_energy
from aiida_mlpotential.worker.units import HARTREE, KCAL_PER_MOL

from .demo import REFERENCE
from .reaction import ReactionEnergy
from .reports import fail_unless_finished, notes_of, show_outcome
from .reports_vibrations import character, vibrations_of
from .tables import format_table
from .tasks import TASKS

if TYPE_CHECKING:
    from aiida.orm import CalcJobNode, InstalledCode

    from aiida_mlpotential.data.model import ModelData
    from aiida_mlpotential.data.results import ResultsData
    from aiida_mlpotential.data.structures import StructureSetData

    from .progress import Steps
    from .reports import Array

#: A minimum so tight, eV/angstrom, that the lowest modes do not depend on where the optimizer stopped.
FORCE_TOLERANCE = 1e-4
OPTIMIZATION = {'precision': 'double', 'force_tolerance': FORCE_TOLERANCE, 'max_steps': 2000}
TEMPERATURE, PRESSURE = 298.15, 101325.0
THERMOCHEMISTRY = {'precision': 'double', 'temperatures': [TEMPERATURE], 'gas_pressure': PRESSURE}
_KCAL = 1 / KCAL_PER_MOL


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A difference between product and educt, kcal/mol, with its spread over the members where that is known."""

    name: str
    value: float
    std: float | None = None

    @property
    def row(self) -> list[str]:
        """Return the difference and its spread as texts."""
        return [self.name, f'{self.value:+.2f}', '' if self.std is None else f'± {self.std:.2f}']


def run(code: InstalledCode, model: ModelData, structures: StructureSetData, steps: Steps) -> list[CalcJobNode]:
    """Optimize educt and product and compute their thermochemistry; print what came of it.

    :return: the two calculations
    """
    optimization = _calculate('geometry_optimization', code, model, structures, steps)
    optimized = optimization.outputs.output_structures
    thermochemistry = _calculate('thermochemistry', code, model, optimized, steps)
    click.echo(format_results(optimization.outputs.results, thermochemistry.outputs.results, structures.labels))
    for note in notes_of(thermochemistry):
        click.echo(f'Note: {note}.')
    return [optimization, thermochemistry]


def _calculate(
    name: str, code: InstalledCode, model: ModelData, structures: StructureSetData, steps: Steps
) -> CalcJobNode:
    """Run one of the two jobs; one that fails ends the demo with its message."""
    from aiida.engine import run_get_node

    titles = {'geometry_optimization': 'Optimization of both structures', 'thermochemistry': 'Thermochemistry of both'}
    parameters = {'geometry_optimization': OPTIMIZATION, 'thermochemistry': THERMOCHEMISTRY}
    inputs: dict[str, Any] = {
        'code': code,
        'model': model,
        'structures': structures,
        'parameters': parameters[name],
        'metadata': {'label': 'ISOL24 reaction 14'},
    }
    node: Any
    with steps.step(titles[name]) as step:
        _, node = run_get_node(TASKS[name].process_class(), inputs)
        show_outcome(step, node)
    fail_unless_finished(node)
    calculation: CalcJobNode = node
    return calculation


def format_results(optimization: ResultsData, results: ResultsData, labels: tuple[str, ...]) -> str:
    """Return the table of both structures, and that of the reaction with its spread over the members."""
    rows = [_row(optimization, results, index, label) for index, label in enumerate(labels)]
    headers = ['structure', 'E (Hartree)', 'ZPE', 'H - E', 'TS', 'G - E', 'G (Hartree)', 'quasi-RRHO G', 'character']
    quantities = reaction(results)
    reaction_table = format_table([quantity.row for quantity in quantities], ['reaction', 'kcal/mol', ''], right=(1,))
    gibbs = next(quantity for quantity in quantities if quantity.name == 'ΔG')
    combined = ReactionEnergy.from_members(*results.get_array('member_gibbs_energies')[:, :, 0]).combined
    lines = [
        '',
        f'ZPE, H - E, TS and G - E in kcal/mol, at {TEMPERATURE} K and {PRESSURE:.0f} Pa, at minima of the model:',
        '',
        format_table(rows, headers, right=range(1, 8)),
        '',
        reaction_table,
        '',
        'Reaction Gibbs energy: ' + click.style(f'{gibbs.value:+.2f} ± {gibbs.std:.2f} kcal/mol', bold=True),
        '',
        f'± is the sample standard deviation of {results.n_members} values, one for each member with its own energies '
        'and modes',
        'at these geometries, subtracted member by member. The deviations of both Gibbs energies, combined',
        f'as if independent, give {combined:.2f} kcal/mol.',
        f'To compare ΔE with: CCSD(T) {REFERENCE:+.2f} kcal/mol, at the geometries of the benchmark.',
    ]
    return '\n'.join(lines)


def _row(optimization: ResultsData, results: ResultsData, index: int, label: str) -> list[str]:
    """Return what the table says of a structure."""
    energy = results.energies[index]
    enthalpy, gibbs = (results.get_array(name)[index, 0] for name in ('enthalpies', 'gibbs_energies'))
    entropy = results.get_array('entropies')[index, 0]
    quasi = results.get_array('gibbs_energies_quasi_rrho')[index, 0]
    lowest = vibrations_of(results, index)[0]
    steps = optimization.get_array('steps')[index]
    return [
        label,
        f'{energy / HARTREE:.8f}',
        f'{results.get_array("zero_point_energies")[index] * _KCAL:.2f}',
        f'{(enthalpy - energy) * _KCAL:.2f}',
        f'{TEMPERATURE * entropy * _KCAL:.2f}',
        f'{(gibbs - energy) * _KCAL:.2f}',
        f'{gibbs / HARTREE:.8f}',
        f'{quasi / HARTREE:.8f}',
        f'{character(results, index)} after {steps} steps, lowest mode {lowest:.1f} cm⁻¹',
    ]


def reaction(results: ResultsData) -> list[Quantity]:
    """Return the differences between the second structure and the first, each with its spread over the members."""
    energies = results.get_array('member_energies').T
    zero_points, thermal = np.stack([_member_vibrations(results, index) for index in (0, 1)], axis=1)
    members = {
        'energies': energies,
        'zero_point_energies': zero_points,
        'enthalpies': energies + zero_points + thermal,
        'gibbs_energies': results.get_array('member_gibbs_energies')[:, :, 0],
    }
    # -TS but for what all members share, which has no spread.
    members['entropies'] = members['gibbs_energies'] - members['enthalpies']
    names = {
        'ΔE': 'energies',
        'ΔZPE': 'zero_point_energies',
        'ΔH': 'enthalpies',
        '-TΔS': 'entropies',
        'ΔG': 'gibbs_energies',
        'ΔG, quasi-RRHO': 'gibbs_energies_quasi_rrho',
    }
    quantities = []
    for symbol, name in names.items():
        values = results.get_array(name)
        educt, product = values[:, 0] if values.ndim == 2 else values
        factor = -TEMPERATURE if name == 'entropies' else 1.0
        std = ReactionEnergy.from_members(*members[name]).std if name in members else None
        quantities.append(Quantity(symbol, float(factor * (product - educt) * _KCAL), std))
    return quantities


def _member_vibrations(results: ResultsData, index: int) -> Array:
    """Return zero-point and thermal energy of the vibrations for each member, ``(2, m)``, eV.

    The same modes count as in the Gibbs energies of the members.
    """
    cutoff = with_defaults(THERMOCHEMISTRY, 'thermochemistry')['low_frequency_cutoff']
    start, stop = (3 * int(value) for value in results.offsets[index : index + 2])
    wavenumbers = results.get_array('frequencies')[start:stop]
    counted = wavenumbers >= cutoff
    members = results.get_array('member_frequencies')[:, start:stop]
    wavenumbers = comparable(wavenumbers[counted], members[:, counted], cutoff)
    thermal = vibration(wavenumbers, np.array([TEMPERATURE])).energy[..., 0]
    return np.array([zero_point_energy(wavenumbers).sum(axis=1), thermal.sum(axis=1)])
