"""Optimize conformers together: ``verdi run examples/run_geometry_optimization.py``.

Needs a Code, made once by ``aiida-mlpotential setup``. All conformers go downhill in one batch; each has a status, and
one that did not converge within the limit on steps keeps its last geometry.
"""

import click
import numpy as np
from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent
from aiida.engine import run_get_node
from ase.build import molecule

from aiida_mlpotential.calculations.geometry_optimization import GeometryOptimizationCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.library import LibraryError, get_model


def make_structures(number: int) -> StructureSetData:
    """Return displaced copies of ethanol."""
    random = np.random.default_rng(0)
    structures = []
    for _ in range(number):
        atoms = molecule('CH3CH2OH')
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        structures.append(atoms)
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
@click.option('--number', default=20, show_default=True, help='Number of conformers.')
@click.option('--max-steps', default=500, show_default=True, help='Limit on the steps of each.')
@click.option('--fix-atom', type=int, help='An atom that stays where it is, counted from 0.')
def main(code: str, model: str, number: int, max_steps: int, fix_atom: int | None) -> None:
    """Optimize displaced ethanol molecules, and say how each ended."""
    structures = make_structures(number)
    constraints = [] if fix_atom is None else [{'kind': 'atoms', 'atoms': [fix_atom]}]
    inputs = {
        'code': load_code(code),
        'model': load_model(model),
        'structures': structures,
        'parameters': {'force_tolerance': 0.02, 'max_steps': max_steps, 'constraints': constraints},
        'metadata': {'label': 'displaced ethanol'},
    }
    outputs, node = run_get_node(GeometryOptimizationCalculation, inputs)
    if 'results' not in outputs:
        raise click.ClickException(f'{node.process_label}<{node.pk}> failed: {node.exit_message}')

    results = outputs['results']
    print(f'{node.process_label}<{node.pk}>: {results.n_ok} of {len(results)} converged, exit code {node.exit_status}')
    steps, initial = results.get_array('steps'), results.get_array('initial_energies')
    for index, label in enumerate(structures.labels):
        status = results.frame(index).status.name
        print(f'{label}: {initial[index]:.6f} -> {results.energies[index]:.6f} eV, {steps[index]} steps, {status}')
    # The optimized geometries are a node that other calculations take.
    optimized = outputs['output_structures']
    moved = np.linalg.norm(optimized.get_frames().positions - structures.get_frames().positions, axis=1).max()
    print(f'optimized geometries: StructureSetData<{optimized.pk}>, atoms moved by up to {moved:.3f} angstrom')


if __name__ == '__main__':
    main()
