"""What a model cannot give is said before anything is computed."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.backends.catalogue import BACKENDS
from aiida_mlpotential.worker.parameters import with_defaults
from aiida_mlpotential.worker.quantities import PROPERTIES
from aiida_mlpotential.worker.request import check_request
from aiida_mlpotential.worker.schema import ModelSpec


def ask(backend: str, members: int = 1, **parameters) -> str | None:
    return check_request(ModelSpec('mine', backend, '0' * 64, ensemble_size=members), with_defaults(parameters))


@pytest.mark.parametrize('backend', BACKENDS)
def test_the_defaults_suit_every_backend(backend):
    assert ask(backend) is None


@pytest.mark.parametrize('backend', BACKENDS)
def test_every_property_is_either_given_or_refused(backend):
    for name in PROPERTIES:
        message = ask(backend, members=2, properties=[name], precision=BACKENDS[backend].precisions[-1])
        assert (message is None) == (name in BACKENDS[backend].properties)


def test_a_missing_property_is_named_with_what_there_is():
    assert ask('sgdml', properties=['stress']) == (
        "parameters: properties = ['stress']: the backend sgdml of mine has no stress; "
        'it has energy, forces, forces_std, hessian.'
    )


def test_the_spread_needs_members():
    assert 'has one member: leave it out' in ask('schnetpack', properties=['forces_std'])
    assert ask('schnetpack', members=2, properties=['forces_std']) is None


def test_double_precision_is_refused_where_there_is_none():
    assert 'single precision only' in ask('pinn', precision='double')
    assert ask('sgdml', precision='single') is None  # more digits than asked for


def test_the_hessian_wants_all_digits():
    assert 'set precision to double' in ask('torchani', properties=['hessian'])
    assert ask('torchani', properties=['hessian'], precision='double') is None
    assert ask('sgdml', properties=['hessian']) is None
    assert ask('pinn', properties=['hessian']) is None
