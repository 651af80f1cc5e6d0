"""A reaction is coefficients of both signs, with the names of its species, in which no atom is lost."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from aiida_mlpotential.data.stoichiometry import Stoichiometry, StoichiometryError, validate_stoichiometry
from aiida_mlpotential.worker.frames import Frames

COMBUSTION = {'CH4': -1, 'O2': -2, 'CO2': 1, 'H2O': 2}


@pytest.fixture
def frames():
    return Frames.from_ase([molecule(name) for name in COMBUSTION])


def test_a_reaction(frames):
    reaction = Stoichiometry.from_dict(COMBUSTION)
    assert reaction.equation == 'CH4 + 2 O2 → CO2 + 2 H2O'
    assert reaction.educts == {'CH4': 1, 'O2': 2}
    assert reaction.products == {'CO2': 1, 'H2O': 2}
    assert reaction.array(['H2O', 'CH4', 'He']).tolist() == [2, -1, 0]
    reaction.check_names(COMBUSTION)
    reaction.check_balance(COMBUSTION, frames)


def test_fractions_balance_in_spite_of_rounding():
    water = Stoichiometry.from_dict({'H2': -1 / 3, 'O2': -1 / 6, 'H2O': 1 / 3})
    water.check_balance(('H2', 'O2', 'H2O'), Frames.from_ase([molecule(name) for name in ('H2', 'O2', 'H2O')]))
    assert water.equation == '0.333333 H2 + 0.166667 O2 → 0.333333 H2O'


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'a': -1, 'b': 0}, 'the coefficient 0 of b'),
        ({'a': -1, 'b': True}, 'the coefficient True of b'),
        ({'a': -1, 'b': '2'}, "the coefficient '2' of b"),
        ({'a': -1, 'b': float('nan')}, 'the coefficient nan of b'),
        ({'a': 1, 'b': 2}, 'there is no educt'),
        ({'a': -1}, 'there is no product'),
        ({}, 'there is no educt'),
    ],
)
def test_what_is_no_reaction(content, message):
    found = validate_stoichiometry(content)
    assert found is not None
    assert message in found
    assert found.endswith("such as {'a': -1, 'b': 2}.")


def test_what_is_one_has_no_message():
    assert validate_stoichiometry(COMBUSTION) is None


def test_names_are_those_of_the_species():
    reaction = Stoichiometry.from_dict({'a': -1, 'b': 1})
    with pytest.raises(StoichiometryError, match='names b, of which there is no structure: the species are a, c'):
        reaction.check_names(['a', 'c'])
    with pytest.raises(StoichiometryError, match='no coefficient for c'):
        reaction.check_names(['a', 'b', 'c'])


def test_lost_atoms_are_named(frames):
    reaction = Stoichiometry.from_dict({**COMBUSTION, 'O2': -1})
    with pytest.raises(StoichiometryError, match=r'CH4 \+ O2 → CO2 \+ 2 H2O \(products less educts: \+2 O\)'):
        reaction.check_balance(COMBUSTION, frames)
    reaction = Stoichiometry.from_dict({**COMBUSTION, 'H2O': 1.5})
    with pytest.raises(StoichiometryError, match=r'-1 H, -0.5 O'):
        reaction.check_balance(COMBUSTION, frames)


def test_the_order_of_the_species_does_not_matter(frames):
    names = list(COMBUSTION)
    order = [2, 0, 3, 1]
    shuffled = frames.select(np.array(order))
    Stoichiometry.from_dict(COMBUSTION).check_balance([names[index] for index in order], shuffled)
