"""The options of models: each is known, or refused in one sentence."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.backends.catalogue import BACKENDS
from aiida_mlpotential.worker.backends.options import OPTIONS, options_of, validate_options


def test_every_backend_has_its_options():
    assert set(OPTIONS) == {name for name, entry in BACKENDS.items() if entry.family is None} | {''}
    assert options_of('mace') is OPTIONS['']
    assert all(option.help.endswith('.') for options in OPTIONS.values() for option in options.values())


@pytest.mark.parametrize(
    ('backend', 'options'),
    [
        ('torchani', {'form': 'state_dict', 'family': 'ani1x', 'radial_cutoff': 5.2}),
        ('torchani', {'species': 'indices', 'cutoff_fn': 'smooth', 'activation': 'gelu'}),
        ('schnetpack', {'cutoff': 5, 'energy_key': 'energy_U0', 'total_charge': -1.0}),
        ('sgdml', {'atom_order': [6, 6, 8, 1]}),
        ('pinn', {'network': 'PiNet2', 'e_unit': 27.2}),
        ('ase', {'calculator': 'ase.calculators.emt.EMT', 'kwargs': {}}),
        ('mace', {'kwargs': {'head': 'a'}}),
    ],
)
def test_what_backends_understand_is_accepted(backend, options):
    assert validate_options(backend, options) is None


@pytest.mark.parametrize(
    ('backend', 'options', 'text'),
    [
        ('torchani', {'famly': 'ani1x'}, "unknown option 'famly' of a model of torchani; did you mean 'family'?"),
        ('torchani', {'family': 5}, 'family = 5 is not valid'),
        ('torchani', {'radial_cutoff': 'x'}, 'larger than 0'),
        ('schnetpack', {'cutoff': -1}, 'larger than 0 and at most 1000'),
        ('schnetpack', {'cutoff': 1e9}, 'at most 1000'),
        ('schnetpack', {'cutoff': True}, 'larger than 0'),
        ('schnetpack', {'total_charge': 'a'}, 'a finite number'),
        ('schnetpack', {'total_charge': float('nan')}, 'a finite number'),
        ('sgdml', {'atom_order': 5}, 'a list of atomic numbers'),
        ('sgdml', {'atom_order': [0]}, 'a list of atomic numbers'),
        ('sgdml', {'x': 1}, 'there are atom_order'),
        ('pinn', {'network': 5}, 'a text'),
        ('ase', {'kwargs': 5}, 'an object'),
        ('chgnet', {'calculator': 'x.Y'}, 'there are kwargs'),
    ],
)
def test_what_they_do_not_is_refused(backend, options, text):
    assert text in validate_options(backend, options)
