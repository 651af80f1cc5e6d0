"""Questions to the database about what was computed: ``verdi run examples/query_results.py spread 0.005``.

Each command is one question, and shows the helper of ``aiida_mlpotential.queries`` that answers it. They need some
results: run ``run_batch.py`` first. ``verdi run examples/query_results.py -- --help`` lists the commands.
"""

import json

import click
from aiida import orm
from aiida.common.exceptions import NotExistent

from aiida_mlpotential import queries
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData

#: At most so many rows of an answer are printed.
MAX_ROWS = 20


def print_rows(rows: list[str]) -> None:
    """Print the first rows, and how many more there are."""
    for row in rows[:MAX_ROWS]:
        print(f'  {row}')
    if len(rows) > MAX_ROWS:
        print(f'  ... and {len(rows) - MAX_ROWS} more')
    if not rows:
        print('  none')


def load_structures(identifier: str) -> orm.StructureData | StructureSetData:
    """Return a node with structures."""
    try:
        node = orm.load_node(identifier)
    except NotExistent:
        raise click.ClickException(f'there is no node {identifier}.') from None
    if not isinstance(node, orm.StructureData | StructureSetData):
        raise click.ClickException(f'node {identifier} holds no structures, but is a {type(node).__name__}.')
    return node


def load_model(name: str) -> ModelData:
    """Return the newest model of a name."""
    query = orm.QueryBuilder().append(ModelData, filters={'attributes.name': name}, tag='model')
    model = query.order_by({'model': {'id': 'desc'}}).first(flat=True)
    if model is None:
        raise click.ClickException(f'this profile has no model {name}.')
    return model


@click.group()
def main() -> None:
    """Ask what was computed."""


@main.command('model')
@click.argument('name', default='ANI-2x')
def results_of_model(name: str) -> None:
    """All results of a model, by the hash of its parameters."""
    model = load_model(name)
    print(f'Results of {name}, sha256 {model.sha256[:12]} (PK: structures, lowest energy in eV):')
    rows = []
    for results in queries.results_of_model(model.sha256):
        energy = results.base.attributes.get('energy_min', None)
        rows.append(f'{results.pk}: {results.n_frames}, {"none" if energy is None else f"{energy:.6f}"}')
    print_rows(rows)


@main.command('latest')
@click.argument('structures')
@click.argument('index', type=int, default=0)
def latest_result(structures: str, index: int) -> None:
    """The latest result of a structure, or of one of a set."""
    found = queries.latest_result(load_structures(structures), index)
    if found is None:
        raise click.ClickException('it has not been computed yet.')
    print(f'{found.frame.energy:.6f} eV with {found.model_name}: structure {found.index} of results {found.results.pk}')


@main.command('spread')
@click.argument('limit', type=float, default=0.005)
@click.option('--model', help='Hash of a model. [default: all models]')
def structures_above(limit: float, model: str | None) -> None:
    """All structures with a spread std/sqrt(atoms) above LIMIT, eV."""
    print(f'Structures above {limit} eV (PK of the results, structure of the set: spread in eV):')
    found = queries.structures_above(limit, model=model)
    print_rows([f'{item.results.pk}, {item.set_index}: {item.spread:.6f}' for item in found])


@main.command('models')
@click.argument('structures')
@click.argument('index', type=int, default=0)
def energies_in_models(structures: str, index: int) -> None:
    """The energy of one structure in every model."""
    print('Energies (eV):')
    found = queries.energies_in_models(load_structures(structures), index)
    print_rows([f'{item.model_name} ({item.model_sha256[:8]}): {item.frame.energy:.6f}' for item in found])


@main.command('versions')
@click.argument('library', required=False)
@click.argument('version', required=False)
def versions(library: str | None, version: str | None) -> None:
    """Versions of all libraries, or the jobs that used VERSION of LIBRARY, such as `torch '<2.5'`."""
    if library is None:
        print('Versions (number of calculations):')
        found = queries.library_versions()
        print_rows([f'{name} {key}: {number}' for name, counts in found.items() for key, number in counts.items()])
        return
    print(f'Calculations with {library} {version or "of any version"}:')
    print_rows([f'{job.process_label}<{job.pk}>' for job in queries.jobs_with_version(library, version)])


@main.command('slices')
@click.argument('structures')
@click.argument('model')
@click.option('--parameters', default='{}', help='Parameters of the jobs, as JSON.')
def slices(structures: str, model: str, parameters: str) -> None:
    """What there is of a set of structures with a MODEL, slice by slice: a screening would not compute it again."""
    node = load_structures(structures)
    if not isinstance(node, StructureSetData):
        raise click.ClickException(f'node {structures} is one structure: a set has slices.')
    try:
        origin = queries.Origin(node, load_model(model), json.loads(parameters))
    except json.JSONDecodeError as exception:
        raise click.ClickException(f'--parameters is no JSON: {exception}.') from None
    print('Slices (structures: calculation):')
    rows = []
    for selection, item in queries.find_slices(origin).items():
        which = 'all' if selection is None else str(selection.to_dict())
        rows.append(f'{which}: {item.job}, {"finished" if item.is_finished else "to go on with"}')
    print_rows(rows)


if __name__ == '__main__':
    main()
