"""What is known of one structure, alone or in a set, from a job of its own, of the set or of a slice."""

from __future__ import annotations

import pytest
from aiida import orm
from ase.build import bulk

from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.queries.structures import energies_in_models, latest_result

pytestmark = pytest.mark.slow


def test_latest_result_of_a_single_structure(run, emt_model, other_model):
    structure = orm.StructureData(ase=bulk('Cu')).store()
    assert latest_result(structure) is None
    run(structure=structure)
    newer = run(structure=structure)
    found = latest_result(structure)
    assert found.results.uuid == newer.outputs.results.uuid
    assert found.frame.energy == newer.outputs.results.energies[0]
    assert (found.index, found.model_name, found.model_sha256) == (0, 'EMT', emt_model.sha256)
    assert latest_result(structure, model=other_model) is None
    assert latest_result(structure, task='geometry_optimization') is None


def test_equal_structures_are_one(run, copper):
    """A copy in another node has the result of the first; one that differs has none."""
    structures = [orm.StructureData(ase=bulk('Cu', a=a)).store() for a in (3.6, 3.6, 3.7)]
    node = run(structure=structures[0])
    assert latest_result(structures[1]).results.uuid == node.outputs.results.uuid
    assert latest_result(structures[2]) is None
    assert latest_result(orm.StructureData(ase=bulk('Cu', a=3.6))) is not None, 'it need not be stored'
    run(structures=copper)
    assert latest_result(StructureSetData.from_frames(copper.get_frames()), 2) is not None
    assert latest_result(StructureSetData.from_frames(copper.get_frames().select([1, 0, 2])), 2) is None


def test_structure_of_a_set_is_found_in_slices(run, copper):
    """The newest job that took it counts, at the place that it had there."""
    whole = run(structures=copper).outputs.results
    run_ = run(structures=copper, selection={'start': 2, 'stop': 5}).outputs.results
    single = run(structures=copper, selection={'indices': [5, 3]}).outputs.results
    expected = {0: (whole, 0), 2: (run_, 0), 3: (single, 1), 4: (run_, 2), 5: (single, 0), -1: (single, 0)}
    for index, (results, position) in expected.items():
        found = latest_result(copper, index)
        assert (found.results.uuid, found.index) == (results.uuid, position), index
        assert found.frame.energy == pytest.approx(whole.energies[index], abs=1e-12)


def test_failed_results_are_no_results(run):
    """The newest job may have failed for a structure: then the one before it counts."""
    mixed = StructureSetData.from_ase([bulk('Cu'), bulk('Si')]).store()
    run(structures=mixed)
    assert latest_result(mixed, 0) is not None
    assert latest_result(mixed, 1) is None


def test_energy_in_every_model(run, copper, other_model):
    """The newest of each, by name."""
    run(structures=copper)
    emt = run(structures=copper, selection={'indices': [4]}).outputs.results
    lennard_jones = run(structures=copper, model=other_model).outputs.results
    found = energies_in_models(copper, 4)
    assert [item.model_name for item in found] == ['EMT', 'LJ']
    assert [item.results.uuid for item in found] == [emt.uuid, lennard_jones.uuid]
    assert [item.frame.energy for item in found] == [emt.energies[0], lennard_jones.energies[4]]
    assert energies_in_models(copper, 4, task='vibrations') == []


def test_which_structure_has_to_be_said(aiida_profile_clean, copper):
    with pytest.raises(ValueError, match='the set has 6 structures: say which one with `index`'):
        latest_result(copper)
    with pytest.raises(IndexError, match='there is no structure 6: the set has 6'):
        latest_result(copper, 6)
    alone = StructureSetData.from_ase([bulk('Cu')]).store()
    assert latest_result(alone) is None
