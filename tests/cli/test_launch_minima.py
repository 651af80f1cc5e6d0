"""``launch thermochemistry --optimize``: minima first, with the options of both jobs."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest
from aiida import orm
from ase import Atoms

COMMAND = ('launch', 'thermochemistry')


@pytest.fixture
def clusters(tmp_path: Path) -> Path:
    """Return a file with a square of copper, which is a saddle point, and with a molecule."""
    square = Atoms('Cu4', positions=[[0, 0, 0], [2.3, 0, 0], [0, 2.3, 0], [2.3, 2.3, 0]])
    nitrogen = Atoms('N2', positions=[[0, 0, 0], [0, 0, 1.2]])
    square.info['label'], nitrogen.info['label'] = 'square', 'nitrogen'
    ase.io.write(tmp_path / 'clusters.xyz', [square, nitrogen], format='extxyz')
    return tmp_path / 'clusters.xyz'


def _workflow() -> orm.WorkChainNode:
    filters = {'attributes.process_label': 'ThermochemistryWorkChain'}
    return orm.QueryBuilder().append(orm.WorkChainNode, filters=filters).one()[0]


@pytest.mark.slow
def test_a_set(code, emt, clusters, invoke, tmp_path: Path) -> None:
    """Saddle points are left, and said so; parameters of the machine go to both jobs, conditions to one."""
    output = tmp_path / 'minima.xyz'
    result = invoke(
        *COMMAND,
        *(clusters, '-M', emt.pk, '--optimize', '--protocol', 'fast', '--temperature', '400'),
        *('--num-threads', '1', '-o', output, '-w', '600'),
    )
    assert result.exit_code == 0, result.output
    node = _workflow()
    assert node.label == clusters.name
    assert '1 structure moved along imaginary modes and optimized again: square' in result.output
    assert f'The minima are in StructureSetData<{node.outputs.output_structures.pk}>' in result.output
    assert 'H and G at 400 K' in result.output
    assert result.output.count('minimum') >= 2
    jobs = {item.process_label: item for item in node.called_descendants if isinstance(item, orm.CalcJobNode)}
    optimization = jobs['GeometryOptimizationCalculation'].inputs.parameters.get_dict()
    analysis = jobs['ThermochemistryCalculation'].inputs.parameters.get_dict()
    assert (optimization['num_threads'], analysis['num_threads']) == (1, 1)
    assert (optimization['force_tolerance'], analysis['temperatures']) == (0.01, [400.0])
    assert 'temperatures' not in optimization
    assert {job.get_option('max_wallclock_seconds') for job in jobs.values()} == {600}
    written = ase.io.read(output, index=':')
    for atoms, expected in zip(written, node.outputs.results.energies, strict=True):
        assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_one_structure(code, emt, clusters, invoke) -> None:
    result = invoke(*COMMAND, clusters, '-M', emt.pk, '--optimize', '--index', '1')
    assert result.exit_code == 0, result.output
    node = _workflow()
    assert f'The minima are in StructureData<{node.outputs.output_structure.pk}>' in result.output
    assert 'symmetry number 2' in result.output


@pytest.mark.slow
def test_without_the_option_it_is_one_job(code, emt, clusters, invoke) -> None:
    result = invoke(*COMMAND, clusters, '-M', emt.pk, '--index', '1', '--force-tolerance', '100')
    assert result.exit_code == 0, result.output
    assert orm.QueryBuilder().append(orm.WorkChainNode).count() == 0
    assert orm.QueryBuilder().append(orm.CalcJobNode).count() == 1


@pytest.mark.slow
def test_a_failure_is_an_error(code, emt, clusters, invoke) -> None:
    result = invoke(*COMMAND, clusters, '-M', emt.pk, '--optimize', '--index', '1', '--expected', 'transition_state')
    assert result.exit_code == 1
    assert 'ThermochemistryWorkChain<' in result.output
    assert 'WRONG_CHARACTER' in result.output
    assert 'Traceback' not in result.output


@pytest.mark.parametrize(
    ('arguments', 'code_of_exit', 'message'),
    [
        (['--continue', '1', '--optimize'], 2, 'leave out'),
        (['FILE', '--optimize', '--spin-multiplicity', '1,2,3'], 1, 'has 3 values for 2 structures'),
        (['FILE', '--optimize', '--protocol', 'sloppy'], 2, "'sloppy' is not one of"),
    ],
)
def test_mistakes(code, emt, clusters, invoke, arguments, code_of_exit, message) -> None:
    words = [str(clusters) if word == 'FILE' else word for word in arguments]
    result = invoke(*COMMAND, *words, '-M', emt.pk)
    assert result.exit_code == code_of_exit, result.output
    assert message in ' '.join(result.output.split())
    assert orm.QueryBuilder().append(orm.ProcessNode).count() == 0


def test_daemon(code, emt, clusters, invoke, daemon, monkeypatch) -> None:
    submitted = []

    def submit(builder, inputs=None):
        submitted.append(builder)
        return orm.WorkChainNode().store()

    monkeypatch.setattr('aiida.engine.submit', submit)
    result = invoke(*COMMAND, clusters, '-M', emt.pk, '--optimize', '-D')
    assert result.exit_code == 0, result.output
    assert len(submitted[0].structures) == 2
    assert 'aiida-mlpotential watch ' in result.output
