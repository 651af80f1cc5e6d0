"""Taking torchani's objects apart: what is not understood is not evaluated."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch', reason='the torchani extra is not installed')
pytest.importorskip('torchani', reason='the torchani extra is not installed')

import torch
from torchani.arch import ANI
from torchani.tuples import SpeciesEnergies

from aiida_mlpotential.worker.backends.torchani.models import (
    pieces_of_ani,
    pieces_of_script,
    pieces_of_sequential,
    stored_symbols,
    symbols_of,
)
from aiida_mlpotential.worker.backends.torchani.parameters import ParametersError


@pytest.fixture
def sequential(custom):
    return torch.load(custom / 'custom_sequential_idx.pt', weights_only=False)['model']


def _nameless(sequential):
    """The same as torchani before version 2 made them, where networks carry no elements."""
    sequential[1].register_buffer('atomic_numbers', torch.zeros(0, dtype=torch.long))
    return sequential


def test_the_shifter_is_off_and_its_energies_are_kept(random_model):
    model = random_model(2)
    flat = pieces_of_ani(model).flat
    assert not model.energy_shifter._enabled
    assert flat.self_energies == pytest.approx([-0.5 - 7.3 * k for k in range(5)])
    assert flat.cutoff == pytest.approx(5.1) and flat.symbols == ('H', 'C', 'N', 'O', 'S')
    assert not pieces_of_ani(model).flat.self_energies.any(), 'off before: there are none'


def test_a_potential_that_is_off_widens_no_search(random_model):
    from torchani.potentials import RepulsionXTB

    model = random_model(1)
    model.potentials['xtb'] = RepulsionXTB(model.symbols, cutoff=7.0)
    assert pieces_of_ani(model).flat.cutoff == 7.0
    model.set_enabled('xtb', False)
    assert pieces_of_ani(model).flat.cutoff == pytest.approx(5.1)


def test_elements_of_a_sequential(sequential):
    assert pieces_of_sequential(sequential, None).flat.symbols == ('H', 'C', 'O')
    with pytest.raises(ParametersError, match='in this order'):
        pieces_of_sequential(sequential, ('C', 'H', 'O'))
    nameless = _nameless(sequential)
    with pytest.raises(ParametersError, match='state these in the order of its species'):
        pieces_of_sequential(nameless, None)
    with pytest.raises(ParametersError, match='for 3 elements, 2 were stated'):
        pieces_of_sequential(nameless, ('H', 'C'))
    assert pieces_of_sequential(nameless, ('C', 'H', 'O')).flat.symbols == ('C', 'H', 'O')


def test_a_converter_and_a_shifter_of_a_sequential(sequential):
    from torchani.nn import Sequential, SpeciesConverter
    from torchani.utils import EnergyShifter

    parts = list(_nameless(sequential))
    whole = Sequential(SpeciesConverter(['H', 'C', 'O']), *parts, EnergyShifter([-0.5, -38.0, -75.0]))
    flat = pieces_of_sequential(whole, None).flat
    assert flat.symbols == ('H', 'C', 'O') and flat.self_energies.tolist() == [-0.5, -38.0, -75.0]
    with pytest.raises(ParametersError, match='intercept'):
        pieces_of_sequential(Sequential(*parts, EnergyShifter([1.0, 2.0, 3.0, 4.0], True)), ('H', 'C', 'O'))
    with pytest.raises(ParametersError, match=r'Sequential\(AEVComputer\) is not understood'):
        pieces_of_sequential(Sequential(parts[0]), ('H', 'C', 'O'))


def test_scripted_models_are_taken_apart_only_where_that_changes_nothing(custom):
    model = torch.jit.load(custom / 'custom_torchscript.pt')
    assert pieces_of_script(model).flat.symbols == ('H', 'C', 'O')
    assert not model.energy_shifter._enabled
    assert pieces_of_script(torch.jit.script(torch.nn.Linear(2, 2))) is None

    class Shifted(ANI):
        """One whose ``forward`` adds something that its other methods leave out."""

        def forward(
            self,
            species_coordinates: tuple[torch.Tensor, torch.Tensor],
            cell: torch.Tensor | None = None,
            pbc: torch.Tensor | None = None,
            charge: int = 0,
            atomic: bool = False,
            ensemble_values: bool = False,
            _molecule_idxs: torch.Tensor | None = None,
        ) -> SpeciesEnergies:
            species, positions = species_coordinates
            return SpeciesEnergies(species, positions.square().sum(dim=2).sum(dim=1))

    own = torch.load(custom / 'custom_full_ani.pt', weights_only=False)['model']
    own.__class__ = Shifted
    scripted = torch.jit.script(own)
    assert pieces_of_script(scripted) is None
    assert scripted.energy_shifter._enabled, 'it goes on as it was'


def test_symbols():
    assert symbols_of(np.array([8, 1])) == ('O', 'H')
    for wrong in ([], [0], [1, 1], [300]):
        with pytest.raises(ParametersError, match='no list of elements'):
            symbols_of(wrong)
    assert stored_symbols(torch.nn.Linear(1, 1)) is None
