"""Archives: what was computed in one profile is complete in another, files and queries included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.cmdline.commands.cmd_verdi import verdi
from aiida.common.utils import Capturing
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching
from ase.build import bulk
from click.testing import CliRunner

from aiida_mlpotential.calculations.geometry_optimization import GeometryOptimizationCalculation
from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.selection import Selection
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.data.trajectories import TrajectorySetData
from aiida_mlpotential.queries import (
    Origin,
    find_slices,
    jobs_with_version,
    latest_result,
    progress_of,
    results_of_model,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def verdi_command(aiida_profile_clean):
    """Return a function that runs ``verdi`` in this process, in the loaded test profile."""

    def function(*arguments):
        with Capturing():
            result = CliRunner().invoke(verdi, ['-p', aiida_profile_clean.name, *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.output

    return function


@pytest.fixture
def rattled():
    """Return four rattled crystals, not stored."""
    random, found = np.random.default_rng(2), []
    for _ in range(4):
        atoms = bulk('Cu') * (2, 1, 1)
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        found.append(atoms)
    return StructureSetData.from_ase(found, labels=list('abcd'))


def _files(node):
    """Return the content of every file of a node."""
    repository = node.base.repository
    return {
        str(Path(folder, name)): repository.get_object_content(str(Path(folder, name)), mode='rb')
        for folder, _, names in repository.walk()
        for name in names
    }


def _contents(*nodes):
    """Return attributes and files of nodes by their UUID."""
    return {node.uuid: (node.base.attributes.all, _files(node)) for node in nodes}


def test_results_are_complete_in_another_profile(
    aiida_profile_clean, verdi_command, python_code, emt_model, rattled, tmp_path
):
    """Arrays byte for byte, the model with its parameters, the structures of a slice; the queries find them."""
    rattled.store()
    inputs = {'code': python_code, 'model': emt_model, 'structures': rattled}
    _, node = run_get_node(SinglePointCalculation, selection={'start': 1, 'stop': 3}, **inputs)
    results = node.outputs.results
    before, energies, uuid = _contents(results, emt_model, rattled, node.inputs.selection), results.energies, node.uuid
    verdi_command('archive', 'create', '-N', results.pk, '--', tmp_path / 'results.aiida')
    aiida_profile_clean.reset_storage()
    assert orm.QueryBuilder().append(orm.ProcessNode).count() == 0
    for _ in range(2):  # the second time nothing is new
        verdi_command('archive', 'import', tmp_path / 'results.aiida')
    assert orm.QueryBuilder().append(orm.CalcJobNode).count() == 1
    found = {key: orm.load_node(key) for key in before}
    assert _contents(*found.values()) == before
    for item in found.values():
        item._validate()
    (imported,) = results_of_model(next(item for item in found.values() if isinstance(item, ModelData)).sha256)
    structures = next(item for item in found.values() if isinstance(item, StructureSetData))
    model = next(item for item in found.values() if isinstance(item, ModelData))
    np.testing.assert_array_equal(imported.energies, energies)
    assert imported.get_structures().labels == ('b', 'c')
    assert imported.to_ase()[0].get_potential_energy() == energies[0]
    assert latest_result(structures, 2).frame.energy == energies[1]
    assert find_slices(Origin(structures, model))[Selection(1, 3)].is_finished
    assert [job.uuid for job in jobs_with_version('ase')] == [uuid]
    assert progress_of(orm.load_node(uuid).pk).done == 2


def test_same_model_in_both_profiles(aiida_profile_clean, verdi_command, python_code, emt_model, tmp_path):
    """An imported node of a model that is there already stays one of its own; both are found by the hash."""
    structure, elements = orm.StructureData(ase=bulk('Cu')).store(), list(emt_model.elements)
    _, node = run_get_node(SinglePointCalculation, code=python_code, model=emt_model, structure=structure)
    uuid = node.uuid
    verdi_command('archive', 'create', '-N', node.pk, '--', tmp_path / 'results.aiida')
    aiida_profile_clean.reset_storage()
    own = ModelData.from_ase_calculator('ase.calculators.emt.EMT', elements=elements).get_or_store()
    verdi_command('archive', 'import', tmp_path / 'results.aiida')
    assert orm.QueryBuilder().append(ModelData).count() == 2
    assert [found.creator.uuid for found in results_of_model(own)] == [uuid]
    copy = orm.StructureData(ase=bulk('Cu')).store()
    assert latest_result(copy, model=own) is None, 'archives leave out the hashes, by which equal nodes are found'
    verdi_command('node', 'rehash', '--force')
    assert latest_result(copy, model=own).results.creator.uuid == uuid


def test_imported_jobs_serve_as_a_cache(aiida_profile_clean, verdi_command, python_code, emt_model, rattled, tmp_path):
    """Once their hashes have been computed anew."""
    _, node = run_get_node(SinglePointCalculation, code=python_code, model=emt_model, structures=rattled)
    uuid, inputs = node.uuid, {name: node.inputs[name].uuid for name in ('code', 'model', 'structures')}
    verdi_command('archive', 'create', '-N', node.pk, '--', tmp_path / 'results.aiida')
    aiida_profile_clean.reset_storage()
    verdi_command('archive', 'import', tmp_path / 'results.aiida')
    verdi_command('node', 'rehash', '--force')
    orm.load_computer('localhost').configure()
    with enable_caching():
        _, again = run_get_node(SinglePointCalculation, **{name: orm.load_node(key) for name, key in inputs.items()})
    assert again.base.caching.get_cache_source() == uuid


def test_optimizations_travel_with_their_trajectories(
    aiida_profile_clean, verdi_command, python_code, emt_model, rattled, tmp_path
):
    _, node = run_get_node(
        GeometryOptimizationCalculation,
        code=python_code,
        model=emt_model,
        structures=rattled,
        parameters={'trajectory': 1},
    )
    assert node.is_finished_ok, node.exit_message
    trajectories = orm.QueryBuilder().append(TrajectorySetData).one()[0]
    before = _contents(trajectories, node.outputs.results, node.outputs.output_structures)
    verdi_command('archive', 'create', '-N', node.pk, '--', tmp_path / 'results.aiida')
    aiida_profile_clean.reset_storage()
    verdi_command('archive', 'import', tmp_path / 'results.aiida')
    assert _contents(*(orm.load_node(uuid) for uuid in before)) == before


def test_models_and_structures_can_be_given_away_alone(
    aiida_profile_clean, verdi_command, emt_model, rattled, tmp_path
):
    """Without any calculation: in a group, as people share data."""
    rattled.store()
    before = _contents(emt_model, rattled)
    group = orm.Group(label='to-share').store()
    group.add_nodes([emt_model, rattled])
    verdi_command('archive', 'create', '-G', 'to-share', '--', tmp_path / 'shared.aiida')
    aiida_profile_clean.reset_storage()
    verdi_command('archive', 'import', tmp_path / 'shared.aiida')
    assert _contents(*orm.load_group('to-share').nodes) == before
