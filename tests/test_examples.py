"""Every example runs in a temporary profile, with a model that needs no download."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from aiida import orm
from click.testing import CliRunner, Result

from aiida_mlpotential.data.model import ModelData

EXAMPLES = Path(__file__).parents[1] / 'examples'
#: Examples that take a Code and a model, and need nothing else.
PLAIN = (
    'run_single_point.py',
    'run_batch.py',
    'run_geometry_optimization.py',
    'run_vibrations.py',
    'run_thermochemistry.py',
    'run_reaction.py',
    'run_screening.py',
)


def _run(name: str, *arguments: object) -> Result:
    command = runpy.run_path(str(EXAMPLES / name))['main']
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def model(aiida_profile_clean, tmp_path: Path) -> ModelData:
    """Return a model, beside the Code that ``aiida-mlpotential setup`` makes."""
    computer = orm.Computer('localhost', 'localhost', '', 'core.local', 'core.direct', str(tmp_path)).store()
    computer.set_minimum_job_poll_interval(0)
    computer.configure(safe_interval=0)
    orm.InstalledCode(label='mlpotential', computer=computer, filepath_executable=sys.executable).store()
    return ModelData.from_ase_calculator('ase.calculators.emt.EMT').get_or_store()


def test_all_examples_are_tested() -> None:
    """A new example needs a test here."""
    names = {path.name for path in EXAMPLES.glob('*.py')}
    text = Path(__file__).read_text()
    assert names
    assert [name for name in names if f"_run('{name}'" not in text] == []


@pytest.mark.slow
def test_run_single_point(model: ModelData) -> None:
    """Energy and forces of one molecule, in double precision."""
    result = _run('run_single_point.py', '--model', model.pk)
    assert result.exit_code == 0, result.output
    node = orm.QueryBuilder().append(orm.CalcJobNode).one()[0]
    assert f'SinglePointCalculation<{node.pk}> with EMT on C2H6O' in result.output
    energy = float(next(line for line in result.output.splitlines() if line.startswith('energy')).split()[1])
    assert energy == pytest.approx(node.outputs.output_parameters['energy'], abs=1e-6)
    assert node.outputs.output_parameters['precision'] == 'double'


@pytest.mark.slow
def test_run_batch_and_query(model: ModelData) -> None:
    """A batch with one bad structure, and what the database knows of it afterwards."""
    result = _run('run_batch.py', '--model', model.pk, '--number', '5')
    assert result.exit_code == 0, result.output
    assert '4 of 5 done, exit code 400' in result.output
    assert 'ethanol-4: ' in result.output
    import ase

    node = orm.QueryBuilder().append(orm.CalcJobNode).one()[0]
    results, structures = node.outputs.results, node.inputs.structures
    lowest = results.base.attributes.get('energy_min')
    energy = f'{results.energies[1]:.6f}'
    for arguments, expected in (
        (['model', 'EMT'], f'  {results.pk}: 5, {lowest:.6f}\n'),
        (['latest', structures.pk, '1'], f'{energy} eV with EMT: structure 1 of results {results.pk}\n'),
        (['models', structures.pk, '1'], f'  EMT ({model.sha256[:8]}): {energy}\n'),
        (['spread'], 'spread in eV):\n  none\n'),
        (['versions'], f'  ase {ase.__version__}: 1\n'),
        (['versions', 'ase', '>=3'], f'  SinglePointCalculation<{node.pk}>\n'),
        (['slices', structures.pk, 'EMT'], f'  all: {node.pk}, finished\n'),
        (['slices', structures.pk, 'EMT', '--parameters', '{"precision": "double"}'], '  none\n'),
    ):
        answer = _run('query_results.py', *arguments)
        assert answer.exit_code == 0, answer.output
        assert expected in answer.output, arguments


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['model', 'ANI-9'], 'this profile has no model ANI-9'),
        (['latest', '999999'], 'there is no node 999999'),
        (['models', 'MODEL'], 'holds no structures, but is a ModelData'),
        (['latest', 'STRUCTURE'], 'it has not been computed yet'),
        (['slices', 'STRUCTURE', 'EMT'], 'is one structure: a set has slices'),
        (['slices', 'SET', 'EMT', '--parameters', 'x'], '--parameters is no JSON'),
    ],
)
def test_questions_about_nothing_are_one_sentence(model: ModelData, arguments: list[str], message: str) -> None:
    """A node that is missing, of another kind, or that nothing is known of."""
    from ase.build import bulk

    from aiida_mlpotential.data.structures import StructureSetData

    nodes = {
        'MODEL': model,
        'STRUCTURE': orm.StructureData(ase=bulk('Cu')).store(),
        'SET': StructureSetData.from_ase([bulk('Cu')]).store(),
    }
    answer = _run('query_results.py', *(nodes[word].pk if word in nodes else word for word in arguments))
    assert answer.exit_code == 1
    assert answer.output.startswith('Error: ')
    assert message in answer.output


@pytest.mark.slow
def test_run_geometry_optimization(model: ModelData) -> None:
    """Conformers find the same minimum; with too few steps they are not converged, and an atom can be fixed."""
    result = _run('run_geometry_optimization.py', '--model', model.pk, '--number', '3')
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert '3 of 3 converged, exit code 0' in lines[0]
    assert [line.rpartition(', ')[2] for line in lines[1:4]] == ['OK'] * 3
    assert lines[4].startswith('optimized geometries: StructureSetData<')
    result = _run('run_geometry_optimization.py', '--model', model.pk, '--number', '2', '--max-steps', '1')
    assert '0 of 2 converged, exit code 410' in result.output
    # AiiDA's warning of the exit code may stand in the output, too, and names a status
    assert sum(line.endswith(', NOT_CONVERGED') for line in result.output.splitlines()) == 2
    assert _run('run_geometry_optimization.py', '--model', model.pk, '--number', '1', '--fix-atom', '0').exit_code == 0
    structures = (
        orm.QueryBuilder().append(orm.CalcJobNode, tag='job').order_by({'job': {'id': 'desc'}}).first(flat=True)
    )
    before, after = structures.inputs.structures.get_frames(), structures.outputs.output_structures.get_frames()
    assert after.positions[0].tolist() == before.positions[0].tolist()
    assert abs(after.positions - before.positions).max() > 0.01


@pytest.mark.slow
def test_run_vibrations(model: ModelData, tmp_path: Path) -> None:
    """Three modes of water, at a minimum that another job found, and a movie of one."""
    movie = tmp_path / 'movie.xyz'
    result = _run('run_vibrations.py', '--model', model.pk, '--movie', movie)
    assert result.exit_code == 0, result.output
    assert 'H2O is at a minimum' in result.output
    assert [line[:6] for line in result.output.splitlines() if line.startswith('mode ')] == [
        'mode 0',
        'mode 1',
        'mode 2',
    ]
    assert movie.read_text().count('Lattice') + movie.read_text().count('Properties') >= 30
    assert orm.QueryBuilder().append(orm.CalcJobNode).count() == 2


@pytest.mark.slow
def test_run_thermochemistry(model: ModelData) -> None:
    """Two molecules with their point groups, and the difference of their Gibbs energies."""
    pytest.importorskip('pymatgen', reason='the symmetry extra is not installed')
    result = _run('run_thermochemistry.py', '--model', model.pk, '--educt', 'H2O', '--product', 'H2O')
    assert result.exit_code == 0, result.output
    assert result.output.count('H2O (C2v): E ') == 2
    assert 'reaction Gibbs energy 0.00 kcal/mol at 298.15 K' in result.output.replace('-0.00', '0.00')


@pytest.mark.slow
def test_run_reaction(model: ModelData, tmp_path: Path) -> None:
    """A reaction of three species at two temperatures, with its picture."""
    pytest.importorskip('pymatgen', reason='the symmetry extra is not installed')
    picture = tmp_path / 'reaction.svg'
    conditions = ['--temperature', 298.15, '--temperature', 400]
    result = _run('run_reaction.py', '--model', model.pk, '--protocol', 'fast', *conditions, '--picture', picture)
    assert result.exit_code == 0, result.output
    assert '2 methanol → ether + water' in result.output
    assert '298.15 K, gibbs_energy: ' in result.output
    assert '400 K, gibbs_energy: ' in result.output
    assert '<svg' in picture.read_text()


@pytest.mark.slow
def test_run_screening(model: ModelData) -> None:
    """Slices, a ranking, and nothing computed twice; EMT is no ensemble, so that nothing is selected."""
    arguments = ['--model', model.pk, '--number', '6', '--slice-size', '2']
    result = _run('run_screening.py', *arguments)
    assert result.exit_code == 0, result.output
    assert ': 6 of 6 done, exit code 0' in result.output
    assert '3 slices, of which 0 were there already' in result.output
    assert ': 0.0 meV above the lowest' in result.output
    assert 'for reference calculations' not in result.output
    assert '3 slices, of which 3 were there already' in _run('run_screening.py', *arguments).output
    assert orm.QueryBuilder().append(orm.CalcJobNode).count() == 3


@pytest.mark.slow
def test_run_own_model(model: ModelData) -> None:
    """One file with two members; the units are the backend's, and the results say so."""
    pytest.importorskip('torchani')
    path = Path(__file__).parent / 'fixtures' / 'torchani' / 'custom_full_ani.pt'
    for _ in range(2):
        result = _run('run_own_model.py', '-b', 'torchani', '--code', 'mlpotential@localhost', path)
        assert result.exit_code == 0, result.output
    assert orm.QueryBuilder().append(ModelData, filters={'attributes.backend': 'torchani'}).count() == 1
    lines = result.output.splitlines()
    assert 'Hartree, angstrom (default)' in lines[0]
    assert [line.partition(':')[0] for line in lines[1:4]] == ['0', '1', '2']
    assert all('+-' in line for line in lines[1:4])
    assert 'note: the energy unit of custom_full_ani, Hartree, was assumed' in result.output


def test_own_model_mistakes_are_one_sentence(model: ModelData, tmp_path: Path) -> None:
    """No Code, no file, a file of another kind, and members that do not go together."""
    folder = Path(__file__).parent / 'fixtures' / 'sgdml'
    files = [folder / 'ethanol_kcal_ang.npz', folder / 'ethanol_hartree_bohr.npz']
    usual = ['--code', 'mlpotential@localhost']
    for arguments, message in (
        (['-b', 'sgdml', files[0]], 'aiida-mlpotential backends install sgdml'),
        (['-b', 'sgdml', *usual, tmp_path / 'none.npz'], 'there is no model file'),
        (['-b', 'schnetpack', *usual, files[0]], 'ethanol_kcal_ang.npz'),
        (['-b', 'sgdml', *usual, *files], 'must have the same energy unit'),
    ):
        result = _run('run_own_model.py', *arguments)
        assert result.exit_code == 1
        assert result.output.startswith('Error: ')
        assert message in result.output


def test_query_finds_uncertain_structures(model: ModelData, monkeypatch) -> None:
    """Only structures above the threshold are named, by the node and their index in it."""
    import numpy as np

    from aiida_mlpotential.data.results import ResultsData

    node = ResultsData()
    node.set_array('qbc', np.array([0.001, 0.006, np.nan, 0.02, *[0.005] * 20, *[0.03] * 20]))
    node.base.attributes.set_many({'qbc_max': 0.03, 'model_sha256': 'ab' * 32})
    monkeypatch.setattr(ResultsData, '_validate', lambda self: True)
    node.store()
    answers = _run('query_results.py', 'spread', '0.005', '--model', 'abababab').output
    assert f'  {node.pk}, 1: 0.006000\n  {node.pk}, 3: 0.020000\n' in answers
    assert f'{node.pk}, 0' not in answers
    assert answers.count(': 0.030000') == 18
    assert '  ... and 2 more' in answers
    assert f'{node.pk}, ' not in _run('query_results.py', 'spread', '0.005', '--model', 'cdcdcdcd').output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--code', 'none@nowhere'], '`aiida-mlpotential setup`'),
        (['--model', '999999'], 'No'),
        (['--model', 'ANI-3'], "there is no model 'ANI-3'"),
    ],
)
def test_mistakes_are_one_sentence(model: ModelData, arguments: list[str], message: str) -> None:
    """A Code or a model that does not exist is no traceback."""
    for name in PLAIN:
        result = _run(name, '--model', model.pk, *arguments)
        assert result.exit_code == 1
        assert result.output.startswith('Error: ')
        assert message in result.output


@pytest.mark.slow
@pytest.mark.parametrize('name', PLAIN)
def test_failure_is_an_error(model: ModelData, name: str) -> None:
    """A calculation without results ends an example with its exit message."""
    computer = orm.load_computer('localhost')
    orm.InstalledCode(label='false', computer=computer, filepath_executable='/bin/false').store()
    result = _run(name, '--model', model.pk, '--code', 'false@localhost')
    assert result.exit_code == 1
    assert 'failed: ' in result.output
