"""The backends by name; each is imported when it is asked for, so that no library is needed but that of the model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..errors import WorkerError

if TYPE_CHECKING:
    from .base import Backend

#: Module and class of each backend.
BACKENDS: dict[str, tuple[str, str]] = {
    'ase': ('ase', 'AseBackend'),
    'torchani': ('torchani', 'TorchAniBackend'),
}


def get_backend(name: str) -> type[Backend]:
    """Return the class of a backend, importing its module but not yet its library."""
    try:
        module, cls = BACKENDS[name]
    except KeyError:
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED', f'unknown backend {name!r}; there are {", ".join(sorted(BACKENDS))}'
        ) from None
    backend: type[Backend] = getattr(importlib.import_module(f'.{module}', __name__), cls)
    return backend
