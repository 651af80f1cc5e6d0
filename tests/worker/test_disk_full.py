"""A disk that is really full: the job ends with the cause in its results file, not with an empty directory."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest

if os.geteuid() != 0:
    pytest.skip('mounting a small file system needs root', allow_module_level=True)


@pytest.fixture
def small_disk(tmp_path):
    """Return a directory on a file system of its own with room for 300 kB."""
    command = ['mount', '-t', 'tmpfs', '-o', 'size=300k', 'tmpfs', str(tmp_path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f'a file system cannot be mounted here: {mounted.stderr.strip()}')
    yield tmp_path
    subprocess.run(['umount', str(tmp_path)], check=True)


@pytest.mark.parametrize('number', [2000, 4000])
def test_the_cause_is_in_the_results_file(job, copper, small_disk, number):
    job.directory, job.frames = small_disk, copper(number)
    process = job.start()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'ERROR_DISK_FULL' in err
    info = job.info()
    assert info['state'] == 'failed'
    assert info['error']['label'] == 'ERROR_DISK_FULL'
    assert 'No space left' in info['error']['message']


@pytest.mark.slow
@pytest.mark.parametrize(
    'parameters', [{'trajectory': 1}, {'checkpoint_interval': 0}], ids=['trajectory', 'checkpoint']
)
def test_what_is_done_counts_when_the_disk_is_full_in_the_middle(job, copper, small_disk, parameters):
    """The disk has room for the results, which are there from the start, and not for all that comes."""
    job.directory, job.frames, job.task = small_disk, copper(300), 'geometry_optimization'
    process = job.start(force_tolerance=1e-3, batch_atoms=200, **parameters)
    _, err = process.communicate(timeout=60)
    info = job.info()
    assert process.returncode == 1, err
    assert info['error']['label'] == 'ERROR_DISK_FULL'
    assert info['counts']['ok'] == np.sum(job.array('status') == 0)
    assert np.isfinite(job.array('energies')[job.array('status') == 0]).all()
