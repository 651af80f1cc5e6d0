"""Turn a state dict that torchani published into the canonical, pickle-free parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...registry import PretrainedModel
from .parameters import AniParameters, ParametersError


def read_state_dict(path: str | Path, model: PretrainedModel) -> AniParameters:
    """Read a state dict file, in which torch's restricted unpickler lets nothing but tensors pass.

    :param path: file written by ``torch.save``
    :param model: the model that it should be
    :raises FileNotFoundError: if there is no such file
    :raises ParametersError: if torch is not installed, or the file is damaged, unsafe or of another model
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no file {str(path)!r}')
    try:
        import torch
    except ImportError:
        raise ParametersError(
            f'{path.name} has to be converted, which needs torch: pip install "aiida-mlpotential[torchani]"'
        ) from None
    try:
        # without mmap, so that a file that is cut short while it is read is an exception and no crash
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=False)
    except MemoryError:
        raise
    except Exception as exception:  # damaged and hostile files raise a dozen different types
        raise ParametersError(
            f'{path.name} is damaged or holds more than tensors ({type(exception).__name__}), it was not loaded'
        ) from exception
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ParametersError(f'{path.name} is no state dict')
    arrays: dict[str, Any] = {str(name): _to_numpy(value, path.name) for name, value in content.items()}
    try:
        return AniParameters.from_state_dict(arrays, model)
    except ParametersError as exception:
        raise ParametersError(f'{path.name} does not hold {model.name}: {exception}') from None
    except (ValueError, TypeError) as exception:  # numpy's words for shapes that cannot be stacked
        raise ParametersError(f'{path.name} does not hold {model.name}: {exception}') from exception


def _to_numpy(tensor: Any, name: str) -> Any:
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as exception:  # a type that numpy does not have, or no dense tensor
        raise ParametersError(f'{name} holds a tensor of type {tensor.dtype}, expected plain numbers') from exception
