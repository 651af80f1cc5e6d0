"""sGDML models: their files, the order of their atoms, and the backend that hands batches to the library."""

from __future__ import annotations

from .backend import SgdmlBackend

__all__ = ('SgdmlBackend',)
