"""Small models with random weights for the tests of the TorchANI backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

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
