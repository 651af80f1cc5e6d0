"""Keep the worker within the memory there is, so that too large a batch is an error to handle and not the end."""

from __future__ import annotations

import resource
from pathlib import Path

#: Part of the available memory that the worker may take.
_SHARE = 0.9
#: Least memory beyond libraries and model, bytes: below it not even a small batch is sure to fit.
_HEADROOM = 256 << 20


def available_memory() -> int | None:
    """Return the bytes that this process may still take: what the kernel offers, within the control group's limit."""
    candidates = []
    for line in _read('/proc/meminfo').splitlines():
        if line.startswith('MemAvailable:'):
            candidates.append(int(line.split()[1]) * 1024)
    for limit, usage in (
        ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory.current'),
        ('/sys/fs/cgroup/memory/memory.limit_in_bytes', '/sys/fs/cgroup/memory/memory.usage_in_bytes'),
    ):
        values = [_read(limit).strip(), _read(usage).strip()]
        if all(value.isdigit() for value in values):
            candidates.append(max(int(values[0]) - int(values[1]), 0))
    return min(candidates) if candidates else None


def limit_memory(megabytes: int | None = None) -> int | None:
    """Let allocations beyond the given or the available memory fail instead of waking the kernel's killer.

    Call it when libraries and model are loaded (a BLAS that starts without memory waits for it forever), and not on a
    GPU, whose driver maps far more than it takes.

    :return: the limit in bytes, or ``None`` where the system does not tell
    :raises MemoryError: if the limit leaves no room to work in
    """
    used, available = _data_size(), available_memory()
    if used is None:
        return None
    if megabytes is not None:
        limit = megabytes << 20
    elif available is not None:
        limit = used + int(available * _SHARE)
    else:
        return None
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    if limit < used + _HEADROOM:
        raise MemoryError(
            f'libraries and model take {used >> 20} MB and the limit is {limit >> 20} MB: '
            f'at least {(used + _HEADROOM) >> 20} MB are needed; set memory_limit to that, or ask for more memory'
        )
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return limit


def peak_memory_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _data_size() -> int | None:
    for line in _read('/proc/self/status').splitlines():
        if line.startswith('VmData:'):
            return int(line.split()[1]) * 1024
    return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ''
