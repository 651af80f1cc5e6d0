"""Structures, and small models with random weights, for the tests of the TorchANI engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

Flat = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
SYMBOLS = ('H', 'C', 'N', 'O', 'S')


@pytest.fixture
def flatten() -> Callable[[Sequence[Atoms]], Flat]:
    """Return a function that puts structures one after the other as the engine takes them."""

    def flattened(structures: Sequence[Atoms]) -> Flat:
        return (
            np.concatenate([atoms.numbers for atoms in structures]),
            np.concatenate([atoms.positions for atoms in structures]),
            np.cumsum([0, *(len(atoms) for atoms in structures)]),
            np.array([atoms.cell.array for atoms in structures]),
            np.array([atoms.pbc for atoms in structures]),
        )

    return flattened


@pytest.fixture
def molecules() -> list[Atoms]:
    """Return rattled molecules of different sizes and elements, in no order, with single atoms among them."""
    random = np.random.default_rng(5)
    structures = []
    for name in ('CH3CH2OH', 'H2O', 'O', 'C6H6', 'CH3CONH2', 'CH3SH', 'H2', 'C5H5N', 'CH4', 'CO2'):
        atoms = molecule(name)
        atoms.positions += random.normal(scale=0.06, size=atoms.positions.shape)
        structures.append(atoms)
    return structures


@pytest.fixture
def crystals() -> list[Atoms]:
    """Return water in two triclinic cells, one smaller and one larger than the cutoffs."""
    random = np.random.default_rng(7)
    structures = []
    for edge, number in ((3.6, 1), (6.0, 3)):
        cell = np.array([[edge, 0, 0], [0.4, edge, 0], [0.2, -0.3, edge * 1.1]])
        waters = Atoms(cell=cell, pbc=True)
        for index in range(number):
            water = molecule('H2O')
            water.rotate(random.uniform(0, 360), random.normal(size=3))
            water.translate(np.array([index, index * 0.5, index]) / number @ cell + 0.4)
            waters += water
        structures.append(waters)
    return structures


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
