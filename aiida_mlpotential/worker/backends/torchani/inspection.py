"""What a TorchANI model file says of itself, read without torch and without running anything in it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...torchfile import Instance, TensorRef, TorchFile, TorchFileError, read_torch_file
from ..base import FileFacts, ModelFileError
from .parameters import AniParameters, ParametersError
from .safety import forbidden_operators, foreign_globals, foreign_script_globals
from .state_dict import looks_like_state_dict, read_own_ani, stored_elements

#: Keys under which a dictionary may hold the model, and those under which it may list the elements.
MODEL_KEYS = ('model', 'state_dict', 'model_state_dict')
ELEMENT_KEYS = ('elements', 'symbols', 'species_order')
RELATIVE = 'energies are relative: the model has no self energies'
_STATE_ELEMENTS = 'the file does not say its elements: state them, in the order of its species'


def is_canonical(path: Path) -> bool:
    """Return whether a file is a canonical ``.npz`` of ANI parameters rather than one of torch."""
    if path.suffix == '.npz' or not zipfile.is_zipfile(path):
        return path.suffix == '.npz'
    try:
        with zipfile.ZipFile(path) as archive:
            return 'symbols.npy' in archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return False


def inspect_file(path: Path) -> FileFacts:
    """Return what a model file says of itself.

    :raises ModelFileError: if it is no file that this backend can use
    """
    if not path.is_file():
        raise ModelFileError(f'{path.name} is no file: a TorchANI model is one `.npz` or `.pt` file')
    try:
        if is_canonical(path):
            return _canonical(path)
        file = read_torch_file(path)
        return _torchscript(file) if file.kind == 'torchscript' else _pickle(file)
    except (ParametersError, TorchFileError) as exception:
        raise ModelFileError(f'{path.name}: {exception}') from exception


def why_not(file: TorchFile, all_operators: Iterable[str] = ()) -> str:
    """Return why a file cannot be loaded without trusting it, as the end of a sentence on it; empty if it can.

    :param all_operators: names of the operators of the installed torch, where there is one
    """
    if file.kind == 'torchscript':
        used = foreign_script_globals(file.globals) + forbidden_operators(file.code, all_operators)
        return f'uses what no model needs, {some(used)}' if used else ''
    foreign = foreign_globals(file.globals)
    return f'holds objects of classes that are on no list, {some(foreign)}' if foreign else ''


def some(names: list[str]) -> str:
    """Return the first names of a list that may be long."""
    return ', '.join(names[:5]) + (f' and {len(names) - 5} more' if len(names) > 5 else '')


def _canonical(path: Path) -> FileFacts:
    parameters = AniParameters.read(path)
    return FileFacts(
        parameters.symbols,
        parameters.n_members,
        'Hartree',
        'angstrom',
        parameters.family.radial_cutoff,
        {'form': 'canonical'},
        remarks=() if np.any(parameters.self_energies) else (RELATIVE,),
    )


def _pickle(file: TorchFile) -> FileFacts:
    trust = why_not(file)
    root = _mapping(file.root)
    model: Any = file.root
    listed: tuple[str, ...] | None = None
    if root is not None and not looks_like_state_dict([str(name) for name in root]):
        model = next((root[key] for key in MODEL_KEYS if key in root), None)
        names = next((root[key] for key in ELEMENT_KEYS if key in root), None)
        listed = tuple(map(str, names)) if isinstance(names, (list, tuple)) else None
    state = _mapping(model)
    if state is not None and looks_like_state_dict([str(name) for name in state]):
        return _state_dict({str(name): value for name, value in state.items()}, listed, trust)
    if not isinstance(model, Instance):
        raise ModelFileError('it holds neither a model of torchani nor its state dict')
    if model.type == 'torchani.arch.ANI':
        return _ani(model, trust)
    if model.type == 'torchani.nn._internal.Sequential':
        return _sequential(model, listed, trust)
    if not trust:
        raise ModelFileError(f'it holds a {model.type.rpartition(".")[2]}, which is no model of torchani')
    return FileFacts(listed, needs_trust=trust, remarks=() if listed else (_STATE_ELEMENTS,))


def _ani(model: Instance, trust: str) -> FileFacts:
    networks = _find(model, 'potentials', 'nnp', 'neural_networks')
    shifter = _find(model, 'energy_shifter')
    energies = _buffer(shifter, 'self_energies')
    relative = energies is None or not np.any(energies) or _state(shifter).get('_enabled') is False
    cutoff = _state(model).get('cutoff')
    return FileFacts(
        _symbols(_buffer(model, 'atomic_numbers')),
        _members(networks),
        cutoff=float(cutoff) if isinstance(cutoff, (int, float)) else None,
        options={'form': 'ani'},
        needs_trust=trust,
        remarks=(RELATIVE,) if relative else (),
    )


def _sequential(model: Instance, listed: tuple[str, ...] | None, trust: str) -> FileFacts:
    parts = [part for part in _modules(model).values() if isinstance(part, Instance)]
    kinds = [part.type.rpartition('.')[2] for part in parts]
    computer = next((part for part in parts if part.type.endswith('.AEVComputer')), None)
    containers = [part for part, kind in zip(parts, kinds, strict=True) if _is_container(kind)]
    elements = _symbols(_buffer(containers[0], 'atomic_numbers')) if containers else None
    remarks = []
    if elements is not None:
        remarks.append(f'the element order, {", ".join(elements)}, is that of the networks in the file')
    elif listed is None:
        remarks.append(_STATE_ELEMENTS)
    if 'EnergyShifter' not in kinds:
        remarks.append(RELATIVE)
    cutoff = _state(_find(computer, 'radial')).get('cutoff') if computer is not None else None
    return FileFacts(
        elements or listed,
        _members(containers[0]) if containers else 1,
        cutoff=float(cutoff) if isinstance(cutoff, (int, float)) else None,
        options={'form': 'sequential'},
        needs_trust=trust,
        remarks=tuple(remarks),
    )


def _is_container(kind: str) -> bool:
    return kind in ('Ensemble', 'ANINetworks', 'ANIModel', 'ANISharedNetworks', 'SingleNN')


def _torchscript(file: TorchFile) -> FileFacts:
    """Read a scripted module; its parameters lie in its ``state`` directly, not in tables of modules and buffers."""
    root = file.root
    if not isinstance(root, Instance) or not isinstance(root.state, Mapping):
        raise ModelFileError('it is TorchScript, but not of a module')
    state = root.state
    elements = _symbols(_array(state.get('atomic_numbers')))
    remarks = [] if elements else [_STATE_ELEMENTS]
    scripted_ani = root.type.startswith('__torch__.torchani.arch.') and root.type.endswith('.ANI')
    if not scripted_ani:
        remarks.append(
            'it is TorchScript of another make: state the option species, indices or atomic_numbers, which it takes'
        )
    nnp = _path(root, 'potentials', 'nnp', 'neural_networks')
    active = nnp.get('active_members_idxs') if nnp else None
    members = len(active) if isinstance(active, (list, tuple)) else 1
    shifter = _path(root, 'energy_shifter')
    if scripted_ani and shifter is not None:
        energies = _array(shifter.get('self_energies'))
        if energies is not None and (not np.any(energies) or shifter.get('_enabled') is False):
            remarks.append(RELATIVE)
    cutoff = state.get('cutoff')
    return FileFacts(
        elements,
        max(members, 1),
        cutoff=float(cutoff) if isinstance(cutoff, (int, float)) else None,
        options={'form': 'torchscript'},
        needs_trust=why_not(file),
        remarks=tuple(remarks),
    )


def _state_dict(state: Mapping[str, Any], listed: tuple[str, ...] | None, trust: str) -> FileFacts:
    if not all(isinstance(value, TensorRef) for value in state.values()):
        raise ModelFileError('it is a state dict with something in it that is no tensor')
    elements, members, shifted = stored_elements(state)
    elements = elements or listed
    remarks = [] if elements else [_STATE_ELEMENTS]
    if not shifted:
        remarks.append(RELATIVE)
    cutoff = None
    if elements is not None:
        try:
            own = read_own_ani({name: value.numpy() for name, value in state.items()}, elements)
        except ParametersError as exception:  # what is missing, the user may state
            remarks.append(str(exception))
        else:
            remarks.append(own.remark)
            cutoff = own.parameters.family.radial_cutoff
    return FileFacts(
        elements, members, cutoff=cutoff, options={'form': 'state_dict'}, needs_trust=trust, remarks=tuple(remarks)
    )


def _mapping(value: Any) -> dict[Any, Any] | None:
    """Return a dictionary, plain or ordered, as a plain one; ``None`` for anything else."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Instance) and value.type == 'collections.OrderedDict':
        try:
            return dict(value.items)
        except (TypeError, ValueError):
            return None
    return None


def _state(value: Any) -> dict[Any, Any]:
    return (_mapping(value.state) or {}) if isinstance(value, Instance) else {}


def _modules(value: Any) -> dict[Any, Any]:
    return _mapping(_state(value).get('_modules')) or {}


def _find(value: Any, *path: str) -> Any:
    """Return a submodule of a module, or ``None``."""
    for name in path:
        value = _modules(value).get(name)
    return value


def _path(value: Any, *path: str) -> dict[Any, Any] | None:
    """Return the state of a submodule of a scripted module, or ``None``."""
    for name in path:
        value = _state(value).get(name)
    return _state(value) or None


def _buffer(value: Any, name: str) -> Any:
    return _array((_mapping(_state(value).get('_buffers')) or {}).get(name))


def _array(value: Any) -> Any:
    return value.numpy() if isinstance(value, TensorRef) else None


def _members(networks: Any) -> int:
    active = _state(networks).get('active_members_idxs')
    return len(active) if isinstance(active, list) and networks.type.endswith('.Ensemble') else 1


def _symbols(numbers: Any) -> tuple[str, ...] | None:
    if numbers is None:
        return None
    from .models import symbols_of

    return symbols_of(numbers)
