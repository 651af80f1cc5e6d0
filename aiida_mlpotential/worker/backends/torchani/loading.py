"""Build a published ANI model from its state dict file, without any network."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from torchani.arch import ANI

FAMILIES = ('ani1x', 'ani2x')
SELF_ENERGIES_KEY = 'energy_shifter.self_energies'


@dataclass(frozen=True)
class LoadedModel:
    """A model and the self energies that belong to it.

    :param model: ensemble in evaluation mode, float64 throughout: the file holds the constants of its atomic
        environment vectors in float64, and only a float64 model keeps them. ``model.float()`` makes it a single
        precision one, in place.
    :param self_energies: energy of each isolated element in the order of ``model.symbols``, hartree
    """

    model: ANI
    self_energies: NDArray[np.float64]


def load_state_dict_model(path: str | Path, symbols: Sequence[str], family: str, members: int) -> LoadedModel:
    """Load an ANI ensemble from a state dict written by ``torch.save``.

    The file is read with torch's restricted unpickler: one that holds anything but tensors is refused, not run.

    :param path: the file
    :param symbols: elements in the order in which the model was trained
    :param family: ``ani1x`` (also for ANI-1ccx) or ``ani2x``: layout of the networks and of the descriptor
    :param members: number of networks in the ensemble
    :raises ValueError: if the family is unknown, or the file is no state dict of such a model
    """
    if family not in FAMILIES:
        raise ValueError(f'Family {family!r} is unknown, use one of {", ".join(FAMILIES)}.')
    if members < 1:
        raise ValueError(f'An ensemble needs at least one member, not {members}.')
    state = _read_state_dict(Path(path))
    model = _assemble(tuple(symbols), family, members)
    _check_shapes(Path(path), state, model.state_dict())
    model.load_state_dict(state)
    model.eval()
    model.requires_grad_(False)
    self_energies = state[SELF_ENERGIES_KEY].double().numpy().copy()
    return LoadedModel(model, self_energies)


def _assemble(symbols: tuple[str, ...], family: str, members: int) -> ANI:
    """A float64 model of random weights."""
    from torchani.arch import Assembler
    from torchani.constants import ATOMIC_NUMBER

    if not symbols or len(set(symbols)) != len(symbols):
        raise ValueError('A model needs at least one element, and each of them once.')
    if unknown := [symbol for symbol in symbols if symbol not in ATOMIC_NUMBER]:
        raise ValueError(f'Symbol {unknown[0]!r} is no element.')
    assembler = Assembler()
    assembler.set_symbols(symbols)
    assembler.set_atomic_networks(ctor=family)
    assembler.set_global_cutoff_fn('cosine')
    assembler.set_aev_computer(angular=family, radial=family)
    assembler.set_zeros_as_self_energies()
    return assembler.assemble(members).double()


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f'File {path.name} cannot be read: {error.strerror or error}.') from error
    try:
        content = torch.load(io.BytesIO(data), map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f'File {path.name} is damaged or holds more than tensors, it was not loaded.') from error
    except Exception as error:  # what torch raises for damaged bytes depends on where it stumbles
        raise ValueError(f'File {path.name} is damaged or no PyTorch file.') from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise ValueError(f'File {path.name} holds no state dict.')
    if not content or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f'File {path.name} holds values that are no tensors, so it is no state dict.')
    return dict(content)


def _check_shapes(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Say in one sentence what torch says in a page."""
    import torch

    missing = sorted(set(expected) - set(state))
    extra = sorted(set(state) - set(expected))
    if missing or extra:
        name = (missing or extra)[0]
        what = 'lacks' if missing else 'has an unexpected'
        raise ValueError(
            f'File {path.name} {what} parameter {name} ({len(missing)} missing, {len(extra)} unexpected): '
            'it belongs to another model.'
        )
    for name, tensor in expected.items():
        found = state[name]
        if found.shape != tensor.shape:
            raise ValueError(
                f'File {path.name} has parameter {name} of shape {tuple(found.shape)} '
                f'where {tuple(tensor.shape)} is needed: it belongs to another model.'
            )
        if found.is_floating_point() != tensor.is_floating_point() or not bool(torch.isfinite(found).all()):
            raise ValueError(f'File {path.name} has parameter {name} with values that are not finite numbers.')
        if not tensor.is_floating_point() and not torch.equal(found, tensor):
            raise ValueError(f'File {path.name} has {name} of other elements or another order of them.')
