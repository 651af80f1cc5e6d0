"""What a ``best_model`` of SchNetPack says, and whether it may be loaded: read symbolically, without torch."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...torchfile import Instance, TensorRef, TorchFile, TorchFileError, open_torch_file, read_torch_file
from ..base import FileFacts, ModelFileError

#: Classes of which a model is made: none of them does anything but compute when its state is chosen by a stranger.
CLASSES: dict[str, tuple[str, ...]] = {
    'schnetpack.model.base': ('NeuralNetworkPotential',),
    'schnetpack.representation.painn': ('PaiNN', 'PaiNNInteraction', 'PaiNNMixing'),
    'schnetpack.representation.schnet': ('SchNet', 'SchNetInteraction'),
    'schnetpack.representation.so3net': ('SO3net',),
    'schnetpack.representation.field_schnet': (
        'FieldSchNet',
        'FieldSchNetFieldInteraction',
        'DipoleUpdate',
        'DipoleInteraction',
        'NuclearMagneticMomentEmbedding',
    ),
    'schnetpack.nn.activations': ('ShiftedSoftplus',),
    'schnetpack.nn.base': ('Dense',),
    'schnetpack.nn.blocks': ('Residual', 'ResidualStack', 'ResidualMLP'),
    'schnetpack.nn.cutoff': ('CosineCutoff', 'MollifierCutoff', 'SwitchFunction'),
    'schnetpack.nn.embedding': ('NuclearEmbedding', 'ElectronicEmbedding'),
    'schnetpack.nn.equivariant': ('GatedEquivariantBlock',),
    'schnetpack.nn.radial': ('GaussianRBF', 'GaussianRBFCentered', 'BesselRBF'),
    'schnetpack.nn.so3': (
        'RealSphericalHarmonics',
        'SO3TensorProduct',
        'SO3Convolution',
        'SO3ParametricGatedNonlinearity',
        'SO3GatedNonlinearity',
    ),
    'schnetpack.atomistic.aggregation': ('Aggregation',),
    'schnetpack.atomistic.atomwise': ('Atomwise', 'DipoleMoment', 'Polarizability'),
    'schnetpack.atomistic.distances': ('PairwiseDistances', 'FilterShortRange'),
    'schnetpack.atomistic.electrostatic': (
        'CoulombPotential',
        'DampedCoulombPotential',
        'EnergyCoulomb',
        'EnergyEwald',
    ),
    'schnetpack.atomistic.external_fields': ('StaticExternalFields',),
    'schnetpack.atomistic.nuclear_repulsion': ('ZBLRepulsionEnergy',),
    'schnetpack.atomistic.response': ('Forces', 'Response', 'Strain'),
    'schnetpack.transform.atomistic': ('AddOffsets', 'RemoveOffsets', 'ScaleProperty'),
    'schnetpack.transform.casting': ('CastMap', 'CastTo32', 'CastTo64'),
    'torch.nn.modules.container': ('ModuleDict', 'ModuleList', 'Sequential'),
    'torch.nn.modules.linear': ('Identity', 'Linear'),
    'torch.nn.modules.sparse': ('Embedding',),
    'torch.nn.modules.activation': (
        *('CELU', 'ELU', 'GELU', 'LeakyReLU', 'Mish', 'ReLU', 'SELU'),
        *('SiLU', 'Sigmoid', 'Softplus', 'Tanh'),
    ),
}
#: Functions that a layer refers to: activations, and what once filled its weights. They compute, or fill a tensor.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    'schnetpack.nn.activations': ('shifted_softplus',),
    'torch.nn.functional': ('celu', 'elu', 'leaky_relu', 'mish', 'relu', 'selu', 'sigmoid', 'silu', 'tanh'),
    'torch._C._nn': ('gelu', 'softplus'),
    'torch.nn.init': (
        *('constant_', 'kaiming_normal_', 'kaiming_uniform_', 'normal_', 'ones_'),
        *('orthogonal_', 'uniform_', 'xavier_normal_', 'xavier_uniform_', 'zeros_'),
    ),
}
ALLOWED_CLASSES = frozenset(f'{module}.{name}' for module, names in CLASSES.items() for name in names)
ALLOWED = ALLOWED_CLASSES | {f'{module}.{name}' for module, names in FUNCTIONS.items() for name in names}

#: What torch itself lets pass: tensors and what they are made of.
_TENSORS = re.compile(
    r'torch\.\w+Storage|torch\._utils\._rebuild_(tensor_v2|parameter|parameter_with_state)|torch\.Size|torch\.device'
    r'|torch\.(float|uint|int|bfloat|complex)\d+|torch\.bool|collections\.OrderedDict|builtins\.set'
)
#: Modules of SchNetPack 1, which 2 does not have.
_VERSION_1 = re.compile(
    r'schnetpack\.(atomistic\.(model|models|output_modules)|nn\.(acsf|cfconv|neighbors|initializers))\b'
)

ADVICE_1 = (
    'it is a model of SchNetPack 1, which SchNetPack 2 cannot read: train it again with SchNetPack 2 (`spkconvert` '
    'converts the data set), or build the same network there, copy the weights and save it with `torch.save(model, '
    "'best_model')`"
)
ADVICE_STATE = 'import the file `best_model` that the training wrote, which holds the network as well'


def read_file(path: Path) -> TorchFile:
    """Read a file and make sure that it is a model of SchNetPack 2.

    :raises ModelFileError: if it is not, with what it is and what to do
    """
    with _explained(path):
        file = read_torch_file(path)
    _check_kind(path, file)
    return file


def open_file(path: Path) -> tuple[TorchFile, io.BytesIO]:
    """Return what :func:`read_file` does, with the very bytes that were judged, for torch to load.

    :raises ModelFileError: if it is no model of SchNetPack 2
    """
    with _explained(path):
        file, content = open_torch_file(path)
    _check_kind(path, file)
    return file, content


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of a file that cannot be read which it is."""
    if path.is_dir():
        raise ModelFileError(f'{path.name} is a directory: give the file `best_model` in it')
    try:
        yield
    except TorchFileError as exception:
        raise ModelFileError(f'{path.name} cannot be read: {exception}') from exception


def _check_kind(path: Path, file: TorchFile) -> None:
    """Refuse what is no model of SchNetPack 2, with what it is and what to do."""
    root = file.root
    if any(_VERSION_1.match(name) for name in file.globals):
        raise ModelFileError(f'{path.name} cannot be used: {ADVICE_1}')
    if file.kind == 'torchscript':
        raise ModelFileError(
            f'{path.name} is a TorchScript archive, which carries no network to differentiate: import `best_model`'
        )
    if isinstance(root, dict) and 'state_dict' in root:
        raise ModelFileError(f'{path.name} is a checkpoint of the training: {ADVICE_STATE}')
    if isinstance(root, dict) and root and all(isinstance(value, TensorRef) for value in root.values()):
        raise ModelFileError(f'{path.name} is a state dict, the weights alone: {ADVICE_STATE}')
    if not isinstance(root, Instance) or not any(name.startswith('schnetpack.') for name in file.globals):
        raise ModelFileError(f'{path.name} holds no model of SchNetPack: {ADVICE_STATE}')


def reason_for_trust(file: TorchFile) -> str:
    """Return why a file cannot be loaded without running what is in it, or nothing where it can.

    Two doors have to open: the names in the file, and what is done with them. torch itself enforces the former once
    more, but would call an allowed class with any arguments.
    """
    foreign = sorted(name for name in file.globals if name not in ALLOWED and not _TENSORS.fullmatch(name))
    if foreign:
        more = f' and {len(foreign) - 3} more' if len(foreign) > 3 else ''
        return f'it refers to {", ".join(foreign[:3])}{more}, not part of any standard model of SchNetPack'
    for value in file.instances:
        if value.type != 'torch.device':
            if value.type not in ALLOWED_CLASSES or value.args or value.items:
                return f'it calls {value.type}, which no standard model of SchNetPack does'
            if not isinstance(value.state, dict):
                return f'it gives {value.type} a state that no standard model of SchNetPack has'
            hooks = [name for name, hook in value.state.items() if str(name).endswith('_hooks') and hook]
            if hooks:
                return f'{value.type} has functions attached to it ({hooks[0]})'
    return ''


def inspect_file(path: Path) -> FileFacts:
    """Return what a file says of elements and cutoff.

    :raises ModelFileError: if it is no model of SchNetPack 2
    """
    file = read_file(path)
    remarks = ['the file does not say its units: kcal/mol and angstrom are assumed unless you state others']
    elements = _elements(file.instances)
    if elements is None:
        remarks.append('the file does not say its elements: state them with `--elements`, SchNetPack checks none')
    else:
        remarks.append('the elements are those with a reference energy in the file: state others with `--elements`')
    cutoffs = list(_cutoffs(file.instances))
    if not cutoffs:
        remarks.append('the file does not say its cutoff')
    return FileFacts(
        elements=elements,
        elements_certain=False,
        cutoff=max(cutoffs, default=None),
        needs_trust=reason_for_trust(file),
        remarks=tuple(remarks),
    )


def _member(instance: Instance, name: str) -> Any:
    """Return an attribute of a module: its own, a buffer or a parameter."""
    state = instance.state if isinstance(instance.state, dict) else {}
    for place in (state, state.get('_buffers'), state.get('_parameters')):
        if isinstance(place, dict) and name in place:
            return place[name]
    return None


def _elements(instances: tuple[Instance, ...]) -> tuple[str, ...] | None:
    """Return the elements that have a reference energy."""
    from ase.data import chemical_symbols

    found: set[str] = set()
    for instance in instances:
        references = _member(instance, 'atomref')
        offsets = instance.type == 'schnetpack.transform.atomistic.AddOffsets' and _member(instance, 'add_atomrefs')
        if offsets is True and isinstance(references, TensorRef):
            try:
                values = references.numpy()
            except TorchFileError as exception:
                raise ModelFileError(f'the reference energies of the atoms cannot be read: {exception}') from None
            numbers = np.flatnonzero(values.reshape(-1))
            found.update(chemical_symbols[z] for z in numbers if 0 < z < len(chemical_symbols))
    order = {symbol: number for number, symbol in enumerate(chemical_symbols)}
    return tuple(sorted(found, key=order.__getitem__)) or None


def _cutoffs(instances: tuple[Instance, ...]) -> Iterator[float]:
    for instance in instances:
        for name in ('cutoff', 'short_range_cutoff'):
            value = _member(instance, name)
            if isinstance(value, TensorRef) and value.dtype and value.shape in ((), (1,)):
                try:
                    yield float(value.numpy().reshape(-1)[0])
                except TorchFileError as exception:
                    raise ModelFileError(f'the cutoff cannot be read: {exception}') from None
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                yield float(value)
