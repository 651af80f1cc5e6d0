"""ANI ensembles: parameters, their batched evaluation, and the backend that hands batches to it."""

from __future__ import annotations

from .backend import TorchAniBackend

__all__ = ('TorchAniBackend',)
