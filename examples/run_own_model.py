"""Your own model, or a committee of several: ``verdi run examples/run_own_model.py -b torchani ensemble.pt``.

Needs a Code of the backend, made once by ``aiida-mlpotential backends install BACKEND``. Several files are one
potential whose members tell how certain it is. The same files are the same node, however often this is run.
"""

from pathlib import Path

import click
from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent
from aiida.engine import run_get_node
from ase.build import molecule

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData, ModelInfo
from aiida_mlpotential.data.structures import StructureSetData


def store_model(paths: tuple[Path, ...], backend: str, energy_unit: str) -> ModelData:
    """Return the node of a model: nothing in the files is run, and what they say of themselves is checked."""
    info = ModelInfo(energy_unit=energy_unit, source='examples/run_own_model.py')
    try:
        if len(paths) > 1:
            return ModelData.from_members(paths, backend=backend, info=info).get_or_store()
        return ModelData.from_file(paths[0], backend=backend, info=info).get_or_store()
    except (ValueError, FileNotFoundError) as exception:
        raise click.ClickException(str(exception)) from exception


@click.command()
@click.argument('paths', nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option('-b', '--backend', required=True, help='torchani, schnetpack, sgdml, pinn ...')
@click.option('--energy-unit', default='Auto', show_default=True, help='Auto: what the file says, else a default.')
@click.option('--code', help='Code to run on. [default: the one that the installer made]')
def main(paths: tuple[Path, ...], backend: str, energy_unit: str, code: str | None) -> None:
    """Compute ethanol, twice displaced, with a model of yours."""
    label = code or f'mlpotential-{backend}@localhost'
    try:
        loaded = orm.load_code(label)
    except (NotExistent, MultipleObjectsError) as exception:
        raise click.ClickException(f'{exception}: run `aiida-mlpotential backends install {backend}`.') from exception
    model = store_model(paths, backend, energy_unit)
    print(f'{model.get_description()}: {model.energy_unit}, {model.distance_unit} ({model.units_from["energy"]})')
    structures = [molecule('CH3CH2OH') for _ in range(3)]
    for index, atoms in enumerate(structures):
        atoms.rattle(0.03 * index, seed=index)
    inputs = {'code': loaded, 'model': model, 'structures': StructureSetData.from_ase(structures)}
    outputs, node = run_get_node(SinglePointCalculation, inputs)
    if 'results' not in outputs:
        raise click.ClickException(f'{node.process_label}<{node.pk}> failed: {node.exit_message}')
    results = outputs['results']
    for index in range(len(results)):
        frame = results.frame(index)
        spread = '' if frame.energy_std is None else f' +- {frame.energy_std:.6f}'
        print(f'{index}: {frame.energy:.6f}{spread} eV' if frame.ok else f'{index}: {frame.message}')
    for note in outputs['output_parameters']['notes']:
        print(f'note: {note}')


if __name__ == '__main__':
    main()
