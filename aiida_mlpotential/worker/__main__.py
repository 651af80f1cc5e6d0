"""Command line of the worker: ``python worker.pyz job.json``, or ``aiida-mlpotential-worker job.json``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

# Nothing here may import numpy or a backend before the number of threads is set in the environment.
from .schema import JOB_FILE, JobSpec

_THREAD_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')


def main(arguments: list[str] | None = None) -> int:
    """Run the job of the given file; return 0 if it came to its end, 1 if it failed."""
    parser = argparse.ArgumentParser(prog='aiida-mlpotential-worker', description=__doc__)
    parser.add_argument('job', nargs='?', type=Path, default=Path(JOB_FILE), help=f'job description, {JOB_FILE}')
    path: Path = parser.parse_args(arguments).job
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))  # a scheduler sends it before it kills

    threads = _threads(path)
    if threads is not None:
        for variable in _THREAD_VARIABLES:
            os.environ[variable] = str(threads)

    from .runner import run_job

    return 0 if run_job(lambda: _read_job(path), path.resolve().parent, lambda: bool(stop)) else 1


def _read_job(path: Path) -> JobSpec:
    from .errors import WorkerError

    try:
        return JobSpec.from_json(path.read_text())
    except (OSError, UnicodeDecodeError) as exception:
        raise WorkerError('ERROR_JOB_INVALID', f'{path.name}: {exception}') from exception


def _threads(path: Path) -> int | None:
    """Return the number of threads that the job asks for; a broken job file is reported later, by the runner."""
    from .errors import WorkerError

    try:
        threads = _read_job(path).parameters.get('num_threads')
    except WorkerError:
        return None
    return threads if isinstance(threads, int) else None


if __name__ == '__main__':
    sys.exit(main())
