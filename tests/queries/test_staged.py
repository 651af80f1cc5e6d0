"""Copies of models on computers: which a job may link, and which jobs did."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.common.links import LinkType

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.queries import staged


@pytest.fixture
def make_model(aiida_profile_clean, tmp_path, file_facts):
    """Return a function that stores a model with one file of the given name and content."""

    def make(file='model.pt', content=b'parameters', **kwargs):
        path = tmp_path / file
        path.write_bytes(content)
        return ModelData.from_file(path, backend='torchani', elements=['H', 'O'], **kwargs).get_or_store()

    return make


@pytest.fixture
def make_copy(aiida_computer_local):
    """Return a function that stores what a calculation that made a copy leaves."""

    def make(model, computer=None, exit_status=0, user=None):
        computer = computer or aiida_computer_local(label='cluster')
        job = orm.CalcJobNode(computer=computer, process_type='aiida.calculations:mlpotential.stage_model', user=user)
        job.base.links.add_incoming(model, LinkType.INPUT_CALC, 'model')
        job.store()
        job.set_exit_status(exit_status)
        folder = orm.RemoteData(computer=computer, remote_path=f'/scratch/{job.pk}', user=user)
        folder.base.links.add_incoming(job, LinkType.CREATE, 'remote_folder')
        return folder.store()

    return make


def test_the_newest_sound_copy_on_the_computer_is_found(make_model, make_copy, aiida_computer_local):
    model, elsewhere = make_model(), aiida_computer_local(label='elsewhere')
    first, second = make_copy(model), make_copy(model)
    computer = first.computer
    assert staged.find_staged(model, computer).pk == second.pk
    assert staged.find_staged(model, elsewhere) is None
    staged.mark_broken(second, 'cut short')
    assert staged.find_staged(model, computer).pk == first.pk
    first.base.extras.set(first.KEY_EXTRA_CLEANED, True)
    assert staged.find_staged(model, computer) is None
    assert [(copy.folder.pk, copy.broken) for copy in staged.list_staged()] == [(second.pk, 'cut short')]


def test_the_files_count_and_not_the_node(make_model, make_copy):
    """Another unit is another model of the same file; another name of the file is another path for the job."""
    model, other_options = make_model(), make_model(ensemble_size=3)
    other_name, other_content = make_model(file='other.pt'), make_model(content=b'other')
    assert model.sha256 == other_name.sha256 == other_options.sha256
    assert len({node.pk for node in (model, other_options, other_name, other_content)}) == 4
    copy = make_copy(model)
    assert staged.find_staged(other_options, copy.computer).pk == copy.pk
    assert staged.find_staged(other_name, copy.computer) is None
    assert staged.find_staged(other_content, copy.computer) is None


def test_a_copy_that_was_not_finished_is_none(make_model, make_copy):
    model = make_model()
    copy = make_copy(model, exit_status=100)
    assert staged.find_staged(model, copy.computer) is None
    assert staged.list_staged() == []


def test_copies_of_other_users_are_theirs(make_model, make_copy):
    user = orm.User(email='other@example.org').store()
    model = make_model()
    copy = make_copy(model, user=user)
    assert staged.find_staged(model, copy.computer) is None


def test_the_jobs_that_link_a_copy(make_model, make_copy):
    copy = make_copy(make_model())
    jobs = [orm.CalcJobNode(computer=copy.computer).store() for _ in range(3)]
    for job, state in zip(jobs, ('finished', 'waiting', 'running'), strict=True):
        job.set_process_state(state)
    assert staged.linked_copy(jobs[0]) is None
    for job in jobs[:2]:
        job.base.extras.set(staged.LINKED_EXTRA, copy.uuid)
    assert staged.linked_copy(jobs[0]).pk == copy.pk
    assert staged.jobs_linking(copy) == [jobs[0].pk, jobs[1].pk]
    assert staged.jobs_linking(copy, unfinished=True) == [jobs[1].pk]
    jobs[0].base.extras.set(staged.LINKED_EXTRA, None)
    assert staged.linked_copy(jobs[0]) is None


def test_removed_with_verdi_it_is_gone(make_model, make_copy):
    """`verdi calcjob cleanworkdir` sets the mark of AiiDA, which counts."""
    model = make_model()
    copy = make_copy(model)
    copy.base.extras.set('cleaned', True)
    assert staged.find_staged(model, copy.computer) is None
