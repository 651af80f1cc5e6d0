"""The table of backends: complete, and true to the classes."""

from __future__ import annotations

import pytest

from aiida_mlpotential.worker.backends import BACKENDS, get_backend
from aiida_mlpotential.worker.backends.base import Backend
from aiida_mlpotential.worker.backends.families import FAMILIES
from aiida_mlpotential.worker.errors import WorkerError
from aiida_mlpotential.worker.quantities import PROPERTIES
from aiida_mlpotential.worker.units import DISTANCE_UNITS, ENERGY_UNITS


@pytest.mark.parametrize('name', BACKENDS)
def test_every_row_is_valid(name):
    entry = BACKENDS[name]
    assert {'energy', 'forces'} <= entry.properties <= set(PROPERTIES)
    assert entry.energy_unit in ENERGY_UNITS
    assert entry.distance_unit in DISTANCE_UNITS
    assert set(entry.precisions) <= {'single', 'double'}
    assert entry.precisions
    assert entry.title
    assert entry.files
    assert entry.family is FAMILIES.get(name)


@pytest.mark.parametrize('name', BACKENDS)
def test_every_class_is_there_without_its_library(name):
    assert get_backend(name).__name__ == BACKENDS[name].cls


@pytest.mark.parametrize('name', [name for name in BACKENDS if BACKENDS[name].cls != 'AseBackend'])
def test_the_table_says_who_has_analytic_hessians(name):
    """As the classes do; of calculators of ASE each family says it."""
    own = get_backend(name).hessians is not Backend.hessians
    assert BACKENDS[name].analytic_hessian == own


def test_families_say_whether_they_have_analytic_hessians():
    assert {name for name in FAMILIES if BACKENDS[name].analytic_hessian} == {'mace', 'aimnet2'}
    assert not BACKENDS['ase'].analytic_hessian


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(WorkerError, match=r"unknown backend 'abacus'; there are .*ase, .*torchani"):
        get_backend('abacus')
