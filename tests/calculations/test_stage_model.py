"""The files of a model come to a computer once; nothing is run there."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiida.common.exceptions import InputValidationError
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching

from aiida_mlpotential.calculations.stage_model import StageModelCalculation
from aiida_mlpotential.data.model import ModelData


@pytest.fixture
def model(aiida_profile_clean, tmp_path, file_facts):
    """Return a committee: a model with several files in folders."""
    for name in ('one.pt', 'two.pt'):
        (tmp_path / name).write_bytes(name.encode() * 100)
    paths = [tmp_path / 'one.pt', tmp_path / 'two.pt']
    return ModelData.from_members(paths, backend='torchani', elements=['H', 'O']).get_or_store()


def _run(model, computer):
    return run_get_node(StageModelCalculation, model=model, metadata={'computer': computer})[1]


def test_every_file_is_there_and_nothing_ran(model, localhost):
    node = _run(model, localhost)
    assert node.is_finished_ok
    assert node.get_job_id() is None
    assert len(model.files) == 2
    folder = Path(node.outputs.remote_folder.get_remote_path())
    for file in model.files:
        assert (folder / 'model' / file).read_bytes() == model.base.repository.get_object_content(
            f'parameters/{file}', mode='rb'
        )
    assert {path.name for path in folder.iterdir()} <= {'model', '.aiida', '_aiidasubmit.sh'}


@pytest.mark.slow
def test_it_is_never_taken_from_the_cache(model, localhost):
    """A clone would point to the files of the original, and go with them."""
    with enable_caching():
        first, second = _run(model, localhost), _run(model, localhost)
    assert not second.base.caching.is_created_from_cache
    assert first.outputs.remote_folder.get_remote_path() != second.outputs.remote_folder.get_remote_path()


def test_a_model_without_files_needs_none(aiida_profile_clean, localhost, emt_model):
    with pytest.raises((ValueError, InputValidationError), match='has no files'):
        _run(emt_model, localhost)
