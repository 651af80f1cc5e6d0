"""``aiida-mlpotential demo --gibbs``: the Gibbs energy of a reaction, from two jobs: optimization, thermochemistry."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from aiida_mlpotential.worker.units import HARTREE, KCAL_PER_MOL

from .reaction import ReactionEnergy
from .reports import fail_unless_finished, show_outcome
from .reports_thermochemistry import notes
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
    optimized = optimization.outputs.structures
    thermochemistry = _calculate('thermochemistry', code, model, optimized, steps)
    click.echo(format_results(optimization.outputs.results, thermochemistry.outputs.results, structures.labels))
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
    with steps.step(titles[name]) as step:
        _, node = run_get_node(TASKS[name].process_class(), inputs)
        show_outcome(step, node)
    fail_unless_finished(node)
    return node


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
        *_notes(results, labels),
        '',
        reaction_table,
        '',
        'Reaction Gibbs energy: ' + click.style(f'{gibbs.value:+.2f} ± {gibbs.std:.2f} kcal/mol', bold=True),
        '',
        f'± is the sample standard deviation of {results.n_members} reaction energies, one for each member with its '
        'own modes;',
        f'the deviations of both Gibbs energies, combined as if independent, give {combined:.2f} kcal/mol.',
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


def _notes(results: ResultsData, labels: tuple[str, ...]) -> list[str]:
    """Return which modes are in none of the sums, a line for each structure that has some."""
    return [f'{label}: {note}' for index, label in enumerate(labels) for note in notes(results, index)]


def reaction(results: ResultsData) -> list[Quantity]:
    """Return the differences between the second structure and the first."""
    energies = ReactionEnergy.from_members(*_columns(results.get_array('member_energies').T))
    gibbs = ReactionEnergy.from_members(*results.get_array('member_gibbs_energies')[:, :, 0])

    def difference(name: str, factor: float = 1.0) -> float:
        values = results.get_array(name)
        values = values[:, 0] if values.ndim == 2 else values
        return float(factor * (values[1] - values[0]) * _KCAL)

    return [
        Quantity('ΔE', difference('energies'), energies.std),
        Quantity('ΔZPE', difference('zero_point_energies')),
        Quantity('ΔH', difference('enthalpies')),
        Quantity('-TΔS', difference('entropies', -TEMPERATURE)),
        Quantity('ΔG', difference('gibbs_energies'), gibbs.std),
        Quantity('ΔG, quasi-RRHO', difference('gibbs_energies_quasi_rrho')),
    ]


def _columns(values: Array) -> tuple[Array, Array]:
    educt, product = np.asarray(values)
    return educt, product
