"""The backends by name; each is imported when it is asked for, so that no library is needed but that of the model."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WorkerError
from ..schema import ModelSpec
from .catalogue import BACKENDS, BackendEntry

if TYPE_CHECKING:
    from .base import Backend, Settings

__all__ = ('BACKENDS', 'BackendEntry', 'get_backend', 'load_backend')


def get_backend(name: str) -> type[Backend]:
    """Return the class of a backend, importing its module but not yet its library."""
    try:
        entry = BACKENDS[name]
    except KeyError:
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED', f'unknown backend {name!r}; there are {", ".join(sorted(BACKENDS))}'
        ) from None
    backend: type[Backend] = getattr(importlib.import_module(f'.{entry.module}', __name__), entry.cls)
    return backend


def load_backend(spec: ModelSpec, directory: Path, settings: Settings) -> Backend:
    """Load the model of a job: one parameter set, or a committee of several.

    :raises WorkerError: if the model, its library or the device is not usable
    """
    cls = get_backend(spec.backend)
    if not spec.committee:
        return cls.load(spec, directory, settings)
    from .committee import Committee

    return Committee.load_members(cls, spec, directory, settings)
