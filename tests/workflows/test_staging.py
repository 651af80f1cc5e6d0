"""The model is brought to another machine once, by whichever workflow needs it first."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.plugins import WorkflowFactory
from ase import Atoms

from aiida_mlpotential.calculations.stage_model import StageModelCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.model_files import is_plain
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.queries.staged import find_staged, linked_copy, list_staged
from aiida_mlpotential.queries.tree import called_jobs

pytestmark = pytest.mark.slow

MODEL_FILE = Path(__file__).resolve().parents[1] / 'fixtures' / 'torchani' / 'custom_full_ani.pt'


@pytest.fixture
def model(aiida_profile_clean):
    return ModelData.from_file(MODEL_FILE, backend='torchani').get_or_store()


@pytest.fixture
def builder(model, python_code):
    structures = StructureSetData.from_ase([Atoms('OH2', [[0, 0, 0], [0, 0.76, 0.6], [0, -0.76, 0.6]])]).store()
    chain = WorkflowFactory('mlpotential.single_point.base')
    builder = chain.get_builder_from_protocol(python_code, model, structures)
    builder.stage_model = True
    return builder


#: What a shell would run, split or expand if it saw it without quotes: the name of a file, a label, a directory.
ODD = 'a b $(touch pwned) `touch pwned` \'q\' "d" ;touch pwned; & | ~ é'


@pytest.fixture
def odd_computer(aiida_profile_clean, tmp_path):
    """Return this machine as a computer whose label and work directory are hard on shells."""
    work = tmp_path / ODD.replace('/', '')
    work.mkdir()
    computer = orm.Computer(
        label='odd $(touch pwned) computer',
        hostname='localhost',
        transport_type='core.local',
        scheduler_type='core.direct',
        workdir=str(work),
    ).store()
    computer.configure(safe_interval=0, use_login_shell=False)
    computer.set_minimum_job_poll_interval(0)
    computer.set_default_mpiprocs_per_machine(1)
    return computer


def test_nothing_in_a_name_reaches_a_shell(odd_computer, tmp_path, monkeypatch):
    """From the file of the model to its copy, a job that links it, one that goes on from that, and a bad copy."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / 'source' / f'{ODD}.pt'
    source.parent.mkdir()
    shutil.copy(MODEL_FILE, source)
    model = ModelData.from_file(source, backend='torchani', name=ODD).store()
    assert [is_plain(name) for name in model.files] == [True]
    code = orm.InstalledCode(label=ODD, computer=odd_computer, filepath_executable=sys.executable).store()
    atoms = [Atoms('OH2', [[0, 0, 0], [0, 0.76, 0.6], [0, -0.76, 0.6]])] * 2
    structures = StructureSetData.from_ase(atoms, labels=[ODD, f'{ODD} 2']).store()
    chain = WorkflowFactory('mlpotential.single_point.base')
    builder = chain.get_builder_from_protocol(code, model, structures)
    builder.stage_model, builder.metadata.label, builder.calc.metadata.label = True, ODD, ODD
    _, first = run_get_node(builder)
    assert first.is_finished_ok, first.exit_message
    copy = find_staged(model, odd_computer)
    job = first.called[-1]
    assert Path(job.get_remote_workdir(), 'model').readlink() == Path(copy.get_remote_path(), 'model')

    builder.calc.parent_folder = first.outputs.remote_folder
    outputs, second = run_get_node(builder)
    assert second.is_finished_ok, second.exit_message
    assert 'went on with the results of 2 structures' in str(outputs['output_parameters']['notes'])
    assert outputs['results'].n_ok == 2

    shutil.rmtree(Path(copy.get_remote_path(), 'model'))
    builder.calc.pop('parent_folder')
    _, third = run_get_node(builder)
    assert third.is_finished_ok, third.exit_message
    failed = next(child for child in third.called if child.exit_status == 320)
    command = re.search(r'`(aiida-mlpotential models unstage .*)`, and', failed.exit_message).group(1)
    assert shlex.split(command)[-2:] == ['--computer', odd_computer.label]
    assert not list(tmp_path.rglob('pwned'))


def _called(node):
    return [child.process_label for child in sorted(node.called, key=lambda child: child.pk)]


def test_two_that_stage_at_once_leave_two_good_copies(model, builder, localhost):
    """Neither finds the copy of the other, which is there in vain until the newer one is damaged."""
    older, newer = (
        run_get_node(StageModelCalculation, model=model, metadata={'computer': localhost})[1].outputs.remote_folder
        for _ in range(2)
    )
    assert [copy.folder.pk for copy in list_staged(model, localhost)] == [newer.pk, older.pk]
    file = Path(newer.get_remote_path(), 'model', MODEL_FILE.name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # one bit, of a file of the same size
    file.write_bytes(content)
    _, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert _called(node) == ['SinglePointCalculation', 'SinglePointCalculation']
    first, second = sorted(node.called, key=lambda child: child.pk)
    assert first.exit_status == 322
    assert (linked_copy(first).pk, linked_copy(second).pk) == (newer.pk, older.pk)


def test_the_copy_is_made_once_and_a_bad_one_is_replaced(model, builder, localhost):
    _, first = run_get_node(builder)
    assert first.is_finished_ok, first.exit_message
    assert _called(first) == ['StageModelCalculation', 'SinglePointCalculation']
    assert [job.task for job in called_jobs(first.pk)] == ['single_point']  # nothing for `watch` to count in a copy
    copy = find_staged(model, localhost)
    assert copy.creator.caller.pk == first.pk

    _, second = run_get_node(builder)
    assert second.is_finished_ok, second.exit_message
    assert _called(second) == ['SinglePointCalculation']
    job = second.called[0]
    assert linked_copy(job).pk == copy.pk
    assert Path(job.get_remote_workdir(), 'model').is_symlink()

    file = Path(copy.get_remote_path(), 'model', MODEL_FILE.name)
    file.write_bytes(file.read_bytes()[:-1])
    _, third = run_get_node(builder)
    assert third.is_finished_ok, third.exit_message
    assert _called(third) == ['SinglePointCalculation', 'StageModelCalculation', 'SinglePointCalculation']
    failed = next(child for child in third.called if child.exit_status == 322)
    assert f'models unstage {model.pk} --computer localhost' in failed.exit_message
    assert copy.get_remote_path() in failed.exit_message
    newest, oldest = list_staged(model, localhost)
    assert oldest.folder.pk == copy.pk and '322' not in oldest.broken and 'not the one' in oldest.broken
    assert not newest.broken and find_staged(model, localhost).pk == newest.folder.pk
