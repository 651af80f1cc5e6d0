"""``aiida-mlpotential demo``: a reaction energy with ANI-1ccx, from nothing, in an AiiDA profile of its own."""

from __future__ import annotations

import importlib.util
import shlex
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .profiles import PROFILE, DemoDirectory, default_directory
from .progress import Steps

if TYPE_CHECKING:
    from aiida.orm import InstalledCode, ProcessNode
    from ase import Atoms

    from aiida_mlpotential.data.model import ModelData
    from aiida_mlpotential.data.results import ResultsData
    from aiida_mlpotential.data.structures import StructureSetData

MODEL = 'ANI-1ccx'
EDUCT, PRODUCT = 'ISOL24_i14e', 'ISOL24_i14p'
#: Reaction energies to compare with, kcal/mol: CCSD(T), and the tutorial of AMS for the same model.
REFERENCE, AMS = 5.30, 6.9


@click.command('demo')
@click.option(
    '--directory',
    type=click.Path(file_okay=False, path_type=Path),
    help='Where everything is kept. [default: ~/.local/share/aiida-mlpotential/demo]',
)
@click.option(
    '--fresh/--keep', default=False, show_default=True, help='Begin anew, removing what the demo made before.'
)
@click.option(
    '--gibbs', is_flag=True, help='Optimize both structures and compute the Gibbs energy of the reaction: minutes.'
)
def demo(directory: Path | None, fresh: bool, gibbs: bool) -> None:
    """Run a reaction with ANI-1ccx in an AiiDA profile of its own.

    Sets up everything that is needed in one directory (your own AiiDA configuration is not touched), gets the
    parameters of ANI-1ccx, and computes an isomerization of 26 atoms as one calculation: energies, their spread over
    the eight members of the model, and the reaction energy with its own spread. With --gibbs it is two calculations:
    both structures are optimized, then come frequencies, enthalpies, entropies and the Gibbs energy of the reaction.
    """
    check_backend(gibbs)
    home = DemoDirectory(directory or default_directory())
    home.check(fresh)
    steps = Steps()
    if fresh:
        home.remove()
    with steps.step('AiiDA profile') as step:
        made = home.open()
        step.result = f'`{PROFILE}` in {home.path}, {"made" if made else "there already"}'
    with steps.step('Computer and Code') as step:
        code = _get_code(home)
        step.result = f'{code.full_label} ({code.filepath_executable})'
    from .models import install_model  # which imports AiiDA: not before the directory is open

    model = install_model(MODEL, steps)
    nodes = _run_gibbs(code, model, steps) if gibbs else _run_single_points(code, model, steps)
    click.echo(format_hints(home, nodes))


def _run_single_points(code: InstalledCode, model: ModelData, steps: Steps) -> list[ProcessNode]:
    """Compute both structures as they are, and print the energy of the reaction."""
    from .reports import fail_unless_finished, show_outcome

    with steps.step('Calculation of both structures') as step:
        node, structures = _calculate(code, model)
        show_outcome(step, node)
        job_seconds = step.seconds
    fail_unless_finished(node)
    click.echo(format_results(node.outputs.results, structures))
    click.echo(f'\nTook {steps.seconds:.1f} s, {job_seconds:.1f} s of them for the calculation.')
    return [node]


def _run_gibbs(code: InstalledCode, model: ModelData, steps: Steps) -> list[ProcessNode]:
    """Optimize both structures, compute their thermochemistry, and print the Gibbs energy of the reaction."""
    from .demo_gibbs import run

    nodes = run(code, model, get_structures(), steps)
    click.echo(f'\nTook {steps.seconds:.1f} s.')
    return list(nodes)


def check_backend(gibbs: bool = False) -> None:
    """Raise, before anything is made, if this Python does not have what the calculation needs.

    :param gibbs: whether point groups are to be found as well
    """
    needed = {'torch': 'torchani', 'torchani': 'torchani', **({'pymatgen': 'symmetry'} if gibbs else {})}
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        extras = sorted({needed[name] for name in missing}, reverse=True)
        names = ' and '.join(f'`{extra}`' for extra in extras)
        raise click.ClickException(
            f'the demo needs {" and ".join(missing)}, which this Python does not have: install the '
            f'extra{"s" if len(extras) > 1 else ""} {names} with '
            f"`pip install 'aiida-mlpotential[{','.join(extras)}]'` (in a checkout `-e '.[{','.join(extras)}]'`)."
        )


def _get_code(home: DemoDirectory) -> InstalledCode:
    """Return the Code with the Python that runs now, which may not be the one of an earlier run."""
    import sys

    from . import codes

    computer, _ = codes.get_or_make_computer(codes.COMPUTER_LABEL, home.path / 'work', poll_interval=0.2)
    number, label = 1, codes.CODE_LABEL
    while True:
        try:
            return codes.get_or_make_code(computer, label, sys.executable)[0]
        except codes.CodeError:  # this label belongs to another Python
            number += 1
            label = f'{codes.CODE_LABEL}-{number}'


def get_structures() -> StructureSetData:
    """Return the two geometries of the package as a stored set: the one of an earlier run, if there is one."""
    import ase.io
    from aiida import orm

    from aiida_mlpotential.data.structures import StructureSetData

    atoms: list[Atoms] = []
    for name in (EDUCT, PRODUCT):
        with resources.as_file(resources.files(__package__) / 'demo_data' / f'{name}.xyz') as path:
            atoms += ase.io.read(path, index=':')
    structures = StructureSetData.from_ase(atoms, labels=(EDUCT, PRODUCT))
    structures.label = 'Reaction 14 of ISOL24'
    sha256 = structures.base.attributes.get('sha256')
    query = orm.QueryBuilder().append(StructureSetData, filters={'attributes.sha256': sha256})
    return query.first(flat=True) or structures.store()


def _calculate(code: InstalledCode, model: ModelData) -> tuple[ProcessNode, StructureSetData]:
    from aiida.engine import run_get_node

    from aiida_mlpotential.calculations.single_point import SinglePointCalculation

    structures = get_structures()
    inputs = {'code': code, 'model': model, 'structures': structures, 'metadata': {'label': 'ISOL24 reaction 14'}}
    _, node = run_get_node(SinglePointCalculation, inputs)
    return node, structures


def format_results(results: ResultsData, structures: StructureSetData) -> str:
    """Return the energies and their spread as a table, and the reaction energy with its own."""
    from aiida_mlpotential.data.formulas import formulas_of
    from aiida_mlpotential.data.reactions import Difference
    from aiida_mlpotential.worker.units import HARTREE, KCAL_PER_MOL

    from .tables import format_table

    formulas, _ = formulas_of(structures.get_frames())
    members = results.member_energies
    assert members is not None and results.energy_std is not None  # noqa: S101 - the model is an ensemble
    sizes = structures.get_frames().counts
    rows = []
    for label, formula, energy, std, size in zip(
        structures.labels, formulas, results.energies / HARTREE, 1000 * results.energy_std / HARTREE, sizes, strict=True
    ):
        rows.append([label, formula, f'{energy:.8f}', f'{std:.6f}', f'{std / size:.6f}', f'{std / size**0.5:.6f}'])
    headers = ['structure', 'formula', 'energy (Hartree)', 'std (mHartree)', 'per atom', 'per √atoms']
    reaction = Difference.of((-1, 1), results.energies / KCAL_PER_MOL, members / KCAL_PER_MOL)
    energy = click.style(f'{reaction.value:+.2f} ± {reaction.std:.2f} kcal/mol', bold=True)
    return '\n'.join(
        [
            '',
            format_table(rows, headers, right=(2, 3, 4, 5)),
            '',
            f'Reaction energy: {energy}  (CCSD(T): {REFERENCE:+.2f}; AMS, same model: {AMS:+.1f})',
            '',
            f'± is the sample standard deviation of {len(members)} reaction energies, one for each member.',
            f'The two deviations in the table, combined as if independent, give {reaction.combined:.2f} kcal/mol:',
            'too much, because what a member gets wrong in both structures cancels in the difference.',
        ]
    )


def format_hints(home: DemoDirectory, nodes: list[ProcessNode]) -> str:
    """Return the commands that show what was stored; the last calculation is the one to look at."""
    node = nodes[-1]
    results = node.outputs.results
    return '\n'.join(
        [
            '\nLook at what is stored now:',
            f'  export AIIDA_PATH={shlex.quote(str(home.path))}',
            f'  verdi -p {PROFILE} process list -a',
            *(f'  verdi -p {PROFILE} process show {item.pk}' for item in nodes),
            f'  verdi -p {PROFILE} calcjob res {node.pk}',
            f'  verdi -p {PROFILE} node attributes {results.pk}',
            f'  verdi -p {PROFILE} calcjob outputcat {node.pk} mlpotential.txt',
            'Your own AiiDA configuration was not touched; to be rid of the demo, remove its directory.',
        ]
    )
