"""`models stage`, `models staged` and `models unstage`: copies of a model on a computer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from aiida import orm

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.queries.staged import LINKED_EXTRA, find_staged, mark_broken


@pytest.fixture
def model(aiida_profile_clean, tmp_path, file_facts):
    path = tmp_path / 'water.pt'
    path.write_bytes(b'parameters')
    return ModelData.from_file(path, backend='torchani', elements=['H', 'O']).get_or_store()


@pytest.mark.slow
def test_a_copy_from_beginning_to_end(invoke, model, localhost):
    result = invoke('models', 'staged')
    assert result.exit_code == 0 and 'there is no copy of a model' in result.output

    result = invoke('models', 'stage', model.pk, '--computer', 'localhost')
    assert result.exit_code == 0, result.output
    folder = Path(find_staged(model, localhost).get_remote_path())
    assert str(folder) in result.output
    assert (folder / 'model' / 'water.pt').read_bytes() == b'parameters'

    result = invoke('models', 'stage', model.pk, '-Y', 'localhost')
    assert result.exit_code == 0 and 'already' in result.output

    result = invoke('models', 'staged', '--computer', 'localhost')
    line = next(line for line in result.output.splitlines() if 'water' in line)
    assert line.split() == ['water', str(model.pk), 'localhost', '0', 'sound', str(folder)]

    result = invoke('models', 'unstage', model.pk, '--computer', 'localhost')
    assert result.exit_code == 0 and f'removed {folder}' in result.output
    assert not folder.exists()
    assert find_staged(model, localhost) is None
    assert 'there is no copy of water on localhost' in invoke('models', 'unstage', model.pk, '-Y', 'localhost').output


def test_a_copy_that_jobs_still_need_is_kept(invoke, model, localhost):
    invoke('models', 'stage', model.pk, '-Y', 'localhost')
    copy = find_staged(model, localhost)
    job = orm.CalcJobNode(computer=localhost).store()
    job.set_process_state('waiting')
    job.base.extras.set(LINKED_EXTRA, copy.uuid)

    result = invoke('models', 'unstage', model.pk)
    assert result.exit_code == 1
    assert f'1 unfinished jobs link the copy on localhost, the first is {job.pk}' in result.output
    assert Path(copy.get_remote_path()).is_dir()

    assert invoke('models', 'unstage', model.pk, '--force').exit_code == 0
    assert not Path(copy.get_remote_path()).exists()


def test_only_what_was_staged_is_removed(invoke, model, localhost, tmp_path):
    """Not what a link in the copy points to, nor a path that an imported node names, nor the place of another."""
    precious = tmp_path / 'precious'
    precious.mkdir()
    (precious / 'data').write_text('mine')
    invoke('models', 'stage', model.pk, '-Y', 'localhost')
    copy = find_staged(model, localhost)
    files = Path(copy.get_remote_path(), 'model')
    shutil.rmtree(files)
    files.symlink_to(precious)
    assert invoke('models', 'unstage', model.pk).exit_code == 0
    assert not Path(copy.get_remote_path()).exists()
    assert (precious / 'data').read_text() == 'mine'

    invoke('models', 'stage', model.pk, '-Y', 'localhost')
    whole = Path(find_staged(model, localhost).get_remote_path())
    shutil.rmtree(whole)
    whole.symlink_to(precious)
    result = invoke('models', 'unstage', model.pk)
    assert result.exit_code == 1 and 'cannot be removed' in result.output
    assert (precious / 'data').read_text() == 'mine'


def test_a_path_that_is_no_work_directory_is_not_removed(invoke, model, localhost, tmp_path, monkeypatch):
    """As of a node that was imported and names any path."""
    precious = tmp_path / 'precious'
    precious.mkdir()
    invoke('models', 'stage', model.pk, '-Y', 'localhost')
    staged = Path(find_staged(model, localhost).get_remote_path())
    for path in (precious, staged / '..' / '..' / '..' / Path(*staged.parts[-3:]), staged.parent):
        monkeypatch.setattr(orm.RemoteData, 'get_remote_path', lambda self, path=path: str(path))
        result = invoke('models', 'unstage', model.pk)
        assert result.exit_code == 1 and 'is not the work directory of the job that made the copy' in result.output
        assert precious.is_dir() and staged.is_dir()


def test_a_broken_copy_is_listed_and_removed(invoke, model, localhost):
    invoke('models', 'stage', model.pk, '-Y', 'localhost')
    copy = find_staged(model, localhost)
    mark_broken(copy, 'cut short')
    assert 'broken' in invoke('models', 'staged').output
    assert invoke('models', 'unstage', model.pk).exit_code == 0
    assert not Path(copy.get_remote_path()).exists()


@pytest.mark.slow
def test_what_somebody_removed_by_hand_is_forgotten(invoke, model, localhost):
    invoke('models', 'stage', model.pk, '-Y', 'localhost')
    shutil.rmtree(find_staged(model, localhost).get_remote_path())
    assert invoke('models', 'unstage', model.pk).exit_code == 0
    assert find_staged(model, localhost) is None


def test_a_model_without_files(invoke, emt, localhost):
    result = invoke('models', 'stage', emt.pk, '-Y', 'localhost')
    assert result.exit_code == 1
    assert 'EMT has no files: jobs need nothing from a copy' in result.output


def test_a_computer_that_is_not_configured(invoke, model):
    orm.Computer(
        label='far', hostname='far', transport_type='core.ssh_async', scheduler_type='core.slurm', workdir='/scratch'
    ).store()
    result = invoke('models', 'stage', model.pk, '-Y', 'far')
    assert result.exit_code == 1
    assert 'verdi computer configure core.ssh_async far' in result.output
