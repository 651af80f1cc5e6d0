"""``launch``: files in, table and nodes out, one sentence for each mistake; mostly shown on single points."""

from __future__ import annotations

import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
from aiida import orm
from ase import Atoms
from ase.build import bulk, molecule

from aiida_mlpotential import library
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.structures import StructureSetData

COMMAND = ('launch', 'single-point')


@pytest.fixture
def molecules(tmp_path: Path) -> Path:
    """Return a file with three molecules."""
    path = tmp_path / 'molecules.xyz'
    ase.io.write(path, [molecule(name) for name in ('H2O', 'CO', 'CH3CH2OH')])
    return path


def _last() -> orm.CalcJobNode:
    query = orm.QueryBuilder().append(orm.CalcJobNode, tag='job').order_by({'job': {'id': 'desc'}})
    return query.first(flat=True)


@pytest.mark.slow
def test_many_structures(code: orm.InstalledCode, emt: ModelData, molecules: Path, invoke, tmp_path: Path) -> None:
    """A file of several structures is one calculation, with a table, a summary and an extended XYZ file."""
    output = tmp_path / 'out.extxyz'
    result = invoke(*COMMAND, molecules, '--model', emt.pk, '--output', output)
    assert result.exit_code == 0, result.output
    node = _last()
    assert node.label == molecules.name
    assert isinstance(node.inputs.structures, StructureSetData)
    assert node.inputs.code.pk == code.pk
    assert node.inputs.model.pk == emt.pk
    assert '3 structures with EMT' in result.output
    assert 'C2H6O' in result.output
    assert '3 of 3 structures evaluated; energies from ' in result.output
    assert f'ResultsData<{node.outputs.results.pk}>' in result.output
    written = ase.io.read(output, index=':')
    assert [len(atoms) for atoms in written] == [3, 2, 9]
    for atoms, energy in zip(written, node.outputs.results.energies, strict=True):
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-6)


@pytest.mark.slow
def test_one_structure(code: orm.InstalledCode, emt: ModelData, tmp_path: Path, invoke) -> None:
    """A file of one structure gives a StructureData, which other plugins understand."""
    ase.io.write(tmp_path / 'cu.cif', bulk('Cu', cubic=True))
    result = invoke(*COMMAND, tmp_path / 'cu.cif', '--model', emt.uuid, '--property', 'energy', '--property', 'stress')
    assert result.exit_code == 0, result.output
    node = _last()
    assert node.inputs.structure.get_formula() == 'Cu4'
    assert node.inputs.parameters.get_dict() == {'properties': ['energy', 'stress']}
    assert '1 of 1 structure evaluated' in result.output
    assert node.outputs.results.stress.shape == (1, 3, 3)


def test_index_and_format(code: orm.InstalledCode, emt: ModelData, molecules: Path, invoke) -> None:
    """Some frames of a file whose name says nothing of its format."""
    path = molecules.rename(molecules.with_name('frames.data'))
    result = invoke(*COMMAND, path, '--model', emt.pk, '--index', '1:', '--format', 'extxyz')
    assert result.exit_code == 0, result.output
    assert _last().inputs.structures.formulas == ['C2H6O', 'CO']


@pytest.mark.slow
def test_some_structures_fail(code: orm.InstalledCode, emt: ModelData, molecules: Path, invoke, tmp_path: Path) -> None:
    """The others are shown and written, and the exit code of the command is 1."""
    frames = ase.io.read(molecules, index=':')
    frames[1].positions[0] = frames[1].positions[1]
    ase.io.write(molecules, frames)
    output = tmp_path / 'out.extxyz'
    result = invoke(*COMMAND, molecules, '--model', emt.pk, '-o', output)
    assert result.exit_code == 1
    assert 'ATOMS_TOO_CLOSE' in result.output
    assert f'SinglePointCalculation<{_last().pk}>, 2 of 3 evaluated, 1 failed' in result.output
    assert '2 of 3 structures evaluated, 1 failed' in result.output
    assert 'Error: ' not in result.output
    assert output.is_file()


@pytest.mark.slow
def test_published_model_is_installed(code, emt: ModelData, molecules: Path, invoke, monkeypatch) -> None:
    """A published model that the profile does not have is got first, and said so."""
    asked = []

    def get_model(name, sources=None, report=None):
        asked.append(name)
        return emt

    monkeypatch.setattr(library, 'get_model', get_model)
    result = invoke(*COMMAND, molecules, '--model', 'ani-1x', '--index', '0')
    assert result.exit_code == 0, result.output
    assert asked == ['ANI-1x']
    assert 'Model ANI-1x: ' in result.output
    assert _last().inputs.model.pk == emt.pk


@pytest.mark.slow
def test_scheduler_options(code: orm.InstalledCode, emt: ModelData, molecules: Path, invoke) -> None:
    """Time limit, queue and account reach the calculation."""
    result = invoke(*COMMAND, molecules, '-M', emt.pk, '-w', '600', '-q', 'short', '--account', 'me')
    assert result.exit_code == 0, result.output
    node = _last()
    assert node.get_option('max_wallclock_seconds') == 600
    assert node.get_option('queue_name') == 'short'
    assert node.get_option('account') == 'me'


def test_daemon_without_a_broker(code: orm.InstalledCode, emt: ModelData, molecules: Path, invoke) -> None:
    """Said before the file is read, which would be wrong as well, with what there is to do; nothing is stored."""
    molecules.write_text('')
    result = invoke(*COMMAND, molecules, '--model', emt.pk, '--daemon')
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert re.fullmatch(r'Error: the profile \S+ has no broker, .*: leave out --daemon, or add one with `.*`\.', line)
    assert orm.QueryBuilder().append((orm.ProcessNode, orm.StructureData, StructureSetData)).count() == 0


def test_daemon(code: orm.InstalledCode, emt: ModelData, molecules: Path, invoke, daemon, monkeypatch) -> None:
    """A submission prints the PK and does not wait."""
    submitted = []

    def submit(process, inputs):
        submitted.append((process, inputs))
        node = orm.CalcJobNode().store()
        node.set_process_label(process.__name__)
        return node

    monkeypatch.setattr('aiida.engine.submit', submit)
    result = invoke(*COMMAND, molecules, '--model', emt.pk, '--daemon', '--num-threads', '1')
    assert result.exit_code == 0, result.output
    ((process, inputs),) = submitted
    assert process.__name__ == 'SinglePointCalculation'
    assert inputs['parameters'] == {'num_threads': 1}
    assert 'Success: submitted SinglePointCalculation<' in result.output
    assert '`aiida-mlpotential watch ' in result.output
    assert '`verdi calcjob res ' in result.output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--property', 'stress'], 'asks for the stress, but no structure is periodic'),
        (['--model', 'ANI-7'], "there is no model 'ANI-7'"),
    ],
)
def test_mistakes(code, emt: ModelData, molecules: Path, invoke, arguments: list[str], message: str) -> None:
    """One sentence, exit code 1, no traceback and no calculation."""
    result = invoke(*COMMAND, molecules, '--model', emt.pk, *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert 'Traceback' not in result.output
    assert len([line for line in result.output.splitlines() if line.startswith('Error: ')]) == 1
    assert orm.QueryBuilder().append(orm.CalcJobNode).count() == 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--daemon', '--output', 'x.extxyz'], 'for which --daemon does not wait'),
        (['--output', '/nowhere/x.extxyz'], 'the directory /nowhere does not exist'),
        (['--code', 'none@nowhere'], 'no Code found'),
        (['--num-threads', 'two'], "'two' is not a valid integer"),
        (['--precision', 'triple'], "'triple' is not one of 'single', 'double'"),
        (['--num-threads', '0'], 'Invalid value for --num-threads: 0 is not allowed; it must be an integer from 1 to'),
        (['--property', 'charge'], "'charge' is not one of 'energy', 'forces', 'stress', 'forces_std'"),
        (['--index', '7:'], "'7:' is out of range: 'molecules.xyz' holds 3 structures, counted from 0"),
        (['--index', '3'], "'3' is out of range"),
        (['--index', 'first'], "'first' is no index"),
        (['--format', 'nonsense'], "ASE has no format 'nonsense'"),
        (['--output', ''], 'it names no file'),
        (['--continue', '1'], 'leave out FILE, --model'),
    ],
)
def test_usage(code, emt: ModelData, molecules: Path, invoke, arguments: list[str], message: str) -> None:
    """What is no valid command line has exit code 2."""
    result = invoke(*COMMAND, molecules, '--model', emt.pk, *arguments)
    assert result.exit_code == 2
    assert message in ' '.join(result.output.split())
    assert orm.QueryBuilder().append(orm.CalcJobNode).count() == 0


def test_no_code(emt: ModelData, molecules: Path, invoke) -> None:
    """Without a Code the remedy is ``setup``."""
    result = invoke(*COMMAND, molecules, '--model', emt.pk)
    assert result.exit_code == 1
    assert 'make one with `aiida-mlpotential setup`' in result.output


@pytest.mark.parametrize('content', [b'', b'\x00\x01\x02', b'3\n\nH 0 0 0\n'])
def test_files_that_are_none(code, emt: ModelData, tmp_path: Path, invoke, content: bytes) -> None:
    """An empty, a binary and a truncated file: one sentence that names the file."""
    path = tmp_path / 'broken.xyz'
    path.write_bytes(content)
    result = invoke(*COMMAND, path, '--model', emt.pk)
    assert result.exit_code == 1
    assert 'broken.xyz' in result.output
    assert 'Traceback' not in result.output


def test_single_structures_that_are_none(code, emt: ModelData, tmp_path: Path, invoke) -> None:
    """NaN in the only structure, and an element that the model does not know, are said before anything runs."""
    atoms = molecule('H2O')
    atoms.positions[0, 0] = np.nan
    ase.io.write(tmp_path / 'nan.xyz', atoms)
    ase.io.write(tmp_path / 'si.xyz', molecule('SiH4'))
    for name, message in (('nan.xyz', 'not finite'), ('si.xyz', 'Si')):
        result = invoke(*COMMAND, tmp_path / name, '--model', emt.pk)
        assert result.exit_code == 1
        assert message in result.output
        assert 'Traceback' not in result.output
    assert orm.QueryBuilder().append(orm.CalcJobNode).count() == 0


def test_neither_file_nor_calculation(code, emt: ModelData, invoke) -> None:
    """Without FILE the earlier calculation must be named."""
    result = invoke(*COMMAND)
    assert result.exit_code == 2
    assert 'name a FILE of structures, or a calculation with --continue' in result.output


@pytest.mark.slow
def test_continue(code, emt: ModelData, molecules: Path, invoke) -> None:
    """A calculation with a failed structure is continued: same inputs, other threads, and what was done is kept."""
    frames = ase.io.read(molecules, index=':')
    frames[1].positions[0] = frames[1].positions[1]
    ase.io.write(molecules, frames)
    assert invoke(*COMMAND, molecules, '--model', emt.pk, '--property', 'forces').exit_code == 1
    first = _last()
    result = invoke(*COMMAND, '--continue', first.pk, '--num-threads', '1', '-w', '600')
    node = _last()
    assert node.pk > first.pk, result.output
    for name in ('structures', 'model', 'code'):
        assert node.inputs[name].pk == first.inputs[name].pk
    assert node.inputs.parent_folder.pk == first.outputs.remote_folder.pk
    assert node.inputs.parameters.get_dict() == {'properties': ['forces'], 'num_threads': 1}
    assert node.get_option('max_wallclock_seconds') == 600
    assert node.label == molecules.name
    assert 'Note: went on with the results of ' in result.output
    assert '2 of 3 structures evaluated, 1 failed' in result.output


@pytest.mark.slow
def test_output_that_cannot_be_written(code, emt: ModelData, molecules: Path, invoke, tmp_path, monkeypatch) -> None:
    """A disk that is full at the end is one sentence that says where the results are."""

    def fail(self, path, structures):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(ResultsData, 'write_extxyz', fail)
    result = invoke(*COMMAND, molecules, '--model', emt.pk, '-o', tmp_path / 'out.xyz')
    assert result.exit_code == 1
    assert 'cannot be written (No space left on device)' in result.output
    assert f'the results are stored in node {_last().outputs.results.pk}.' in result.output


@pytest.fixture
def squeezed(tmp_path: Path) -> Path:
    """Return a file with two copper dimers that are not at their minimum."""
    path = tmp_path / 'dimers.xyz'
    ase.io.write(path, [Atoms('Cu2', [(0, 0, 0), (0, 0, distance)]) for distance in (2.0, 2.6)])
    return path


@pytest.mark.slow
def test_optimization(code, emt: ModelData, squeezed: Path, invoke, tmp_path: Path) -> None:
    """A table with steps, a node with the geometries, and a file with them, their energies and labels."""
    output = tmp_path / 'optimized.xyz'
    result = invoke(
        *('launch', 'geometry-optimization', squeezed, '--model', emt.pk, '-o', output),
        *('--force-tolerance', '0.001', '--fix-atoms', '0'),
    )
    assert result.exit_code == 0, result.output
    node = _last()
    assert node.process_label == 'GeometryOptimizationCalculation'
    constraints = [{'kind': 'atoms', 'atoms': [0]}]
    assert node.inputs.parameters.get_dict() == {'force_tolerance': 0.001, 'constraints': constraints}
    assert '2 of 2 structures converged' in result.output
    assert result.output.count('CONVERGED') == 2
    assert f'StructureSetData<{node.outputs.output_structures.pk}>' in result.output
    written = ase.io.read(output, index=':')
    distances = [atoms.get_distance(0, 1) for atoms in written]
    assert distances[0] == pytest.approx(distances[1], abs=1e-3)
    assert distances[0] not in (2.0, 2.6)
    for atoms, energy in zip(written, node.outputs.results.energies, strict=True):
        assert atoms.positions[0].tolist() == [0, 0, 0]
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-6)


@pytest.mark.slow
def test_optimization_that_needs_more_steps(code, emt: ModelData, squeezed: Path, invoke) -> None:
    """It ends with exit code 1, the last geometries are kept, and ``--continue`` takes it up with further steps."""
    command = ('launch', 'geometry-optimization')
    result = invoke(*command, squeezed, '--model', emt.pk, '--max-steps', '1', '--force-tolerance', '0.001')
    assert result.exit_code == 1
    first = _last()
    assert first.exit_status == 410
    assert '0 of 2 structures converged, 2 failed' in result.output
    assert f'`aiida-mlpotential launch geometry-optimization --continue {first.pk}`' in result.output
    lines = [line for line in result.output.splitlines() if 'Warning: ' not in line]  # that one is AiiDA's log
    assert 'go on from it with --continue' in ' '.join(lines)
    assert 'parent_folder' not in ' '.join(lines)
    result = invoke(*command, '--continue', first.pk, '--max-steps', '200')
    assert result.exit_code == 0, result.output
    assert _last().inputs.parameters.get_dict() == {'max_steps': 200, 'force_tolerance': 0.001}
    assert '2 of 2 structures converged' in result.output
    wrong = invoke('launch', 'single-point', '--continue', first.pk)
    assert wrong.exit_code == 2
    assert 'launch geometry-optimization --continue' in ' '.join(wrong.output.split())


@pytest.mark.slow
def test_one_crystal_with_its_cell(code, emt: ModelData, tmp_path: Path, invoke) -> None:
    """A single structure comes back as a StructureData, and as a file with its new cell."""
    ase.io.write(tmp_path / 'cu.cif', bulk('Cu', cubic=True, a=3.7))
    output = tmp_path / 'relaxed.xyz'
    result = invoke(
        *('launch', 'geometry-optimization', tmp_path / 'cu.cif', '--model', emt.pk),
        *('--optimize-cell', '--cell-mask', '1,1,1,0,0,0', '-o', output),
    )
    assert result.exit_code == 0, result.output
    node = _last()
    assert f'StructureData<{node.outputs.output_structure.pk}>' in result.output
    assert ase.io.read(output).cell.lengths() == pytest.approx(3.59, abs=0.01)


@pytest.mark.slow
def test_vibrations_and_thermochemistry(code, emt: ModelData, squeezed: Path, invoke, tmp_path: Path) -> None:
    """Of an optimized dimer: its one frequency; of one that is not, the status; and the parts of its entropy."""
    optimized = tmp_path / 'optimized.xyz'
    options = ('--model', emt.pk, '--precision', 'double')
    tight = ('--force-tolerance', '1e-4', '-i', '0', '-o', optimized)
    assert invoke('launch', 'geometry-optimization', squeezed, *options, *tight).exit_code == 0
    result = invoke('launch', 'vibrations', optimized, *options)
    assert result.exit_code == 0, result.output
    frequency = _last().outputs.results.frequencies(0)[0]
    assert f'{frequency:.1f}' in result.output
    assert 'minimum' in result.output
    result = invoke('launch', 'vibrations', squeezed, *options, '--expected', 'minimum')
    assert result.exit_code == 1
    assert 'WRONG_CHARACTER' in result.output
    result = invoke(
        'launch', 'thermochemistry', optimized, *options, '--symmetry-number', '2', '--temperature', '300,400'
    )
    assert result.exit_code == 0, result.output
    assert _last().inputs.parameters['temperatures'] == [300, 400]
    assert 'at 300 K and 1.01325 bar, symmetry number 2:' in result.output
    assert '1 of 1 structure computed.' in result.output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--optimize-cell'], 'Not periodic in three directions'),
        (['--pressure', '5'], 'pressure'),
        (['--fix-atoms', '7'], '7'),
        (['--optimizer', 'Steepest'], 'Steepest'),
        (['--max-steps', '0'], 'it must be an integer from 1'),
    ],
)
def test_mistakes_of_optimizations(code, emt: ModelData, squeezed: Path, invoke, arguments, message: str) -> None:
    """A cell of a molecule, pressure without a cell, an atom that is not there: said before anything runs."""
    result = invoke('launch', 'geometry-optimization', squeezed, '-i', '0', '--model', emt.pk, *arguments)
    assert result.exit_code in (1, 2)
    assert message in ' '.join(result.output.split())
    assert 'Traceback' not in result.output
    assert orm.QueryBuilder().append(orm.CalcJobNode).count() == 0
