"""PiNN models: their files, the library, the evaluation on our own neighbour pairs, and the backend around them."""

from __future__ import annotations

from .backend import PinnBackend

__all__ = ('PinnBackend',)
