"""Monitors: what AiiDA calls now and then while a job runs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path, PurePosixPath

from aiida.engine.processes.calcjobs.monitors import CalcJobMonitorAction, CalcJobMonitorResult
from aiida.orm import CalcJobNode
from aiida.schedulers.datastructures import JobState
from aiida.transports import Transport

from aiida_mlpotential.worker.schema import STOP_FILE

#: Extra of a calculation by which a user asks it to stop.
STOP_EXTRA = 'mlpotential_stop'
#: Extra with the time (seconds since 1970, of the daemon's clock) at which the job was first seen running.
SINCE_EXTRA = 'mlpotential_running_since'


def soft_stop(node: CalcJobNode, transport: Transport, seconds: int | None = None) -> CalcJobMonitorResult | None:
    """Ask a running job to end in order, when a user wants it or it has run for long enough.

    The job stores what is under way, is retrieved and parsed, and ends with the exit code ``ERROR_INCOMPLETE`` if
    structures are left: ``parent_folder`` goes on with them. Queueing does not count.

    :param seconds: how long the job may run, as the daemon's clock and its polling see it; ``None``: only when the
        extra ``mlpotential_stop`` of the calculation is set
    """
    reason = _reason(node, seconds)
    directory = node.get_remote_workdir()
    if reason is None or directory is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / STOP_FILE
        path.write_text(f'{reason}\n', encoding='utf-8')
        transport.putfile(path, str(PurePosixPath(directory) / STOP_FILE))
    # Without this a job that ends before the next look at it would get the exit code of a killed one.
    return CalcJobMonitorResult(message=reason, action=CalcJobMonitorAction.DISABLE_SELF, override_exit_code=False)


def _reason(node: CalcJobNode, seconds: int | None) -> str | None:
    """Return why the job should end now, or ``None``."""
    if node.base.extras.get(STOP_EXTRA, None):
        return f'asked to stop by the extra {STOP_EXTRA}'
    if seconds is None or node.get_scheduler_state() is not JobState.RUNNING:
        return None
    since = node.base.extras.get(SINCE_EXTRA, None)
    if since is None:
        since = time.time()
        node.base.extras.set(SINCE_EXTRA, since)
    return f'asked to stop after {seconds} seconds' if time.time() - since >= seconds else None
