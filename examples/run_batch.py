"""Many structures in one calculation, one of them bad: ``verdi run examples/run_batch.py``.

Needs a Code, made once by ``aiida-mlpotential setup``. The structures that can be computed are, the bad one gets a
status and a message; the exit code of the calculation (400) says that there was one.
"""

import click
import numpy as np
from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent
from aiida.engine import run_get_node
from ase.build import molecule

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.library import LibraryError, get_model


def make_structures(number: int) -> StructureSetData:
    """Return displaced copies of ethanol, the last of which has two atoms in one place."""
    random = np.random.default_rng(0)
    structures = []
    for _ in range(number):
        atoms = molecule('CH3CH2OH')
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        structures.append(atoms)
    structures[-1].positions[0] = structures[-1].positions[1]
    return StructureSetData.from_ase(structures, labels=[f'ethanol-{index}' for index in range(number)])


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
@click.option('--number', default=200, show_default=True, help='Number of structures.')
def main(code: str, model: str, number: int) -> None:
    """Compute displaced ethanol molecules, and find those of which the model is least certain."""
    structures = make_structures(number)
    inputs = {
        'code': load_code(code),
        'model': load_model(model),
        'structures': structures,
        'metadata': {'label': 'displaced ethanol'},
    }
    outputs, node = run_get_node(SinglePointCalculation, inputs)
    if 'results' not in outputs:
        raise click.ClickException(f'{node.process_label}<{node.pk}> failed: {node.exit_message}')

    results = outputs['results']
    print(f'SinglePointCalculation<{node.pk}>: {results.n_ok} of {len(results)} done, exit code {node.exit_status}')
    for index in np.flatnonzero(results.status):
        print(f'{structures.labels[index]}: {results.frame(index).message}')
    if results.qbc is not None:
        certain_last = np.argsort(np.nan_to_num(results.qbc, nan=-1.0))[::-1]
        for index in certain_last[:3]:
            print(f'{structures.labels[index]}: std/sqrt(atoms) {1000 * results.qbc[index]:.2f} meV')
    lowest = int(np.nanargmin(results.energies))
    print(f'lowest energy: {structures.labels[lowest]}, {results.energies[lowest]:.6f} eV')


if __name__ == '__main__':
    main()
