"""Versions of libraries: which there were, and which jobs used them."""

from __future__ import annotations

import ase
import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType

from aiida_mlpotential.queries.versions import jobs_with_version, library_versions


@pytest.fixture
def make_job(aiida_profile_clean, make_process):
    """Return a function that stores a job that used some versions."""

    def function(process_type='aiida.calculations:mlpotential.vibrations', **versions):
        job = make_process(orm.CalcJobNode, state='finished', process_type=process_type)
        parameters = orm.Dict({'versions': versions})
        parameters.base.links.add_incoming(job, LinkType.CREATE, 'output_parameters')
        parameters.store()
        return job

    return function


@pytest.mark.slow
def test_real_jobs_say_what_they_used(run, copper):
    nodes = [run(structures=copper), run(structures=copper)]
    versions = library_versions()
    assert versions['ase'] == {ase.__version__: 2}
    assert versions['numpy'] == {np.__version__: 2}
    assert [job.uuid for job in jobs_with_version('ase', ase.__version__)] == [nodes[1].uuid, nodes[0].uuid]


def test_versions_are_compared_as_pip_does(make_job):
    old, local, new = (make_job(torch=version) for version in ('2.4.1', '2.10.0+cpu', '2.11.0a0'))
    odd = make_job(torch='unknown', numpy='2.1.0')
    cases = {
        None: [odd, new, local, old],
        '2.4.1': [old],
        '2.10.0': [local],
        'unknown': [odd],
        '>=2.5': [new, local],
        '==2.4.*': [old],
        '>=2.4,<2.10.1': [local, old],
        '2.4': [],
    }
    for version, expected in cases.items():
        assert [job.pk for job in jobs_with_version('torch', version)] == [job.pk for job in expected], version
    assert [job.pk for job in jobs_with_version('numpy')] == [odd.pk]
    assert jobs_with_version('schnetpack') == []
    assert library_versions() == {
        'numpy': {'2.1.0': 1},
        'torch': {'2.10.0+cpu': 1, '2.11.0a0': 1, '2.4.1': 1, 'unknown': 1},
    }


def test_jobs_of_other_plugins_are_none_of_ours(make_job):
    make_job(process_type='aiida.calculations:core.arithmetic.add', torch='2.4.1')
    assert library_versions() == {}
    assert jobs_with_version('torch') == []


def test_what_is_no_version_is_refused(make_job):
    make_job(torch='2.4.1')
    with pytest.raises(ValueError, match="'>=new' is no version: write it as for pip"):
        jobs_with_version('torch', '>=new')
