"""SchNetPack 2: what its files say, loading them safely, evaluating batches, and the backend around it."""

from __future__ import annotations

from .backend import SchNetPackBackend

__all__ = ('SchNetPackBackend',)
