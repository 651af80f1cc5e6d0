"""The Gibbs energy of a reaction with its spread: ``verdi run examples/run_thermochemistry.py``.

Needs a Code, made once by ``aiida-mlpotential setup``, and the extra ``symmetry``, whose library finds point groups.
Educt and product are optimized in one job; the thermochemistry of both is a second one.
"""

import click
from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent
from aiida.engine import run_get_node
from ase.build import molecule

from aiida_mlpotential.calculations.geometry_optimization import GeometryOptimizationCalculation
from aiida_mlpotential.calculations.thermochemistry import ThermochemistryCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.library import LibraryError, get_model
from aiida_mlpotential.worker.units import KCAL_PER_MOL


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
@click.option('--educt', default='CH3CH2OH', show_default=True, help="A molecule of ASE's G2 set.")
@click.option('--product', default='CH3OCH3', show_default=True, help='Another one, of the same atoms.')
@click.option('--temperature', default=298.15, show_default=True, help='K.')
def main(code: str, model: str, educt: str, product: str, temperature: float) -> None:
    """Compute the Gibbs energy of an isomerization."""
    structures = StructureSetData.from_ase([molecule(educt), molecule(product)], labels=[educt, product])
    inputs = {'code': load_code(code), 'model': load_model(model), 'structures': structures}
    outputs, node = run_get_node(
        GeometryOptimizationCalculation, **inputs, parameters={'precision': 'double', 'force_tolerance': 1e-4}
    )
    if not node.is_finished_ok:
        raise click.ClickException(f'{node.process_label}<{node.pk}> failed: {node.exit_message}')
    inputs['structures'] = outputs['output_structures']
    outputs, node = run_get_node(ThermochemistryCalculation, **inputs, parameters={'temperatures': [temperature]})
    if not node.is_finished_ok:
        raise click.ClickException(f'{node.process_label}<{node.pk}> failed: {node.exit_message}')

    results = outputs['results']
    gibbs = results.get_array('gibbs_energies')[:, 0]
    for index, label in enumerate((educt, product)):
        entropy = results.thermochemistry(index)['entropies'][0]
        print(
            f'{label} ({results.point_group(index)}): E {results.energies[index]:.4f} eV, G {gibbs[index]:.4f} eV, '
            f'S {1000 * entropy / KCAL_PER_MOL:.1f} cal/(mol K)'
        )
    print(f'reaction Gibbs energy {(gibbs[1] - gibbs[0]) / KCAL_PER_MOL:.2f} kcal/mol at {temperature} K')
    if results.n_members > 1:
        # Member by member: what a member gets wrong on both sides cancels.
        members = results.get_array('member_gibbs_energies')[:, :, 0]
        print(f'spread over the members {(members[1] - members[0]).std(ddof=1) / KCAL_PER_MOL:.2f} kcal/mol')


if __name__ == '__main__':
    main()
