"""The model is brought to another machine once, by whichever workflow needs it first."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiida.engine import run_get_node
from aiida.plugins import WorkflowFactory
from ase import Atoms

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.queries.staged import find_staged, linked_copy, list_staged
from aiida_mlpotential.queries.tree import called_jobs

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


def _called(node):
    return [child.process_label for child in sorted(node.called, key=lambda child: child.pk)]


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
