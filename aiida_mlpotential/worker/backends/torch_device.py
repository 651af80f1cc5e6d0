"""What the backends on torch share: finding torch, choosing a device, and telling that memory ran out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..errors import OutOfMemory, WorkerError
from .base import Settings

_OUT_OF_MEMORY = ("can't allocate memory", 'not enough memory', 'std::bad_alloc', 'CUDA out of memory')


def import_torch(backend: str) -> Any:
    """Return the torch module.

    :raises WorkerError: if it cannot be imported, with the remedy
    """
    try:
        import torch
    except ImportError as exception:
        raise WorkerError(
            'ERROR_BACKEND_MISSING',
            f'torch cannot be imported ({exception}): run `aiida-mlpotential backends install {backend}`, '
            "or install it in the code's environment",
        ) from exception
    return torch


def choose_device(settings: Settings, backend: str = 'torchani') -> tuple[str, tuple[str, ...]]:
    """Return the device to compute on, with a remark where it is not the one that was asked for.

    :raises WorkerError: if a GPU is asked for and absent, and nobody allowed the CPU instead
    """
    torch = import_torch(backend)
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kind, _, index = settings.device.partition(':')
    if kind != 'cuda':
        return ('cuda' if number and not settings.device else 'cpu'), ()
    if int(index or 0) < number:
        return settings.device, ()
    built = '' if torch.version.cuda else ', and this torch was built without CUDA'
    message = f'{settings.device} was asked for, but there are {number} GPUs{built}'
    if settings.device_fallback:
        return 'cpu', (f'{message}: computed on the CPU',)
    raise WorkerError('ERROR_DEVICE_MISSING', f'{message}: ask the scheduler for one, or set device_fallback')


def out_of_memory(exception: BaseException) -> bool:
    """Return whether an exception of torch means that memory ran out; it has a type of its own for the GPU only."""
    return any(text in str(exception) for text in _OUT_OF_MEMORY)


@contextlib.contextmanager
def memory_errors(device: str) -> Iterator[None]:
    """Raise an error of torch for want of memory as ours.

    :raises OutOfMemory: where torch could not allocate what it needs
    """
    try:
        yield
    except RuntimeError as exception:  # torch has a type for the GPU only
        if not out_of_memory(exception):
            raise
        free_memory(device)
        raise OutOfMemory('torch could not allocate what it needs') from None


def free_memory(device: str) -> None:
    """Give back what torch keeps in store on a GPU."""
    if device.startswith('cuda'):
        import_torch('torchani').cuda.empty_cache()
