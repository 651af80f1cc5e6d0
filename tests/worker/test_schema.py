"""The job file: what is written is read back, and what is not a job is refused with a reason."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.errors import WorkerError
from aiida_mlpotential.worker.schema import JobSpec, ModelSpec

JOB = JobSpec(
    'single_point',
    ModelSpec('m', 'ase', 'a' * 64, files={'model/x': 'b' * 64}, elements=('H', 'C'), options={'k': [1, 2]}),
    {'precision': 'double'},
    'c' * 64,
)


def test_a_job_survives_its_file():
    assert JobSpec.from_json(JOB.to_json()) == JOB


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"model": 3}', '{"model": {"elements": null}, "task": "x"}'])
def test_what_is_no_job_is_refused(text):
    with pytest.raises(WorkerError, match=r'job\.json') as caught:
        JobSpec.from_json(text)
    assert caught.value.label == 'ERROR_JOB_INVALID'
