"""``launch screening``: files in, a ranking and nodes out; one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from aiida import orm
from ase.build import bulk, molecule

from aiida_mlpotential.cli import running
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData

COMMAND = ('launch', 'screening')


@pytest.fixture
def crystals(tmp_path: Path) -> Path:
    """Return a file with six distorted crystals of two formulas."""
    random = np.random.default_rng(3)
    frames = []
    for number in range(6):
        atoms = bulk('Cu', cubic=True) * (1 + number % 2, 1, 1)
        atoms.rattle(0.02 * (number + 1), rng=random)
        frames.append(atoms)
    path = tmp_path / 'crystals.xyz'
    ase.io.write(path, frames, format='extxyz')
    return path


@pytest.fixture
def other_emt(emt: ModelData) -> ModelData:
    """Return a second model, with a name that no link may have."""
    kwargs = {'asap_cutoff': True}
    return ModelData.from_ase_calculator(
        'ase.calculators.emt.EMT', kwargs=kwargs, name='EMT-as.ap', elements=['Cu']
    ).get_or_store()


def _last() -> orm.WorkChainNode:
    filters = {'process_type': {'like': '%mlpotential.screening'}}
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters=filters, tag='chain')
    return query.order_by({'chain': {'id': 'desc'}}).first(flat=True)


def _pk(label: str) -> int:
    return _last().outputs.results[label].pk


def _jobs() -> int:
    return orm.QueryBuilder().append(orm.CalcJobNode).count()


@pytest.mark.slow
def test_ranking_and_output(code, emt: ModelData, crystals: Path, invoke, tmp_path: Path) -> None:
    """Six structures in slices of two: a table by formula and energy, the nodes, and a file with all of them."""
    output = tmp_path / 'out.xyz'
    result = invoke(*COMMAND, crystals, '-M', emt.pk, '--slice-size', '2', '--max-concurrent', '1', '-o', output)
    assert result.exit_code == 0, result.output
    node = _last()
    assert node.label == 'crystals.xyz'
    assert node.inputs.slice_size.value == 2
    assert _jobs() == 3
    results = node.outputs.results.EMT
    energies = results.energies
    rows = [line.split() for line in result.output.splitlines() if line.endswith(' OK')]
    assert [row[0] for row in rows] == [str(i) for i in [0, 2, 4, 1, 3, 5]]
    assert [row[1] for row in rows] == ['Cu4'] * 3 + ['Cu8'] * 3
    expected = [1000 * (energies[i] - energies[i % 2]) for i in [0, 2, 4, 1, 3, 5]]
    assert [float(row[2]) for row in rows] == pytest.approx(expected, abs=0.051)
    where = f'MergedResultsData<{results.pk}> (`outputs.results.EMT`)'
    assert f'EMT: 6 of 6 structures evaluated; all numbers are in {where}.' in result.output
    assert 'taken from the database' not in result.output
    assert f'Ranking of all structures: ArrayData<{node.outputs.ranking.pk}>.' in result.output
    written = [atoms.get_potential_energy() for atoms in ase.io.read(output, index=':')]
    assert written == pytest.approx(energies.tolist(), abs=1e-6)


@pytest.mark.slow
def test_the_same_command_again_computes_nothing(code, emt: ModelData, crystals: Path, invoke) -> None:
    """The file becomes the node that is there already, of which all slices are done; --no-reuse computes them anew."""
    command = (*COMMAND, crystals, '-M', emt.pk, '--slice-size', '3')
    assert invoke(*command).exit_code == 0
    first, jobs = _last(), _jobs()
    again = invoke(*command)
    assert again.exit_code == 0, again.output
    assert _last().pk != first.pk
    assert _jobs() == jobs == 2
    assert '2 of 2 slices taken from the database.' in again.output
    assert orm.QueryBuilder().append(StructureSetData).count() == 1
    assert _last().outputs.results.EMT.energies.tolist() == first.outputs.results.EMT.energies.tolist()
    assert invoke(*command, '--no-reuse').exit_code == 0
    assert _jobs() == jobs + 2


@pytest.mark.slow
def test_files_and_models(code, emt: ModelData, other_emt: ModelData, crystals: Path, invoke, tmp_path) -> None:
    """Several files are one set, and each of several models has its columns and its results."""
    more = tmp_path / 'more.xyz'
    ase.io.write(more, [bulk('Cu'), bulk('Cu', a=3.7)], format='extxyz')
    result = invoke(*COMMAND, crystals, more, '-M', other_emt.pk, '-M', emt.pk, '-i', '-2:', '--property', 'energy')
    assert result.exit_code == 0, result.output
    node = _last()
    assert node.label == 'crystals.xyz, more.xyz'
    assert node.inputs.structures.formulas == ['Cu', 'Cu4', 'Cu8']
    assert len(node.inputs.structures) == 4
    assert node.inputs.parameters.get_dict() == {'properties': ['energy']}
    assert sorted(node.outputs.results) == ['EMT', 'EMT_as_ap']
    header = next(line for line in result.output.splitlines() if 'formula' in line).split()
    assert header == ['#', 'formula', 'EMT-as.ap', 'EMT', 'status'], 'names, and not the labels of the links'
    assert f'EMT-as.ap: 4 of 4 structures evaluated; all numbers are in MergedResultsData<{_pk("EMT_as_ap")}> ' in (
        result.output
    )


@pytest.mark.slow
def test_optimize(code, emt: ModelData, crystals: Path, invoke, tmp_path: Path) -> None:
    """Structures are optimized first; the file has their geometries, and the precision holds for both."""
    output = tmp_path / 'out.xyz'
    options = ('--optimize', '--force-tolerance', '0.001', '--precision', 'double', '-o', output)
    result = invoke(*COMMAND, crystals, '-M', emt.pk, *options)
    assert result.exit_code == 0, result.output
    node = _last()
    inputs = node.inputs.optimization
    assert inputs.parameters.get_dict() == {'precision': 'double', 'force_tolerance': 0.001}
    assert inputs.model.value == 'EMT'
    assert f'Optimized structures: StructureSetData<{node.outputs.output_structures.pk}>.' in result.output
    assert np.abs(node.outputs.results.EMT.forces).max() < 0.0011
    positions = np.concatenate([atoms.positions for atoms in ase.io.read(output, index=':')])
    np.testing.assert_allclose(positions, node.outputs.output_structures.get_frames().positions, atol=1e-6)


@pytest.mark.slow
def test_set_of_the_profile(code, emt: ModelData, invoke) -> None:
    """A set of structures that is stored already, by its PK."""
    structures = StructureSetData.from_ase([bulk('Cu'), bulk('Ni')]).store()
    result = invoke(*COMMAND, '--structures', structures.pk, '-M', emt.pk)
    assert result.exit_code == 0, result.output
    assert _last().inputs.structures.pk == structures.pk


@pytest.mark.slow
def test_structures_that_fail(code, emt: ModelData, invoke, tmp_path: Path) -> None:
    """A bad structure stands last, with its status; the command ends with the exit message and 1."""
    frames = [bulk('Cu'), bulk('Fe'), bulk('Ni')]
    ase.io.write(tmp_path / 'some.xyz', frames, format='extxyz')
    result = invoke(*COMMAND, tmp_path / 'some.xyz', '-M', emt.pk)
    assert result.exit_code == 1
    assert ['1', 'Fe', 'UNSUPPORTED_ELEMENT'] in [line.split() for line in result.output.splitlines()]
    assert 'EMT: 2 of 3 structures evaluated, 1 failed' in result.output
    assert '#1: UNSUPPORTED_ELEMENT: contains Fe; the model knows ' in result.output
    assert 'failed (exit code 700): 1 of 3 failed with EMT (1 UNSUPPORTED_ELEMENT).' in result.output
    assert 'The same command again' not in result.output, 'there is nothing missing'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((), 'name a FILE of structures or more'),
        (('FILE', '--structures', '1'), 'name a FILE of structures or more'),
        (('--structures', '999999'), "there is no node '999999'"),
        (('--structures', 'MODEL'), 'is no set of structures, but a ModelData'),
        (('FILE', '--daemon', '-o', 'x.xyz'), '--output needs the results'),
        (('FILE', '--max-steps', '3'), '--max-steps is for optimizations: add --optimize.'),
        (('FILE', '-M', 'MODEL', '-M', 'MODEL'), 'EMT is there twice'),
        (('FILE', '-M', 'MODEL', '--select', '2'), 'no model is an ensemble'),
        (('FILE', '-M', 'MODEL', '--max-qbc', '0'), '--max-qbc'),
        (('FILE', '-M', 'MODEL', '--slice-size', '0'), '--slice-size'),
        (('FILE', '-o', 'FILE'), 'is the file of the structures'),
    ],
)
def test_mistakes(code, emt: ModelData, crystals: Path, invoke, arguments, message: str) -> None:
    """Each mistake is one sentence, and nothing is submitted."""
    known = {'FILE': crystals, 'MODEL': emt.pk}
    result = invoke(*COMMAND, *(known.get(item, item) for item in arguments))
    assert result.exit_code != 0
    assert message in ' '.join(result.output.split())
    assert 'Traceback' not in result.output
    assert _jobs() == 0


@pytest.mark.slow
def test_uncertain_structures(code, emt: ModelData, invoke, tmp_path: Path) -> None:
    """An ensemble flags what it is not certain of, and the most uncertain structures become a set of their own."""
    pytest.importorskip('torchani')
    path = Path(__file__).parents[1] / 'fixtures' / 'torchani' / 'custom_full_ani.pt'
    imported = invoke('models', 'import', path, '-b', 'torchani')
    assert imported.exit_code == 0, imported.output
    model = orm.QueryBuilder().append(ModelData, filters={'attributes.backend': 'torchani'}).one()[0]
    random = np.random.default_rng(2)
    frames = []
    for _ in range(5):
        atoms = molecule('H2O')
        atoms.positions += random.normal(scale=0.15, size=(3, 3))
        frames.append(atoms)
    ase.io.write(tmp_path / 'water.xyz', frames, format='extxyz')
    result = invoke(*COMMAND, tmp_path / 'water.xyz', '-M', model.pk, '--max-qbc', '1e-9', '--select', '2')
    assert result.exit_code == 0, result.output
    node = _last()
    assert f'2 structures for references: StructureSetData<{node.outputs.selected_structures.pk}>.' in result.output
    assert '5 structures flagged (*): std/√atoms above 0.0 meV.' in result.output
    assert sum(line.endswith('OK *') for line in result.output.splitlines()) == 5


def test_daemon_without_a_broker(code, emt: ModelData, crystals: Path, invoke) -> None:
    """One sentence, before the file is read, which would be wrong as well."""
    crystals.write_text('')
    result = invoke(*COMMAND, crystals, '-M', emt.pk, '--daemon')
    assert result.exit_code == 1
    assert 'has no broker' in result.output
    assert len(result.output.splitlines()) == 1
    assert orm.QueryBuilder().append((orm.ProcessNode, StructureSetData)).count() == 0


def test_daemon(code, emt: ModelData, crystals: Path, invoke, daemon, monkeypatch) -> None:
    """A submission does not wait, and says how to follow it."""
    submitted = []

    def submit(process, inputs):
        submitted.append(inputs)
        return orm.WorkChainNode().store()

    monkeypatch.setattr('aiida.engine.submit', submit)
    result = invoke(*COMMAND, crystals, '-M', emt.pk, '-D')
    assert result.exit_code == 0, result.output
    assert len(submitted[0]['structures']) == 6
    assert '`aiida-mlpotential watch ' in result.output


@pytest.mark.slow
def test_runs_as_other_workflows_do(code, emt: ModelData, crystals: Path, invoke, monkeypatch) -> None:
    """Through ``run_node``, which looks every second and needs no broker."""
    asked, original = [], running.run_node

    def run_node(process, inputs=None):
        asked.append(process.__name__)
        return original(process, inputs)

    monkeypatch.setattr(running, 'run_node', run_node)
    assert invoke(*COMMAND, crystals, '-M', emt.pk).exit_code == 0
    assert asked == ['ScreeningWorkChain']


def test_no_structure_can_be_evaluated(code, emt: ModelData, invoke, tmp_path: Path) -> None:
    """What is wrong is said once, without the names of the ports that the message passed through."""
    ase.io.write(tmp_path / 'iron.xyz', [bulk('Fe'), bulk('Fe', cubic=True)], format='extxyz')
    result = invoke(*COMMAND, tmp_path / 'iron.xyz', '-M', emt.pk)
    assert result.exit_code == 1
    error = result.output.splitlines()[-1]
    assert error.startswith('Error: structures: EMT can evaluate none of them; the first: contains Fe')
