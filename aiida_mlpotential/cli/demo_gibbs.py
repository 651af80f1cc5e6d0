"""``aiida-mlpotential demo --gibbs``: the Gibbs energy of a reaction, from two jobs: optimization, thermochemistry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aiida_mlpotential.data.reactions import SYMBOLS, Difference, SpeciesThermochemistry
from aiida_mlpotential.worker.parameters import with_defaults
from aiida_mlpotential.worker.thermochemistry import Settings
from aiida_mlpotential.worker.units import HARTREE, KCAL_PER_MOL

from .demo import REFERENCE
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

#: A minimum so tight, eV/angstrom, that the lowest modes do not depend on where the optimizer stopped.
FORCE_TOLERANCE = 1e-4
OPTIMIZATION = {'precision': 'double', 'force_tolerance': FORCE_TOLERANCE, 'max_steps': 2000}
TEMPERATURE, PRESSURE = 298.15, 101325.0
THERMOCHEMISTRY = {'precision': 'double', 'temperatures': [TEMPERATURE], 'gas_pressure': PRESSURE}
_KCAL = 1 / KCAL_PER_MOL


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
    differences = reaction(results)
    quantities = [[SYMBOLS[name], f'{item.value[0] * _KCAL:+.2f}', _spread(item)] for name, item in differences.items()]
    reaction_table = format_table(quantities, ['reaction', 'kcal/mol', ''], right=(1,))
    gibbs = differences['gibbs_energy']
    assert gibbs.combined is not None  # noqa: S101 - the model is an ensemble
    lines = [
        '',
        f'ZPE, H - E, TS and G - E in kcal/mol, at {TEMPERATURE} K and {PRESSURE:.0f} Pa, at minima of the model:',
        '',
        format_table(rows, headers, right=range(1, 8)),
        '',
        reaction_table,
        '',
        'Reaction Gibbs energy: ' + click.style(f'{gibbs.value[0] * _KCAL:+.2f} {_spread(gibbs)} kcal/mol', bold=True),
        '',
        f'± is the sample standard deviation of {results.n_members} values, one for each member with its own energies '
        'and modes',
        'at these geometries, subtracted member by member. The deviations of both Gibbs energies, combined',
        f'as if independent, give {gibbs.combined[0] * _KCAL:.2f} kcal/mol.',
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


def reaction(results: ResultsData) -> dict[str, Difference]:
    """Return the differences between the second structure and the first, eV, each with its values for the members."""
    settings = Settings.of(with_defaults(THERMOCHEMISTRY, 'thermochemistry'))
    return SpeciesThermochemistry.of(results, settings).reaction((-1, 1))


def _spread(difference: Difference) -> str:
    return '' if difference.std is None else f'± {difference.std[0] * _KCAL:.2f}'
