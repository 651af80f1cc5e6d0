"""The command line of the worker, as a process of its own."""

from __future__ import annotations

import subprocess
import sys


def test_a_job_runs_and_reports_progress(job):
    process = job.start(num_threads=1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert 'progress: 7/7 structures (100.0 %)' in out
    assert job.info()['state'] == 'finished'


def test_the_threads_are_set_before_any_library_is_loaded(job):
    job.write(num_threads=1)
    program = (
        'import os, sys\n'
        'from aiida_mlpotential.worker.__main__ import main\n'
        "assert 'numpy' not in sys.modules\n"
        "main(['job.json'])\n"
        "print(os.environ['OMP_NUM_THREADS'])\n"
    )
    result = subprocess.run(
        [sys.executable, '-c', program], cwd=job.directory, capture_output=True, text=True, check=True
    )
    assert result.stdout.split()[-1] == '1'


def test_a_missing_job_file_is_told_in_the_results_file(tmp_path):
    result = subprocess.run(
        [sys.executable, '-m', 'aiida_mlpotential.worker', str(tmp_path / 'job.json')],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert 'ERROR_JOB_INVALID' in (tmp_path / 'results.json').read_text()
    assert 'ERROR_JOB_INVALID' in result.stderr
