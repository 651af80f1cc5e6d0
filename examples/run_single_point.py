"""Energy, forces and spread of one molecule: ``verdi run examples/run_single_point.py``.

Needs a Code, made once by ``aiida-mlpotential setup``. Another model: ``--model ANI-1ccx``, or the PK of a model node.
"""

import click
from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent
from aiida.engine import run_get_node
from ase.build import molecule

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.library import LibraryError, get_model


def load_code(label: str) -> orm.AbstractCode:
    """Return a Code by its label."""
    try:
        return orm.load_code(label)
    except (NotExistent, MultipleObjectsError) as exception:
        raise click.ClickException(f'{exception}: make one with `aiida-mlpotential setup`.') from exception


def load_model(name: str) -> ModelData:
    """Return a published model by name, or a model node by PK."""
    try:
        return orm.load_node(int(name)) if name.isdigit() else get_model(name)
    except (NotExistent, LibraryError) as exception:
        raise click.ClickException(str(exception)) from exception


@click.command()
@click.option('--code', default='mlpotential@localhost', show_default=True, help='Code to run on.')
@click.option('--model', default='ANI-2x', show_default=True, help='Name of a published model, or PK of a model node.')
def main(code: str, model: str) -> None:
    """Compute ethanol."""
    structure = orm.StructureData(ase=molecule('CH3CH2OH'))
    inputs = {
        'code': load_code(code),
        'model': load_model(model),
        'structure': structure,
        'parameters': {'properties': ['energy', 'forces'], 'precision': 'double'},
        'metadata': {'label': 'ethanol'},
    }
    outputs, node = run_get_node(SinglePointCalculation, inputs)
    if not node.is_finished_ok:
        raise click.ClickException(f'{node.process_label}<{node.pk}> failed: {node.exit_message}')

    summary = outputs['output_parameters'].get_dict()
    print(f'SinglePointCalculation<{node.pk}> with {summary["model_name"]} on {structure.get_formula()}')
    print(f'energy       {summary["energy"]:.6f} eV')
    print(f'largest force {summary["max_force"]:.6f} eV/angstrom')
    if summary['ensemble_size'] > 1:
        print(f'std          {summary["energy_std"]:.6f} eV over {summary["ensemble_size"]} members')
    # Arrays are in the results node: here the forces of the first atom, eV/angstrom.
    print('force on atom 0:', outputs['results'].forces[0])


if __name__ == '__main__':
    main()
