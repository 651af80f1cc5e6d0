"""Structures above a spread: found by attributes, named by node and number, also where a job took a part."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.queries.spread import structures_above

pytestmark = pytest.mark.slow


@pytest.fixture
def committee(aiida_profile_clean):
    """Return a model of two members, which differ the more the farther the atoms are from their places."""
    pytest.importorskip('torchani')
    from pathlib import Path

    path = Path(__file__).parents[1] / 'fixtures' / 'torchani' / 'custom_full_ani.pt'
    return ModelData.from_file(path, backend='torchani').get_or_store()


@pytest.fixture
def water():
    """Return three geometries of water as a stored set."""
    from ase.build import molecule

    from aiida_mlpotential.data.structures import StructureSetData

    random, found = np.random.default_rng(5), []
    for index in range(3):
        atoms = molecule('H2O')
        atoms.positions += random.normal(scale=0.05 * index, size=(3, 3))
        found.append(atoms)
    return StructureSetData.from_ase(found).store()


def test_every_structure_above_the_limit_is_named(run, committee, water):
    results = run(structures=water, model=committee).outputs.results
    order = np.argsort(results.qbc)
    limit = float(results.qbc[order[0]])
    found = list(structures_above(limit))
    assert [item.index for item in found] == sorted(order[1:].tolist())
    assert [item.spread for item in found] == [results.qbc[item.index] for item in found]
    assert {item.results.uuid for item in found} == {results.uuid}
    assert [item.set_index for item in found] == [item.index for item in found]
    assert list(structures_above(float(results.qbc.max()))) == []
    # The spread of the energy itself is larger by the root of the number of atoms.
    assert len(list(structures_above(float(results.qbc.max()), 'energy_std'))) > 0
    assert list(structures_above(float(results.energy_std.max()), 'energy_std')) == []


def test_numbers_within_the_set(run, committee, water):
    run(structures=water, model=committee, selection={'indices': [2, 0]})
    run(structures=water, model=committee, selection={'start': 1, 'stop': 3})
    assert [(item.index, item.set_index) for item in structures_above(0)] == [(0, 1), (1, 2), (0, 2), (1, 0)]


def test_only_one_model_or_task(run, committee, water, copper, emt_model):
    """A model without members has no spread."""
    run(structures=copper)
    run(structures=water, model=committee)
    assert len(list(structures_above(0, model=committee.sha256))) == 3
    assert len(list(structures_above(0))) == 3
    assert list(structures_above(0, model=emt_model)) == []
    assert list(structures_above(0, task='vibrations')) == []


def test_failed_structures_with_values_count(committee, water, python_code):
    """The attribute with the maximum is over those that succeeded, and does not know of these."""
    from aiida.engine import run_get_node

    from aiida_mlpotential.calculations.geometry_optimization import GeometryOptimizationCalculation

    _, node = run_get_node(
        GeometryOptimizationCalculation,
        code=python_code,
        model=committee,
        structures=water,
        parameters={'max_steps': 1},
    )
    assert node.exit_status == 410
    assert 'qbc_max' not in node.outputs.results.base.attributes.all
    assert [item.index for item in structures_above(0)] == [0, 1, 2]
