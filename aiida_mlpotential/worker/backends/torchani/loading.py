"""Load a model that somebody trained with torchani, from whatever form it was saved in, without running what is in it.

Pickles go through torch's restricted unpickler with a fixed list of classes, TorchScript is read before it is loaded:
see :mod:`.safety`. What cannot be loaded so is loaded only if a person said that the file may be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import WorkerError
from ...schema import ModelSpec
from ...torchfile import TorchFileError, open_torch_file
from .engine import AniEngine
from .flat import FlatEngine
from .forward import ForwardEngine
from .inspection import ELEMENT_KEYS, MODEL_KEYS, some, why_not
from .interop import from_parts, from_torchani, to_torchani
from .models import Pieces, pieces_of_ani, pieces_of_script, pieces_of_sequential, stored_symbols
from .parameters import ParametersError
from .safety import allowed_classes, odd_modules
from .state_dict import looks_like_state_dict, read_own_ani

Engine = AniEngine | FlatEngine | ForwardEngine

#: Values of the option ``species``: what a model of unknown make takes.
SPECIES = ('indices', 'atomic_numbers')
TRUST = 'import it again with --trust if you know who made it'


@dataclass(frozen=True)
class Loaded:
    """A model ready for evaluation.

    :ivar symbols: elements in the order of the model
    :ivar relative: whether the model has no self energies
    :ivar notes: what whoever reads the results should know
    """

    engine: Engine
    symbols: tuple[str, ...]
    relative: bool = False
    notes: tuple[str, ...] = ()

    @property
    def tells_atoms(self) -> bool:
        """Return whether the model tells what each atom has of the energy."""
        return not isinstance(self.engine, ForwardEngine)


def load_custom(path: Path, spec: ModelSpec, device: str, precision: str) -> Loaded:
    """Load a model file of any form but the canonical one.

    :raises WorkerError: if it is damaged, needs trust that it has not, or is no model that can be evaluated
    """
    content, notes = _read(path, spec.trusted)
    stated = spec.elements
    model = content
    if isinstance(content, Mapping) and not looks_like_state_dict(list(map(str, content))):
        model = next((content[key] for key in MODEL_KEYS if key in content), None)
        listed = next((content[key] for key in ELEMENT_KEYS if key in content), None)
        if stated is None and isinstance(listed, (list, tuple)):
            stated = tuple(map(str, listed))
    try:
        loaded = _engine_of(model, stated, spec, device, precision)
    except ParametersError as exception:
        raise WorkerError('ERROR_MODEL_UNSUPPORTED', f'{path.name}: {exception}') from exception
    if spec.elements is not None and set(spec.elements) != set(loaded.symbols):
        raise WorkerError(
            'ERROR_MODEL_CORRUPT',
            f'{path.name} is for {", ".join(loaded.symbols)}, not {", ".join(spec.elements)}',
        )
    return Loaded(loaded.engine, loaded.symbols, loaded.relative, notes + loaded.notes)


def _engine_of(model: Any, stated: Sequence[str] | None, spec: ModelSpec, device: str, precision: str) -> Loaded:
    """Choose how to evaluate what was in the file."""
    import torch
    from torchani.arch import ANI
    from torchani.nn import Sequential

    if isinstance(model, Mapping) and looks_like_state_dict(list(map(str, model))):
        return _from_state_dict(model, stated, spec, device, precision)
    if not isinstance(model, torch.nn.Module):
        raise ParametersError(
            f'it holds a {type(model).__name__}, expected a model of torchani, its state dict, or TorchScript'
        )
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if isinstance(model, torch.jit.ScriptModule):
        pieces = pieces_of_script(model)
    elif type(model) is ANI:
        try:
            return _canonical(from_torchani(model), device, precision)
        except ValueError:  # another cutoff function, activation or architecture: torchani evaluates it
            pieces = pieces_of_ani(model)
    elif type(model) is Sequential:
        pieces = pieces_of_sequential(model, stated)
        try:
            return _canonical(
                from_parts(pieces.flat.symbols, pieces.computer, pieces.networks, pieces.flat.self_energies),
                device,
                precision,
            )
        except ValueError:
            return Loaded(FlatEngine(pieces.flat, device, precision), pieces.flat.symbols, *_relative(pieces))
    else:
        pieces = None
    if pieces is not None:
        return Loaded(FlatEngine(pieces.flat, device, precision), pieces.flat.symbols, *_relative(pieces))
    return _from_unknown(model, stated, spec, device, precision)


def _canonical(parameters: Any, device: str, precision: str) -> Loaded:
    relative = not np.any(parameters.self_energies)
    return Loaded(AniEngine(parameters, device, precision), parameters.symbols, relative)


def _relative(pieces: Pieces) -> tuple[bool]:
    return (not np.any(pieces.flat.self_energies),)


def _from_state_dict(
    state: Mapping[str, Any], stated: Sequence[str] | None, spec: ModelSpec, device: str, precision: str
) -> Loaded:
    arrays = {}
    for name, tensor in state.items():
        try:
            arrays[str(name)] = tensor.detach().cpu().numpy()
        except (AttributeError, TypeError, RuntimeError) as exception:
            raise ParametersError(f'{name} is no tensor of plain numbers') from exception
    own = read_own_ani(arrays, stated, spec.options)
    note = (f'the state dict was completed: {own.remark}',)
    if own.canonical:
        loaded = _canonical(own.parameters, device, precision)
        return Loaded(loaded.engine, loaded.symbols, loaded.relative, note)
    pieces = pieces_of_ani(to_torchani(own.parameters, own.cutoff_fn, own.activation))
    return Loaded(FlatEngine(pieces.flat, device, precision), pieces.flat.symbols, *_relative(pieces), note)


def _from_unknown(model: Any, stated: Sequence[str] | None, spec: ModelSpec, device: str, precision: str) -> Loaded:
    """Evaluate a model by its ``forward`` alone; what that takes, somebody has to say."""
    species = spec.options.get('species')
    symbols = stored_symbols(model) or stated
    if symbols is None:
        raise ParametersError('the model does not list its elements: state them, in the order of its species')
    if species is None and type(model).__name__ == 'RecursiveScriptModule' and model.original_name == 'ANI':
        species = 'atomic_numbers' if getattr(model, 'periodic_table_index', True) else 'indices'
    if species not in SPECIES:
        raise ParametersError(
            f'{getattr(model, "original_name", type(model).__name__)} is no model of torchani, so whether it takes '
            f'atomic numbers or indices is not known: state the option species, {" or ".join(SPECIES)}'
        )
    notes: tuple[str, ...] = ()
    if precision == 'single':
        notes = (
            'whatever self energies the model has are inside it and added in single precision, which rounds energies '
            'to about 1e-7 of their size (4e-4 eV in 4000 eV): set precision to double to avoid that',
        )
    engine = ForwardEngine(model, symbols, species == 'atomic_numbers', device, precision)
    return Loaded(engine, tuple(symbols), False, notes)


def _read(path: Path, trusted: bool) -> tuple[Any, tuple[str, ...]]:
    """Return what is in a file of torch, with a note if it had to be trusted."""
    import torch

    try:
        file, content = open_torch_file(path)
    except TorchFileError as exception:
        raise WorkerError('ERROR_MODEL_CORRUPT', f'{path.name}: {exception}') from exception
    reasons = why_not(file, _all_operators())
    if reasons and not trusted:
        raise WorkerError('ERROR_MODEL_UNSUPPORTED', f'{path.name} {reasons}: {TRUST}')
    notes = (f'{path.name} was trusted to run what is in it: it {reasons}',) if reasons else ()
    try:
        if file.kind == 'torchscript':
            load: Any = torch.jit.load
            return load(content, map_location='cpu'), notes
        if reasons:
            return torch.load(content, map_location='cpu', weights_only=False), notes
        with torch.serialization.safe_globals(list[Any](allowed_classes())):
            model = torch.load(content, map_location='cpu', weights_only=True)
        _check_modules(model, path.name, trusted)  # which a module without what every module has does not outlive
    except (MemoryError, WorkerError):
        raise
    except Exception as exception:  # what is damaged, or of another version, raises a dozen different types
        raise WorkerError(
            'ERROR_MODEL_CORRUPT',
            f'{path.name} cannot be loaded ({type(exception).__name__}: {str(exception).splitlines()[0][:200]}): it is '
            'damaged, or was saved with another version of torchani; a state dict would outlive versions',
        ) from exception
    return model, notes


def _all_operators() -> list[str]:
    """Return the names of all operators of the installed torch."""
    import torch

    return sorted({schema.name.partition('::')[2] for schema in torch._C._jit_get_all_schemas()})


def _check_modules(content: Any, name: str, trusted: bool) -> None:
    import torch

    values = content.values() if isinstance(content, Mapping) else [content]
    for value in values:
        if isinstance(value, torch.nn.Module) and not trusted and (odd := odd_modules(value)):
            raise WorkerError('ERROR_MODEL_UNSUPPORTED', f'{name}: {some(odd)}: {TRUST}')
