"""Two molecules of methanol to ether and water, with spread and picture: ``verdi run examples/run_reaction.py``.

Needs a Code, made once by ``aiida-mlpotential setup``, and the extras ``symmetry``, whose library finds point groups,
and ``plots``. The workflow optimizes all species in one job; their thermochemistry is a second one. Where the profile
has no broker, run ``verdi config set runner.poll.interval 1`` first: by default AiiDA looks once a minute whether a
step is done.
"""

from pathlib import Path

import click
from aiida import orm
from aiida.common.exceptions import MultipleObjectsError, NotExistent
from aiida.engine import run_get_node
from aiida.plugins import WorkflowFactory
from ase.build import molecule

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.library import LibraryError, get_model
from aiida_mlpotential.plots.figures import save
from aiida_mlpotential.plots.reaction import reaction_figure

#: Coefficients, negative for educts, and the molecules by their names in ASE's G2 set.
REACTION = {'methanol': -2, 'ether': 1, 'water': 1}
MOLECULES = {'methanol': 'CH3OH', 'ether': 'CH3OCH3', 'water': 'H2O'}


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
@click.option(
    '--model', default='ANI-1ccx', show_default=True, help='Name of a published model, or PK of a model node.'
)
@click.option('--protocol', default='balanced', show_default=True, help='fast, balanced or precise.')
@click.option('--temperature', 'temperatures', default=[298.15], multiple=True, show_default=True, help='K.')
@click.option('--picture', type=click.Path(path_type=Path), help='Draw the reaction, such as to reaction.svg.')
def main(code: str, model: str, protocol: str, temperatures: tuple[float, ...], picture: Path | None) -> None:
    """Compute the Gibbs energy of a reaction, with its spread over the members of the model."""
    species = {name: orm.StructureData(ase=molecule(formula)) for name, formula in MOLECULES.items()}
    builder = WorkflowFactory('mlpotential.reaction').get_builder_from_protocol(
        load_code(code),
        load_model(model),
        species,
        REACTION,
        protocol=protocol,
        overrides={'thermochemistry': {'calc': {'parameters': {'temperatures': list(temperatures)}}}},
    )
    outputs, node = run_get_node(builder)
    if not node.is_finished_ok:
        raise click.ClickException(f'{node.process_label}<{node.pk}> failed: {node.exit_message}')
    reaction = outputs['reaction'].get_dict()
    print(reaction['equation'])
    for row in reaction['table']:
        spread = '' if row['std_kcal_per_mol'] is None else f' +- {row["std_kcal_per_mol"]:.2f}'
        print(f'{row["temperature"]:g} K, {row["quantity"]}: {row["kcal_per_mol"]:.2f}{spread} kcal/mol')
    if picture is not None:
        save(reaction_figure(reaction), picture)
        print(f'wrote {picture}')


if __name__ == '__main__':
    main()
