"""Read the results file as what it is, a file from elsewhere: every key that is used has the type that is expected."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

#: Type of every key that the parser uses; those of the first line must be there.
_REQUIRED: dict[str, type | tuple[type, ...]] = {'format_version': int, 'results_version': int, 'state': str}
_OPTIONAL: dict[str, type | tuple[type, ...]] = {
    'fingerprint': str,
    'task': str,
    'error': dict,
    'model': dict,
    'counts': dict,
    'messages': dict,
    'units': dict,
    'versions': dict,
    'timings': dict,
    'notes': list,
    'temperatures': list,
    'precision': str,
    'device': str,
    'num_threads': int,
    'batch_atoms': int,
    'peak_memory_mb': (int, float),
    'worker_command': str,
}
_TEXTS = ('error', 'messages', 'units', 'versions')
_MAX_BYTES = 1 << 24
_MAX_TEMPERATURE = 1e6
_STATES = ('starting', 'running', 'stopped', 'finished', 'failed')


def read_info(content: bytes) -> dict[str, Any]:
    """Return the content of a results file.

    :raises ValueError: if it is not what a worker writes; one sentence says where
    """
    if len(content) > _MAX_BYTES:
        raise ValueError(f'it has {len(content)} bytes, more than any worker writes')
    try:
        info = json.loads(content.decode('utf-8'), parse_constant=_refuse_constant, parse_float=_finite)
        json.dumps(info, ensure_ascii=False).encode('utf-8')  # a lone surrogate, which no database takes
    except RecursionError:
        raise ValueError('it is nested too deeply') from None
    if not isinstance(info, dict):
        raise ValueError('it holds no JSON object')
    for key, expected in {**_REQUIRED, **_OPTIONAL}.items():
        value = info.get(key)
        if value is None and key not in _REQUIRED:
            info.pop(key, None)
        elif not isinstance(value, expected) or isinstance(value, bool):
            raise ValueError(f'{key} is {str(value)[:40]!r}, which no worker writes')
    if info['state'] not in _STATES:
        raise ValueError(f'state is {info["state"][:40]!r}, which no worker writes')
    for key in _TEXTS:
        if not all(isinstance(value, str) for value in info.get(key, {}).values()):
            raise ValueError(f'{key} holds something else than texts')
    if not all(index.isdigit() for index in info.get('messages', {})):
        raise ValueError('messages has a key that is no index')
    if not all(isinstance(value, (int, float)) for value in info.get('timings', {}).values()):
        raise ValueError('timings holds something else than numbers')
    if not all(isinstance(note, str) for note in info.get('notes', [])):
        raise ValueError('notes holds something else than texts')
    if not all(_is_temperature(value) for value in info.get('temperatures', [])):
        raise ValueError('temperatures holds something else than numbers of kelvins')
    return info


def _is_temperature(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _MAX_TEMPERATURE


def _finite(text: str) -> float:
    """Return a number of the file; one that is too large for its type would be infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'it holds {text[:40]}, which is too large a number')
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f'it holds {name}, which is no number')
