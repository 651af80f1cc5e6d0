"""Frequencies of a molecule at its minimum: ``verdi run examples/run_vibrations.py``.

Needs a Code, made once by ``aiida-mlpotential setup``. Two jobs: the geometry is optimized with the same model first.
"""

from pathlib import Path

import click
from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent
from aiida.engine import run_get_node
from ase.build import molecule

from aiida_mlpotential.calculations.geometry_optimization import GeometryOptimizationCalculation
from aiida_mlpotential.calculations.vibrations import VibrationsCalculation
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
@click.option('--name', default='H2O', show_default=True, help="A molecule of ASE's G2 set.")
@click.option('--movie', type=click.Path(path_type=Path), help='Write the highest mode as a movie (extended XYZ).')
def main(code: str, model: str, name: str, movie: Path | None) -> None:
    """Optimize a molecule and find its vibrations."""
    inputs = {'code': load_code(code), 'model': load_model(model), 'structure': orm.StructureData(ase=molecule(name))}
    outputs, node = run_get_node(
        GeometryOptimizationCalculation, **inputs, parameters={'precision': 'double', 'force_tolerance': 1e-4}
    )
    if not node.is_finished_ok:
        raise click.ClickException(f'{node.process_label}<{node.pk}> failed: {node.exit_message}')
    inputs['structure'] = outputs['output_structure']
    outputs, node = run_get_node(VibrationsCalculation, **inputs, parameters={'expected': 'minimum'})
    if 'results' not in outputs:
        raise click.ClickException(f'{node.process_label}<{node.pk}> failed: {node.exit_message}')

    results = outputs['results']
    print(f'{node.process_label}<{node.pk}>: {name} is at a {results.character(0)}')
    print(f'zero-point energy {results.zero_point_energy(0):.4f} eV')
    spreads = results.frequency_std(0)
    for index, frequency in enumerate(results.frequencies(0)):
        spread = '' if spreads is None else f' +- {spreads[index]:.1f}'
        print(f'mode {index}: {frequency:.1f}{spread} cm^-1, reduced mass {results.reduced_masses(0)[index]:.2f} amu')
    if movie is not None:
        results.write_mode(movie, index=0, mode=-1)
        print(f'wrote {movie}')


if __name__ == '__main__':
    main()
