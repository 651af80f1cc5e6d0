"""``launch reaction``: files of educts and products in, tables, nodes and a picture out."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest
from aiida import orm
from ase import Atoms

from aiida_mlpotential.cli import launch_reaction
from aiida_mlpotential.cli.launch_reaction import Species

COMMAND = ('launch', 'reaction')


@pytest.fixture
def clusters(tmp_path: Path) -> dict[str, Path]:
    """Return files of two clusters of copper."""
    atoms = {
        'cu2': Atoms('Cu2', positions=[[0, 0, 0], [2.3, 0, 0]]),
        'cu-4': Atoms('Cu4', positions=[[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [1.2, 0.7, 2.0]]),
    }
    for name, item in atoms.items():
        ase.io.write(tmp_path / f'{name}.xyz', item)
    return {name: tmp_path / f'{name}.xyz' for name in atoms}


def _last() -> orm.WorkChainNode:
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'attributes.process_label': 'ReactionWorkChain'})
    return query.one()[0]


@pytest.mark.slow
def test_a_reaction(code, emt, clusters, invoke, tmp_path) -> None:
    """The table has both species and all quantities; the picture is drawn; the conditions reach the jobs."""
    result = invoke(
        *COMMAND,
        *('--educt', f'2:{clusters["cu2"]}', '--product', clusters['cu-4'], '-M', emt.pk),
        *('--temperature', '298.15,500', '--gas-pressure', '1e5', '--spin-multiplicity', 'cu2=3'),
        *('--plot', tmp_path / 'reaction.svg', '--protocol', 'fast', '-w', '600'),
    )
    assert result.exit_code == 0, result.output
    node = _last()
    reaction = node.outputs.reaction.get_dict()
    assert reaction['equation'] == '2 cu2 → cu_4'
    assert reaction['temperatures'] == [298.15, 500.0]
    assert reaction['species']['cu2']['spin_multiplicity'] == 3
    assert node.label == 'cu2, cu_4'
    assert '2 cu2 → cu_4 with EMT:' in result.output
    rows = [line.split() for line in result.output.splitlines()]
    gibbs = [row['kcal_per_mol'] for row in reaction['table'] if row['quantity'] == 'gibbs_energy']
    for temperature, value in zip(('298.15', '500'), gibbs, strict=True):
        row = next(row for row in rows if row[:1] == [temperature])
        assert float(row[5]) == pytest.approx(value, abs=0.006)
    assert f'Reaction Gibbs energy at 298.15 K and 1 bar: {gibbs[0]:+.2f} kcal/mol' in result.output
    assert f'aiida-mlpotential plot {node.pk}' in result.output
    assert (tmp_path / 'reaction.svg').read_text().count('<svg') == 1
    jobs = [item for item in node.called_descendants if isinstance(item, orm.CalcJobNode)]
    assert {job.get_option('max_wallclock_seconds') for job in jobs} == {600}


@pytest.mark.parametrize(
    ('arguments', 'code_of_exit', 'message'),
    [
        (['--educt', 'cu2', '--product', 'cu-4'], 1, 'the atoms do not balance in cu2 → cu_4'),
        (['--educt', 'x:cu2', '--product', 'cu-4'], 2, "'x' before the colon is no number"),
        (['--educt', '0:cu2', '--product', 'cu-4'], 2, 'the number must be above 0'),
        (['--educt', '2:cu2', '--product', 'none'], 2, 'there is no file'),
        (['--educt', 'cu2', '--product', 'cu2'], 1, 'the coefficient 0.0 of cu2'),
        (['--educt', '2:cu2'], 2, "Missing option '--product'"),
        (['--educt', '2:cu2', '--product', 'cu-4', '--spin-multiplicity', 'cu2'], 2, 'such as `o2=3`'),
        (['--educt', '2:cu2', '--product', 'cu-4', '--spin-multiplicity', 'o2=3'], 1, 'names o2: the species are'),
        (['--educt', '2:cu2', '--product', 'cu-4', '--temperature', '-5'], 2, 'temperatures above 0 K'),
        (['--educt', '2:cu2', '--product', 'cu-4', '-D', '--plot', 'x.png'], 2, '--daemon does not wait'),
        (['--educt', '2:cu2', '--product', 'cu-4', '--plot', 'x.doc'], 2, "'.doc' is none"),
    ],
)
def test_mistakes(code, emt, clusters, invoke, arguments, code_of_exit, message) -> None:
    """One sentence, no traceback, no process."""
    places = {name: str(path) for name, path in clusters.items()}
    words = [
        ':'.join([*word.split(':')[:-1], places.get(word.split(':')[-1], word.split(':')[-1])]) for word in arguments
    ]
    result = invoke(*COMMAND, *words, '-M', emt.pk)
    assert result.exit_code == code_of_exit, result.output
    assert message in ' '.join(result.output.split())
    assert 'Traceback' not in result.output
    assert orm.QueryBuilder().append(orm.ProcessNode).count() == 0


def test_a_file_is_one_molecule(code, emt, clusters, invoke) -> None:
    ase.io.write(clusters['cu2'], [Atoms('Cu2', positions=[[0, 0, 0], [2.3, 0, 0]])] * 2)
    result = invoke(*COMMAND, '--educt', f'2:{clusters["cu2"]}', '--product', clusters['cu-4'], '-M', emt.pk)
    assert result.exit_code == 1
    assert 'holds 2 structures: a species is a file with one' in result.output


def test_two_files_of_one_name(code, emt, clusters, invoke, tmp_path) -> None:
    (tmp_path / 'other').mkdir()
    other = tmp_path / 'other' / 'cu2.xyz'
    other.write_text(clusters['cu2'].read_text())
    result = invoke(*COMMAND, '--educt', clusters['cu2'], '--educt', other, '--product', clusters['cu-4'], '-M', emt.pk)
    assert result.exit_code == 2
    assert 'would both be the species cu2: rename' in ' '.join(result.output.split())


@pytest.mark.slow
def test_a_failed_species_is_an_error(code, emt, clusters, invoke, monkeypatch) -> None:
    """The command ends with the message of the workflow."""
    ase.io.write(clusters['cu2'], Atoms('Cu2', positions=[[0, 0, 0], [0.1, 0, 0]]))
    result = invoke(*COMMAND, '--educt', f'2:{clusters["cu2"]}', '--product', clusters['cu-4'], '-M', emt.pk)
    assert result.exit_code == 1
    assert 'There is no reaction without all its species' in ' '.join(result.output.split())


def test_daemon(code, emt, clusters, invoke, daemon, monkeypatch) -> None:
    submitted = []

    def submit(builder, inputs=None):
        submitted.append(builder)
        return orm.WorkChainNode().store()

    monkeypatch.setattr('aiida.engine.submit', submit)
    result = invoke(*COMMAND, '--educt', f'2:{clusters["cu2"]}', '--product', clusters['cu-4'], '-M', emt.pk, '-D')
    assert result.exit_code == 0, result.output
    assert submitted[0].stoichiometry.get_dict() == {'cu2': -2.0, 'cu_4': 1.0}
    assert 'aiida-mlpotential watch ' in result.output


def test_daemon_without_a_broker(code, emt, clusters, invoke) -> None:
    """Said before a file is read, of which one would be wrong as well."""
    clusters['cu2'].write_text('')
    result = invoke(*COMMAND, '--educt', f'2:{clusters["cu2"]}', '--product', clusters['cu-4'], '-M', emt.pk, '-D')
    assert result.exit_code == 1
    assert 'has no broker' in result.output


@pytest.mark.parametrize(
    ('file', 'name'), [('a b-c.xyz', 'a_b_c'), ('2h.xyz', 's_2h'), ('öl.xyz', 'l'), ('--.xyz', 's')]
)
def test_names_of_species(file: str, name: str) -> None:
    """A link in the database is called so: letters, digits and underscores."""
    assert launch_reaction.Species(1, Path(file)).name == name
    assert isinstance(Species(1, Path(file)), tuple)
