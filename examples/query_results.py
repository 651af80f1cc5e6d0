"""Questions to the database about what was computed: ``verdi run examples/query_results.py``.

Needs some results: run ``run_batch.py`` first.
"""

import click
import numpy as np
from aiida import orm

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.results import ResultsData

#: At most so many rows of an answer are printed.
MAX_ROWS = 20


def results_of_model(name: str) -> list[tuple[int, int, float | None]]:
    """Return PK, number of structures and lowest energy (eV) of all results of a model, the newest first."""
    query = orm.QueryBuilder()
    query.append(ModelData, filters={'attributes.name': name}, tag='model')
    query.append(SinglePointCalculation, with_incoming='model', tag='job')
    query.append(
        ResultsData,
        with_incoming='job',
        project=['id', 'attributes.n_frames', 'attributes.energy_min'],
        tag='results',
    )
    query.order_by({'results': {'id': 'desc'}})
    return [tuple(row) for row in query.all()]


def structures_above(spread: float, model: str) -> list[tuple[int, int, float]]:
    """Return PK of the results, index and std/sqrt(atoms) (eV) of a model's structures with more than a given spread.

    The database finds the nodes with such a structure; only their arrays are read.
    """
    filters = {'attributes.qbc_max': {'>': spread}, 'attributes.model_name': model}
    query = orm.QueryBuilder().append(ResultsData, filters=filters)
    found = []
    for results in query.iterall():
        qbc = results[0].qbc
        found += [(results[0].pk, int(index), float(qbc[index])) for index in np.flatnonzero(qbc > spread)]
    return found


def versions_used() -> dict[tuple[str, str], int]:
    """Return how many calculations ran with each version of each library."""
    query = orm.QueryBuilder()
    query.append(SinglePointCalculation, tag='job')
    query.append(
        orm.Dict, with_incoming='job', edge_filters={'label': 'output_parameters'}, project=['attributes.versions']
    )
    counts: dict[tuple[str, str], int] = {}
    for versions in query.all(flat=True):
        for item in (versions or {}).items():
            counts[item] = counts.get(item, 0) + 1
    return counts


def print_rows(rows: list[str]) -> None:
    """Print the first rows, and how many more there are."""
    for row in rows[:MAX_ROWS]:
        print(f'  {row}')
    if len(rows) > MAX_ROWS:
        print(f'  ... and {len(rows) - MAX_ROWS} more')


@click.command()
@click.option('--model', default='ANI-2x', show_default=True, help='Name of the model.')
@click.option('--spread', default=0.005, show_default=True, help='Spread std/sqrt(atoms), eV.')
def main(model: str, spread: float) -> None:
    """Print the answers."""
    print(f'Results of {model} (PK, structures, lowest energy in eV):')
    print_rows(
        [
            f'{pk}: {number}, {"none" if energy is None else f"{energy:.6f}"}'
            for pk, number, energy in results_of_model(model)
        ]
    )
    print(f'Structures with a spread of {model} above {spread} eV (PK, index, spread in eV):')
    print_rows([f'{pk}, {index}: {qbc:.6f}' for pk, index, qbc in structures_above(spread, model)])
    print('Versions used (number of calculations):')
    for (library, version), number in sorted(versions_used().items()):
        print(f'  {library} {version}: {number}')


if __name__ == '__main__':
    main()
