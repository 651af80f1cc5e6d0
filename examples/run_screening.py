"""Many structures against one or several models, in slices: ``verdi run examples/run_screening.py``.

Needs a Code, made once by ``aiida-mlpotential setup``. The structures are one node, of which each job takes a slice.
Run the same again, also after an interruption: what is done is not computed twice.
"""

import click
import numpy as np
from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent
from aiida.engine import run_get_node
from aiida.plugins import WorkflowFactory
from ase.build import molecule

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.library import LibraryError, get_model

#: Spread over the square root of the number of atoms, eV, above which structures are flagged.
MAX_QBC = 0.010


def make_structures(number: int) -> StructureSetData:
    """Return displaced copies of ethanol, the later the more; the node that is there already, if it is."""
    random = np.random.default_rng(0)
    structures = []
    for index in range(number):
        atoms = molecule('CH3CH2OH')
        atoms.positions += random.normal(scale=0.02 + 0.1 * index / number, size=atoms.positions.shape)
        structures.append(atoms)
    new = StructureSetData.from_ase(structures, labels=[f'ethanol-{index}' for index in range(number)])
    known = orm.QueryBuilder().append(StructureSetData, filters={'attributes.sha256': new.sha256})
    return known.first(flat=True) or new.store()


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
@click.option('--slice-size', default=100, show_default=True, help='Structures in one job at most.')
def main(code: str, model: str, number: int, slice_size: int) -> None:
    """Screen displaced ethanol molecules, and choose the ten that a better model should learn from."""
    potential, structures = load_model(model), make_structures(number)
    inputs = {
        'structures': structures,
        'models': {'model': potential},
        'code': load_code(code),
        'slice_size': slice_size,
        'max_concurrent': 2,
    }
    if potential.to_spec().ensemble_size > 1:
        inputs.update(max_qbc=MAX_QBC, n_selected=10)
    _, node = run_get_node(WorkflowFactory('mlpotential.screening'), inputs)
    if 'results' not in node.outputs:
        raise click.ClickException(f'{node.process_label}<{node.pk}> failed: {node.exit_message}')

    results, ranking = node.outputs.results.model, node.outputs.ranking
    print(f'{node.process_label}<{node.pk}>: {results.n_ok} of {len(results)} done, exit code {node.exit_status}')
    slices = node.outputs.summary['slices']
    print(f'{slices["slices"]} slices, of which {slices["reused_slices"]} were there already')
    relative = 1000 * ranking.get_array('relative_energy')[0]
    for index in ranking.get_array('order')[:3]:
        print(f'{structures.labels[index]}: {relative[index]:.1f} meV above the lowest')
    if 'selected_structures' in node.outputs:
        print(f'{ranking.base.attributes.get("n_flagged")} structures with a spread above {1000 * MAX_QBC:.0f} meV')
        selected = node.outputs.selected_structures
        print(f'for reference calculations: {type(selected).__name__}<{selected.pk}>, {len(selected)} structures')


if __name__ == '__main__':
    main()
