"""Slices that were computed before: which are finished, which can be gone on with, and which are those of others."""

from __future__ import annotations

import dataclasses

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessState
from ase.build import bulk

from aiida_mlpotential.data.selection import Selection
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.queries import slices
from aiida_mlpotential.queries.slices import FoundSlice, Origin, find_slices

pytestmark = pytest.mark.slow

FIRST, SECOND = {'start': 0, 'stop': 3}, {'start': 3, 'stop': 6}
KEY = Selection(0, 3)


@pytest.fixture
def origin(aiida_profile_clean, copper, emt_model):
    return Origin(copper, emt_model)


def _kill(node, make_process, selection, state='killed'):
    """Return a job like a finished one for another slice that was killed before it had results, and what it left."""
    inputs = {name: node.inputs[name] for name in ('model', 'structures', 'parameters') if name in node.inputs}
    inputs['selection'] = orm.Dict(selection).store()
    killed = make_process(orm.CalcJobNode, state=state, process_type=node.process_type, inputs=inputs)
    folder = orm.RemoteData(remote_path='/nowhere', computer=node.computer)
    folder.base.links.add_incoming(killed, LinkType.CREATE, 'remote_folder')
    return killed, folder.store()


def test_finished_slices_are_found_by_what_they_select(run, origin, copper):
    assert find_slices(origin) == {}
    first, second = (run(structures=copper, selection=part) for part in (FIRST, {'indices': [5, 4]}))
    found = find_slices(origin)
    assert set(found) == {KEY, Selection(numbers=(5, 4))}
    assert found[KEY].is_finished
    assert found[KEY].job == first.pk
    assert found[KEY].get_results().uuid == first.outputs.results.uuid
    assert found[KEY].get_remote_folder().uuid == first.outputs.remote_folder.uuid
    assert found[KEY].counts == {'OK': 3}
    assert found[Selection(numbers=(5, 4))].results == second.outputs.results.pk


def test_the_whole_set_has_no_selection(run, origin, copper):
    node = run(structures=copper)
    assert find_slices(origin)[None].results == node.outputs.results.pk


def test_only_what_would_be_equal_counts(run, origin, copper, other_model, monkeypatch):
    """Nodes of equal content, and parameters that change nothing or are the defaults, are equal; all else is not."""
    node = run(structures=copper, selection=FIRST, parameters={'batch_atoms': 10, 'properties': ['forces', 'energy']})
    other_set = StructureSetData.from_frames(copper.get_frames().select([1, 0, 2, 3, 4, 5])).store()
    same = dataclasses.replace(origin, parameters={'num_threads': 1})
    assert find_slices(same)[KEY].results == node.outputs.results.pk
    copy = StructureSetData.from_frames(copper.get_frames())
    assert find_slices(dataclasses.replace(origin, structures=copy))[KEY].results == node.outputs.results.pk
    for change in (
        {'model': other_model},
        {'structures': other_set},
        {'task': 'vibrations'},
        {'parameters': {'precision': 'double'}},
        {'parameters': {'properties': ['energy']}},
    ):
        assert find_slices(dataclasses.replace(origin, **change)) == {}, change
    monkeypatch.setattr(slices, 'RESULTS_VERSION', slices.RESULTS_VERSION + 1)
    assert not find_slices(origin)[KEY].is_finished


def test_killed_job_leaves_its_work_directory(run, origin, copper, make_process):
    """It is named for the parameters that it had, and as long as it is there."""
    finished = run(structures=copper, selection=SECOND, parameters={'precision': 'double'})
    for selection, node in ((SECOND, finished), (FIRST, finished)):
        killed, folder = _kill(node, make_process, selection=selection)
    assert find_slices(origin) == {}, 'these had other parameters'
    found = find_slices(dataclasses.replace(origin, parameters={'precision': 'double'}))
    assert found[Selection(3, 6)].job == finished.pk, 'a finished one is better than a newer one that was killed'
    assert found[KEY] == FoundSlice(KEY, killed.pk, None, folder.pk)
    assert not found[KEY].is_finished
    with pytest.raises(ValueError, match=f'calculation {killed.pk} has no results: go on from its work directory'):
        found[KEY].get_results()
    folder.base.extras.set(orm.RemoteData.KEY_EXTRA_CLEANED, True)
    assert set(find_slices(dataclasses.replace(origin, parameters={'precision': 'double'}))) == {Selection(3, 6)}


def test_only_work_directories_on_the_computer_are_of_use(run, origin, copper, aiida_computer_local):
    node = run(structures=copper, selection=FIRST)
    for computer, expected in ((node.computer, node.outputs.remote_folder.pk), (aiida_computer_local('other'), None)):
        found = find_slices(origin, computer)[KEY]
        assert (found.is_finished, found.remote_folder) == (True, expected)
    assert found.get_remote_folder() is None


@pytest.mark.parametrize('state', ['created', 'running', 'waiting'])
def test_what_still_runs_is_left_alone(run, origin, copper, make_process, state):
    killed, _ = _kill(run(structures=copper, selection=SECOND), make_process, selection=FIRST, state=state)
    assert set(find_slices(origin)) == {Selection(3, 6)}
    killed.set_process_state(ProcessState.KILLED)
    assert set(find_slices(origin)) == {KEY, Selection(3, 6)}


def test_bad_structures_are_an_outcome_but_not_every_one(run, origin, emt_model):
    """What lies in the structure would fail again; what was not reached, or did not fit in memory, might not."""
    atoms = [bulk('Cu'), bulk('Si'), bulk('Cu')]
    mixed = StructureSetData.from_ase(atoms).store()
    run(structures=mixed, selection={'start': 0, 'stop': 2})
    found = find_slices(Origin(mixed, emt_model))[Selection(0, 2)]
    assert found.is_finished
    assert found.counts == {'OK': 1, 'UNSUPPORTED_ELEMENT': 1}
    for name in ('PENDING', 'OUT_OF_MEMORY', 'BACKEND_FAILED', 'NOT_CONVERGED'):
        assert not dataclasses.replace(found, counts={'OK': 1, name: 1}).is_finished
