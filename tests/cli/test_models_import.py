"""``models import``: own files into the profile."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from aiida import orm

from aiida_mlpotential.cli.models_import import parse_option
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.worker.backends.base import FileFacts

pytestmark = pytest.mark.usefixtures('aiida_profile_clean')


@pytest.fixture
def file(file_facts, tmp_path: Path) -> Path:
    """Return a parameter file of which every backend thinks well."""
    path = tmp_path / 'x.npz'
    path.write_text('1')
    return path


def models() -> list[ModelData]:
    return orm.QueryBuilder().append(ModelData).all(flat=True)


def test_import(file: Path, invoke) -> None:
    """Every option arrives in the node."""
    arguments = ['--name', 'mine', '--elements', 'H,C', '--energy-unit', 'hartree', '--distance-unit', 'bohr']
    arguments += ['--licence', 'MIT', '--source', 'here', '--method', 'CCSD(T)', '--doi', 'https://doi.org/10.1/x']
    arguments += ['--option', 'cutoff=5.5', '--option', 'energy_key="c=d"']
    result = invoke('models', 'import', file, '--backend', 'schnetpack', *arguments)
    assert result.exit_code == 0, result.output
    (node,) = models()
    assert (node.name, node.elements, node.energy_unit, node.distance_unit) == ('mine', ('H', 'C'), 'Hartree', 'bohr')
    assert (node.licence, node.source_text, node.method, node.doi) == ('MIT', 'here', 'CCSD(T)', '10.1/x')
    assert node.options == {'cutoff': 5.5, 'energy_key': 'c=d'}
    assert f'stored mine as ModelData<{node.pk}>.' in result.output
    assert f'`aiida-mlpotential launch single-point FILE --model {node.pk}`' in result.output
    assert 'Hartree (as given)' in result.output
    again = invoke('models', 'import', file, '--backend', 'schnetpack', *arguments)
    assert f'the same model is in the profile already: mine, ModelData<{node.pk}>.' in again.output
    assert len(models()) == 1


def test_committee(file: Path, invoke) -> None:
    """Several files are one model."""
    other = file.with_name('y.npz')
    other.write_text('2')
    result = invoke('models', 'import', file, other, '-b', 'sgdml')
    assert result.exit_code == 0, result.output
    assert models()[0].committee == 2
    assert '2, a committee of separate files' in result.output


def test_trust(file: Path, file_facts, invoke) -> None:
    """A file that needs trust is refused with the reason; with it, both are recorded."""
    file_facts['x.npz'] = FileFacts(needs_trust='it is a pickle of os.system', remarks=('odd',))
    result = invoke('models', 'import', file, '-b', 'sgdml')
    assert result.exit_code == 1
    assert 'it is a pickle of os.system; if you have that, say so with `--trust`' in result.output
    assert models() == []
    result = invoke('models', 'import', file, '-b', 'sgdml', '--trust')
    assert result.exit_code == 0, result.output
    assert models()[0].trusted is True
    assert 'yes, its files may run code: it is a pickle of os.system' in result.output
    assert '\nNote: odd.\n' in result.output


def test_exported_model(file: Path, invoke, tmp_path: Path) -> None:
    """An archive needs no backend."""
    assert invoke('models', 'import', file, '-b', 'sgdml', '--elements', 'H').exit_code == 0
    (node,) = models()
    assert invoke('models', 'export', node.pk, tmp_path / 'e.zip').exit_code == 0
    result = invoke('models', 'import', tmp_path / 'e.zip')
    assert result.exit_code == 0, result.output
    assert f'in the profile already: x, ModelData<{node.pk}>.' in result.output


def test_facts_that_an_earlier_node_has_otherwise(file: Path, invoke) -> None:
    """A stored node does not change, and whoever gave other facts learns that."""
    assert invoke('models', 'import', file, '-b', 'sgdml', '--licence', 'MIT').exit_code == 0
    again = invoke('models', 'import', file, '-b', 'sgdml', '--licence', 'CC0', '--name', 'other')
    assert 'a stored node does not change: name and licence were not taken' in again.output
    assert 'were not taken' not in invoke('models', 'import', file, '-b', 'sgdml', '--licence', 'MIT').output


FIXTURES = Path(__file__).parents[1] / 'fixtures'


@pytest.mark.parametrize(
    ('path', 'backend', 'right'),
    [
        ('schnetpack/best_model', 'torchani', 'schnetpack'),
        ('torchani/custom_torchscript.pt', 'schnetpack', 'torchani'),
        ('sgdml/ethanol_kcal_ang.npz', 'pinn', 'sgdml'),
        ('pinn/pinet2_ev', 'sgdml', 'pinn'),
    ],
)
def test_wrong_backend(invoke, path: str, backend: str, right: str) -> None:
    """The right one is named, where one reads the file: trust in it would be the wrong remedy."""
    result = invoke('models', 'import', FIXTURES / path, '-b', backend)
    assert result.exit_code == 1
    assert f'{path} is a model of {right}: import it with `--backend {right}`.' in result.output
    assert '--trust' not in result.output
    assert models() == []


def test_right_backend_and_another_mistake(invoke) -> None:
    """The reason is not hidden by advice to do what was done."""
    result = invoke('models', 'import', FIXTURES / 'sgdml/ethanol_kcal_ang.npz', '-b', 'sgdml', '--option', 'a=1')
    assert result.exit_code == 1
    assert "unknown option 'a'" in result.output
    assert 'import it with' not in result.output


def test_model_in_a_package(invoke) -> None:
    """Without a file."""
    result = invoke('models', 'import', '-b', 'chgnet')
    assert result.exit_code == 0, result.output
    assert models()[0].name == 'CHGNet'
    assert 'Note: the parameters are those in the package chgnet' in result.output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], '--backend is needed for a parameter file: one of torchani'),
        (['x.npz'], '--backend is needed for a parameter file'),
        (['x.npz', '-b', 'nope'], "'nope' is not one of 'torchani'"),
        (['x.npz', '-b', 'sgdml', '--energy-unit', 'Rydberg'], "'Rydberg' is not one of"),
        (['x.npz', '-b', 'sgdml', '--option', 'a'], "'a' is not KEY=JSON"),
        (['x.npz', '-b', 'sgdml', '--option', 'a=b'], "'a=b' is not KEY=JSON"),
    ],
)
def test_wrong_usage(file: Path, invoke, monkeypatch, arguments: list[str], message: str) -> None:
    """What the command line itself refuses."""
    monkeypatch.chdir(file.parent)
    result = invoke('models', 'import', *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert models() == []


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['absent.npz', '-b', 'sgdml'], "Error: there is no model file 'absent.npz'."),
        (['x.npz', '-b', 'sgdml', '--elements', 'Xy'], "'Xy' in elements is no chemical symbol."),
        (['x.npz', 'x.npz', '-b', 'sgdml'], 'are the same parameters'),
        (['-b', 'sgdml'], 'name at least one parameter file.'),
        (['bad.zip'], "'bad.zip' is no zip archive"),
        (['--', '-rf'], '--backend is needed'),
        (['-b', 'sgdml', '--', '-rf'], "there is no model file '-rf'."),
    ],
)
def test_refused(file: Path, invoke, monkeypatch, arguments: list[str], message: str) -> None:
    """One sentence, no traceback, nothing stored."""
    monkeypatch.chdir(file.parent)
    Path('bad.zip').write_text('no zip')
    result = invoke('models', 'import', *arguments)
    assert result.exit_code in (1, 2)
    assert message in ' '.join(result.output.split())
    assert 'Traceback' not in result.output
    assert models() == []


def test_options() -> None:
    """The value is JSON, and may have an equals sign."""
    assert parse_option('a={"b": "c=d"}') == ('a', {'b': 'c=d'})
    for text in ('=1', 'a', 'a=', 'a=b'):
        with pytest.raises(click.BadParameter, match='is not KEY=JSON'):
            parse_option(text)
