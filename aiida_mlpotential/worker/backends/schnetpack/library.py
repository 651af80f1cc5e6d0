"""Import SchNetPack where the newest torch is installed, and load a model with nothing but known classes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ...errors import WorkerError
from ...torchfile import TorchFileError
from ..base import ModelFileError
from ..torch_device import import_torch
from .files import ALLOWED, open_file, reason_for_trust

_INSTALL = "run `aiida-mlpotential backends install schnetpack`, or install it in the code's environment"


def import_schnetpack() -> Any:
    """Return the schnetpack module.

    torch 2.13 renamed a type variable that SchNetPack 2.1.1 imports; the old name is put back, and nothing else.

    :raises WorkerError: if it cannot be imported, or is SchNetPack 1
    """
    import_torch('schnetpack')
    loader = importlib.import_module('torch.utils.data.dataloader')
    if not hasattr(loader, 'T_co') and hasattr(loader, '_T_co'):
        loader.T_co = loader._T_co  # type: ignore[attr-defined]
    try:
        library = importlib.import_module('schnetpack')
    except Exception as exception:  # a library that does not suit another raises more than ImportError
        raise WorkerError(
            'ERROR_BACKEND_MISSING',
            f'SchNetPack cannot be imported ({type(exception).__name__}: {exception}): {_INSTALL}',
        ) from exception
    version = str(getattr(library, '__version__', '1'))
    if version.partition('.')[0] != '2':
        raise WorkerError('ERROR_BACKEND_MISSING', f'SchNetPack {version} is installed, 2 is needed: {_INSTALL}')
    return library


def load_model(path: Path, trusted: bool) -> tuple[Any, tuple[str, ...]]:
    """Return the network in a file, and remarks.

    :param trusted: whether the file may run what is in it, if it has to
    :raises WorkerError: if it is no model, or has to be trusted and is not
    """
    try:
        file, content = open_file(path)
    except ModelFileError as exception:
        damaged = isinstance(exception.__cause__, TorchFileError)
        raise WorkerError(
            'ERROR_MODEL_CORRUPT' if damaged else 'ERROR_MODEL_UNSUPPORTED', str(exception)
        ) from exception
    reason = reason_for_trust(file)
    if reason and not trusted:
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED',
            f'{path.name} is not loaded, because {reason}: if you trust who made it, import it with `--trust`',
        )
    library = import_schnetpack()
    torch = import_torch('schnetpack')
    try:
        if reason:
            model = torch.load(content, map_location='cpu', weights_only=False)
        else:
            with torch.serialization.safe_globals([(_resolve(name), name) for name in file.globals & ALLOWED]):
                model = torch.load(content, map_location='cpu', weights_only=True)
    except WorkerError:
        raise
    except Exception as exception:  # damaged files raise a dozen different types
        raise WorkerError(
            'ERROR_MODEL_CORRUPT', f'{path.name} cannot be loaded: {type(exception).__name__}: {exception}'
        ) from exception
    if not isinstance(model, library.model.NeuralNetworkPotential):
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED',
            f'{path.name} holds a {type(model).__name__}, only a NeuralNetworkPotential of SchNetPack can be evaluated',
        )
    if not hasattr(model.representation, 'electronic_embeddings'):  # models from before 2.1 lack it
        model.representation.electronic_embeddings = torch.nn.ModuleList()
    notes = (f'the model was loaded with all that its file does, because it is trusted: {reason}',) if reason else ()
    return model.eval().requires_grad_(False), notes


def _resolve(name: str) -> Any:
    """Return a class or function of the fixed list; no other name ever comes here."""
    module, _, attribute = name.rpartition('.')
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exception:
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED',
            f'the installed SchNetPack has no {name} ({exception}): install the version that wrote the model',
        ) from exception
