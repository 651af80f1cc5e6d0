"""An error of the files of the model names the copy that was linked, and what to do."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.common.links import LinkType

from aiida_mlpotential.parsers.staged import explain
from aiida_mlpotential.queries.staged import LINKED_EXTRA


@pytest.fixture
def job(aiida_profile, emt_model, localhost):
    """Return a job that links a copy."""
    node = orm.CalcJobNode(computer=localhost)
    node.base.links.add_incoming(emt_model, LinkType.INPUT_CALC, 'model')
    node.store()
    copy = orm.RemoteData(computer=localhost, remote_path='/scratch/copy').store()
    node.base.extras.set(LINKED_EXTRA, copy.uuid)
    return node


@pytest.mark.parametrize('label', ['ERROR_MODEL_MISSING', 'ERROR_MODEL_HASH'])
def test_bad_files_of_a_copy(job, label):
    assert explain(job, label, 'model/a.pt is bad.') == (
        'model/a.pt is bad; it is the staged copy in /scratch/copy on localhost: remove it with '
        f'`aiida-mlpotential models unstage {job.inputs.model.pk} --computer localhost`, and later jobs get the files '
        'anew'
    )


def test_other_errors_have_nothing_to_do_with_it(job):
    assert explain(job, 'ERROR_OUT_OF_MEMORY', 'too large.') == 'too large.'


def test_files_that_came_with_the_job(job):
    job.base.extras.set(LINKED_EXTRA, None)
    assert explain(job, 'ERROR_MODEL_HASH', 'model/a.pt is bad.') == 'model/a.pt is bad.'
