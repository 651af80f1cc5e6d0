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


def test_run_single_point(model: ModelData) -> None:
    """Energy and forces of one molecule, in double precision."""
    result = _run('run_single_point.py', '--model', model.pk)
    assert result.exit_code == 0, result.output
    node = orm.QueryBuilder().append(orm.CalcJobNode).one()[0]
    assert f'SinglePointCalculation<{node.pk}> with EMT on C2H6O' in result.output
    energy = float(next(line for line in result.output.splitlines() if line.startswith('energy')).split()[1])
    assert energy == pytest.approx(node.outputs.output_parameters['energy'], abs=1e-6)
    assert node.outputs.output_parameters['precision'] == 'double'


def test_run_batch_and_query(model: ModelData) -> None:
    """A batch with one bad structure, and what the database knows of it afterwards."""
    result = _run('run_batch.py', '--model', model.pk, '--number', '5')
    assert result.exit_code == 0, result.output
    assert '4 of 5 done, exit code 400' in result.output
    assert 'ethanol-4: ' in result.output
    answers = _run('query_results.py', '--model', 'EMT')
    assert answers.exit_code == 0, answers.output
    node = orm.QueryBuilder().append(orm.CalcJobNode).one()[0]
    results = node.outputs.results
    lowest = results.base.attributes.get('energy_min')
    assert f'  {results.pk}: 5, {lowest:.6f}' in answers.output
    import ase

    assert f'  ase {ase.__version__}: 1' in answers.output


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
    node.base.attributes.set_many({'qbc_max': 0.03, 'model_name': 'mine'})
    monkeypatch.setattr(ResultsData, '_validate', lambda self: True)
    node.store()
    answers = _run('query_results.py', '--model', 'mine', '--spread', '0.005').output
    assert f'  {node.pk}, 1: 0.006000\n  {node.pk}, 3: 0.020000\n' in answers
    assert f'{node.pk}, 0' not in answers
    assert answers.count(': 0.030000') == 18
    assert '  ... and 2 more' in answers
    assert f'{node.pk}, ' not in _run('query_results.py', '--model', 'other', '--spread', '0.005').output


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
    for name in ('run_single_point.py', 'run_batch.py'):
        result = _run(name, '--model', model.pk, *arguments)
        assert result.exit_code == 1
        assert result.output.startswith('Error: ')
        assert message in result.output


def test_failure_is_an_error(model: ModelData, tmp_path: Path) -> None:
    """A calculation without results ends an example with its exit message."""
    computer = orm.load_computer('localhost')
    orm.InstalledCode(label='false', computer=computer, filepath_executable='/bin/false').store()
    for name in ('run_single_point.py', 'run_batch.py'):
        result = _run(name, '--model', model.pk, '--code', 'false@localhost')
        assert result.exit_code == 1
        assert 'failed: ' in result.output
