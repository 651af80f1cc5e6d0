"""Between our parameters and torchani's models: there and back again, and the same numbers on the way."""

from __future__ import annotations

import io

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.torchani.interop import from_torchani, to_torchani
from aiida_mlpotential.worker.units import HARTREE

torch = pytest.importorskip('torch', reason='the torchani extra is not installed')


def _energies(model, atoms):
    numbers, positions = torch.tensor(atoms.numbers)[None], torch.tensor(atoms.positions)[None]
    return model((numbers, positions), ensemble_values=True).energies[:, 0].detach().numpy() * HARTREE


@pytest.mark.parametrize('members', [1, 3])
def test_there_and_back_again(random_model, molecules, members):
    original = random_model(members)
    parameters = from_torchani(original)
    model = to_torchani(parameters)
    assert parameters.n_members == members
    for atoms in molecules[:4]:
        np.testing.assert_allclose(_energies(model, atoms), _energies(original, atoms), rtol=0, atol=1e-9)


def test_double_constants_survive(random_model):
    parameters = from_torchani(random_model(1))
    assert from_torchani(to_torchani(parameters)).family == parameters.family


def test_the_canonical_file_holds_what_torchani_holds(random_model):
    parameters = from_torchani(random_model(2).float().double())
    file = io.BytesIO()
    parameters.write(file)
    file.seek(0)
    read = type(parameters).read(file)
    assert read.symbols == parameters.symbols
    for symbol, layers in parameters.networks.items():
        for layer, other in zip(layers, read.networks[symbol], strict=True):
            np.testing.assert_array_equal(layer.weight, other.weight)
            np.testing.assert_array_equal(layer.bias, other.bias)


def test_a_model_of_another_kind_is_refused(random_model):
    with pytest.raises(ValueError, match='activation GELU'):
        from_torchani(random_model(2, activation='gelu'))
    with pytest.raises(ValueError, match='Linear'):
        from_torchani(torch.nn.Linear(2, 2))
