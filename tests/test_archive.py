"""The worker as a zip file: the same bytes every time, and a decision whenever they change."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from aiida_mlpotential.archive import worker_archive
from aiida_mlpotential.worker.schema import RESULTS_VERSION

RECORD = Path(__file__).with_name('worker_record.json')


def test_the_bytes_do_not_depend_on_time_or_place(tmp_path):
    program = (
        'import hashlib\n'
        'from aiida_mlpotential.archive import worker_archive\n'
        'print(hashlib.sha256(worker_archive()).hexdigest())\n'
    )
    environment = {**os.environ, 'TZ': 'Pacific/Auckland', 'PYTHONHASHSEED': '5'}
    other = subprocess.run(
        [sys.executable, '-c', program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == hashlib.sha256(worker_archive()).hexdigest()


def test_it_holds_the_worker_and_nothing_else():
    names = zipfile.ZipFile(io.BytesIO(worker_archive())).namelist()
    assert {'__main__.py', 'aiida_mlpotential/__init__.py', 'aiida_mlpotential/worker/runner.py'} <= set(names)
    assert all(name.endswith('.py') for name in names)
    assert [name for name in names if not name.startswith('aiida_mlpotential/worker/')] == [
        '__main__.py',
        'aiida_mlpotential/__init__.py',
    ]


def test_it_runs_where_the_package_is_not_installed(tmp_path):
    path = tmp_path / 'worker.pyz'
    path.write_bytes(worker_archive())
    program = (
        f'import sys; sys.path.insert(0, {str(path)!r}); import aiida_mlpotential.worker.runner as m; print(m.__file__)'
    )
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert str(path) in result.stdout


def test_whoever_changes_the_worker_decides_about_the_results_version():
    """Update the record with ``python tests/test_archive.py`` after the decision.

    If any number may differ from before, raise RESULTS_VERSION first: AiiDA's caching reuses old results otherwise.
    """
    record = json.loads(RECORD.read_text())
    assert record == make_record(), (
        'the worker has changed: raise RESULTS_VERSION in worker/schema.py if results may differ, then run '
        'python tests/test_archive.py'
    )


def make_record() -> dict[str, object]:
    """Return the results version with the hash of the worker that goes with it."""
    return {'results_version': RESULTS_VERSION, 'worker_sha256': hashlib.sha256(worker_archive()).hexdigest()}


if __name__ == '__main__':
    RECORD.write_text(json.dumps(make_record(), indent=1) + '\n')
