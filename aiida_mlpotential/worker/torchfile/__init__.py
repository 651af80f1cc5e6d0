"""Read torch files symbolically: what is in them, without torch and without running anything of them."""

from __future__ import annotations

from .archive import LIMITS, Limits, TorchFile, open_torch_file, read_torch_file
from .values import Global, Instance, StorageRef, TensorRef, TorchFileError, walk

__all__ = (
    'LIMITS',
    'Global',
    'Instance',
    'Limits',
    'StorageRef',
    'TensorRef',
    'TorchFile',
    'TorchFileError',
    'open_torch_file',
    'read_torch_file',
    'walk',
)
