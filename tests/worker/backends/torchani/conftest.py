"""Small models with random weights for the tests of the TorchANI backend."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mlpotential.worker.backends import get_backend
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.schema import ModelSpec

_METHANOL = [[0, 0, 0], [1.4, 0, 0], [-0.4, 1, 0], [-0.4, -0.5, 0.9], [-0.4, -0.5, -0.9], [1.7, 1, 0]]
SYMBOLS = ('H', 'C', 'N', 'O', 'S')


def _random_model(members: int, symbols: Sequence[str], activation: str = 'celu', cutoff_fn: str = 'cosine') -> Any:
    torch = pytest.importorskip('torch')
    pytest.importorskip('torchani')
    from torchani.arch import Assembler

    torch.manual_seed(11)
    assembler = Assembler()
    assembler.set_symbols(symbols)
    dims = {symbol: (12 + 2 * index, 10, 8) for index, symbol in enumerate(symbols)}
    kwargs = {'dims': dims, 'activation': activation, 'bias': True, 'default_dims': (12, 10, 8)}
    assembler.set_atomic_networks(ctor='build', kwargs=kwargs)
    assembler.set_global_cutoff_fn(cutoff_fn)
    assembler.set_aev_computer(angular='ani2x', radial='ani2x')
    assembler.set_self_energies({symbol: -0.5 - 7.3 * index for index, symbol in enumerate(symbols)})
    model = assembler.assemble(members).double()
    with torch.no_grad():
        # Larger than torch's own initial weights, so that energies differ by electronvolts and activations bend.
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model.requires_grad_(False).eval()


@pytest.fixture
def random_model() -> Callable[..., Any]:
    """Return a maker of small float64 ensembles with random weights, ``random_model(members, symbols=SYMBOLS)``."""

    def make(members: int, symbols: Sequence[str] = SYMBOLS, **options: str) -> Any:
        return _random_model(members, symbols, **options)

    return make


@pytest.fixture(scope='session')
def custom() -> Path:
    """Return the directory of three small models that torchani saved, and what it said of some structures."""
    return Path(__file__).parents[3] / 'fixtures' / 'torchani'


@pytest.fixture(scope='session')
def custom_reference(custom) -> list[dict[str, Any]]:
    """Return structures with the numbers that torchani gave in single precision."""
    structures: list[dict[str, Any]] = json.loads((custom / 'reference_custom.json').read_text())['structures']
    return structures


@pytest.fixture
def load() -> Callable[..., Any]:
    """Return a loader of one model file as a backend, ``load(path, elements=None, options={...}, ...)``."""

    def loader(path: Path, elements: Sequence[str] | None = None, **settings: Any) -> Any:
        pytest.importorskip('torch', reason='the torchani extra is not installed')
        fields = {'options', 'trusted', 'energy_unit', 'distance_unit'}
        chosen = {'energy_unit': 'Hartree', **{key: settings.pop(key) for key in fields & set(settings)}}
        known = None if elements is None else tuple(elements)
        spec = ModelSpec(path.name, 'torchani', '', {path.name: ''}, known, **chosen)
        return get_backend('torchani').load(spec, path.parent, Settings(**{'device': 'cpu', **settings}))

    return loader


@pytest.fixture(scope='session')
def mixture() -> Frames:
    """Return molecules of H, C and O, an atom, a skewed crystal with atoms outside of its cell, a slab and a wire."""
    random = np.random.default_rng(6)
    water = Atoms('OH2', positions=[[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
    carbon = Atoms('COH4', positions=_METHANOL)
    structures = [water.copy(), carbon.copy(), Atoms('O'), carbon.copy()]
    for pbc in ([True, True, True], [True, True, False], [False, False, True]):
        crystal = water.copy()
        crystal.set_cell([[3.1, 0, 0], [0.7, 3.3, 0], [0.2, 0.4, 3.0]])
        crystal.pbc = pbc
        crystal.positions[1] += 2 * np.array(pbc) @ crystal.cell.array
        structures.append(crystal)
    for atoms in structures:
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
    return Frames.from_ase(structures)
