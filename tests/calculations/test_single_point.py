"""Single points through the engine: real jobs on this machine, with a calculator that needs milliseconds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.common.folders import SandboxFolder
from aiida.engine import run_get_node
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData, ModelInfo
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker import schema
from aiida_mlpotential.worker.frames import sha256_of


def _structures(number=5):
    random = np.random.default_rng(8)
    found = []
    for index in range(number):
        atoms = bulk('Cu') * (1 + index % 3, 1, 1)
        atoms.positions += random.normal(scale=0.03, size=atoms.positions.shape)
        found.append(atoms)
    return found


@pytest.fixture
def run(python_code, emt_model):
    """Return a function that runs a job and returns outputs and node."""

    def function(**inputs):
        return run_get_node(SinglePointCalculation, code=python_code, model=emt_model, **inputs)

    return function


def test_one_structure_gives_numbers_that_can_be_queried(run):
    atoms = _structures()[2]
    outputs, node = run(
        structure=orm.StructureData(ase=atoms), parameters={'properties': ['energy', 'forces', 'stress']}
    )
    assert node.is_finished_ok, node.exit_message
    atoms.calc = EMT()
    summary = outputs['output_parameters'].get_dict()
    assert summary['energy'] == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    assert summary['max_force'] == pytest.approx(np.linalg.norm(atoms.get_forces(), axis=1).max(), abs=1e-10)
    assert (summary['n_structures'], summary['n_ok'], summary['n_failed'], summary['n_pending']) == (1, 1, 0, 0)
    assert summary['versions'].keys() >= {'python', 'numpy', 'ase'}
    assert 'worker.pyz job.json' in summary['worker_command']
    np.testing.assert_allclose(outputs['results'].get_array('stress')[0], atoms.get_stress(voigt=False), atol=1e-12)


def test_many_structures_are_one_job(run):
    structures = _structures(9)
    outputs, node = run(structures=StructureSetData.from_ase(structures))
    assert node.is_finished_ok, node.exit_message
    for index, atoms in enumerate(structures):
        atoms.calc = EMT()
        frame = outputs['results'].frame(index)
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-10)


def test_bad_structures_cost_no_other(run):
    structures = _structures(4)
    structures[1].positions[0] = np.nan
    structures.append(bulk('Si'))
    outputs, node = run(structures=StructureSetData.from_ase(structures, labels=list('abcde')))
    assert node.exit_status == SinglePointCalculation.exit_codes.ERROR_SOME_STRUCTURES_FAILED.status
    assert '2 of 5' in node.exit_message
    assert outputs['output_parameters']['n_ok'] == 3
    assert [item['status'] for item in outputs['output_parameters']['failures']] == [
        'NON_FINITE_INPUT',
        'UNSUPPORTED_ELEMENT',
    ]
    assert outputs['output_parameters']['failures'][1]['label'] == 'e'
    assert np.isfinite(outputs['results'].get_array('energies')[[0, 2, 3]]).all()


def test_a_model_file_that_was_changed_is_noticed(python_code, run, tmp_path, monkeypatch):
    path = tmp_path / 'parameters.txt'
    path.write_text('right')
    model = ModelData.from_file(
        path,
        backend='ase',
        options={'calculator': 'ase.calculators.emt.EMT', 'kwargs': {}},
        elements=['Cu'],
        trusted=True,
    ).store()
    original = ModelData.to_spec

    def other_hash(self):
        spec = original(self)
        files = dict.fromkeys(spec.files, 'f' * 64)
        return type(spec)(**{**vars(spec), 'files': files})

    monkeypatch.setattr(ModelData, 'to_spec', other_hash)
    _, node = run_get_node(
        SinglePointCalculation, code=python_code, model=model, structure=orm.StructureData(ase=bulk('Cu'))
    )
    assert node.exit_status == SinglePointCalculation.exit_codes.ERROR_MODEL_HASH.status
    assert 'parameters.txt' in node.exit_message


def _overlap():
    return Atoms('Cu2', positions=[[0, 0, 0], [0, 0, 0.01]], cell=[9, 9, 9], pbc=True)


@pytest.mark.parametrize(
    ('inputs', 'text'),
    [
        (lambda: {}, 'either `structure`'),
        (lambda: {'structure': bulk('Cu'), 'structures': [bulk('Cu')]}, 'either `structure`'),
        (lambda: {'structure': bulk('Si')}, 'contains Si; the model knows'),
        (lambda: {'structure': _overlap()}, '0.010 angstrom apart'),
        (lambda: {'structures': [bulk('Si'), bulk('Fe')]}, 'can evaluate none of them; the first: contains'),
        (lambda: {'structure': bulk('Cu'), 'parameters': {'presicion': 'double'}}, "did you mean 'precision'"),
        (lambda: {'structure': bulk('Cu'), 'parameters': {'precision': 'half'}}, 'single, double'),
        (lambda: {'structure': bulk('Cu'), 'parameters': {'properties': ['forces_std']}}, 'has one member'),
        (lambda: {'structure': Atoms('Cu'), 'parameters': {'properties': ['stress']}}, 'no structure is periodic'),
        (lambda: {'structure': bulk('Cu'), 'metadata': {'options': {'worker': 'carrier pigeon'}}}, 'upload, installed'),
    ],
)
def test_bad_input_is_refused_before_submission(run, inputs, text):
    values = inputs()
    if 'structure' in values:
        values['structure'] = orm.StructureData(ase=values['structure'])
    if 'structures' in values:
        values['structures'] = StructureSetData.from_ase(values['structures'])
    with pytest.raises(ValueError, match=text.replace('(', r'\(')):
        run(**values)


def test_an_alloy_is_refused(run):
    structure = orm.StructureData(cell=np.eye(3) * 4)
    structure.append_atom(position=(0, 0, 0), symbols=['Cu', 'Au'], weights=[0.5, 0.5])
    with pytest.raises(ValueError, match='mixed or partial'):
        run(structure=structure)


def _unfinish(node):
    """Make a finished job look as if it had been killed after its third structure."""
    work = Path(node.outputs.remote_folder.get_remote_path())
    status = np.load(work / 'arrays' / 'status.npy')
    status[3:] = 1
    np.save(work / 'arrays' / 'status.npy', status)


@pytest.mark.slow
def test_an_unfinished_job_is_continued_where_it_stopped(run):
    structures = StructureSetData.from_ase(_structures(6)).store()
    _, first = run(structures=structures)
    _unfinish(first)
    outputs, node = run(structures=structures, parent_folder=first.outputs.remote_folder)
    assert node.is_finished_ok, node.exit_message
    assert 'went on with the results of 3 structures' in outputs['output_parameters']['notes'][0]
    # EMT keeps a neighbour list between calls, so that the order of summation depends on what came before
    np.testing.assert_allclose(outputs['results'].energies, first.outputs.results.energies, rtol=0, atol=1e-13)


def test_the_directory_for_the_arrays_of_the_parent_is_sent(python_code, emt_model, localhost, tmp_path):
    """Over SSH nobody else makes it, and the copy into it fails."""
    inputs = {
        'code': python_code,
        'model': emt_model,
        'structure': orm.StructureData(ase=bulk('Cu')),
        'parent_folder': orm.RemoteData(computer=localhost, remote_path=str(tmp_path)).store(),
    }
    process = instantiate_process(get_manager().get_runner(), SinglePointCalculation, **inputs)
    with SandboxFolder() as folder:
        calcinfo = process.prepare_for_submission(folder)
        assert (Path(folder.abspath) / 'parent').is_dir()
    assert [item[2] for item in calcinfo.remote_copy_list] == ['parent/status.npy', 'parent/arrays', 'parent/parent']


@pytest.mark.slow
def test_a_worker_that_never_starts_does_not_return_the_results_of_its_parent(run, localhost, emt_model):
    structures = StructureSetData.from_ase(_structures(3)).store()
    _, first = run(structures=structures)
    broken = orm.InstalledCode(label='false', computer=localhost, filepath_executable='/bin/false').store()
    _, node = run_get_node(
        SinglePointCalculation,
        code=broken,
        model=emt_model,
        structures=structures,
        parent_folder=first.outputs.remote_folder,
    )
    assert node.exit_status == SinglePointCalculation.exit_codes.ERROR_RESULTS_MISSING.status
    assert 'results' not in node.outputs
    assert 'arrays' not in node.outputs.retrieved.base.repository.list_object_names()


@pytest.mark.slow
def test_the_parent_of_another_job_gives_nothing(run):
    _, first = run(structures=StructureSetData.from_ase(_structures(3)))
    others = StructureSetData.from_ase(_structures(6)[3:])
    outputs, node = run(structures=others, parent_folder=first.outputs.remote_folder)
    assert node.is_finished_ok, node.exit_message
    assert outputs['output_parameters']['notes'] == ['the parent folder has no results of this very job: began anew']


@pytest.mark.slow
def test_optional_inputs_may_be_none(run):
    structure = orm.StructureData(ase=bulk('Cu'))
    _, node = run(structure=structure, structures=None, parameters=None, parent_folder=None)
    assert node.is_finished_ok, node.exit_message


@pytest.mark.slow
def test_verdi_finds_input_and_output_files(run):
    _, node = run(structure=orm.StructureData(ase=bulk('Cu')))
    assert node.get_option('input_filename') == 'job.json'
    assert node.get_option('output_filename') == 'mlpotential.txt'
    assert 'Energy' in node.outputs.retrieved.base.repository.get_object_content('mlpotential.txt')


def test_a_slab_has_no_stress(run):
    slab = bulk('Cu')
    slab.pbc = (True, True, False)
    with pytest.raises(ValueError, match='periodic in three directions'):
        run(structures=StructureSetData.from_ase([slab, slab]), parameters={'properties': ['stress']})


@pytest.mark.slow
def test_a_parent_without_results_is_no_obstacle(run, localhost, tmp_path):
    empty = orm.RemoteData(computer=localhost, remote_path=str(tmp_path)).store()
    _, node = run(structure=orm.StructureData(ase=bulk('Cu')), parent_folder=empty)
    assert node.is_finished_ok, node.exit_message


@pytest.mark.slow
def test_the_installed_worker_gives_the_same(run, localhost, emt_model, tmp_path):
    script = Path(sys.executable).with_name('aiida-mlpotential-worker')
    code = orm.InstalledCode(label='worker', computer=localhost, filepath_executable=str(script)).store()
    structure = orm.StructureData(ase=bulk('Cu'))
    _, uploaded = run(structure=structure)
    outputs, node = run_get_node(
        SinglePointCalculation,
        code=code,
        model=emt_model,
        structure=structure,
        metadata={'options': {'worker': 'installed'}},
    )
    assert node.is_finished_ok, node.exit_message
    assert 'worker.pyz' not in node.base.repository.list_object_names()
    assert outputs['output_parameters']['energy'] == uploaded.outputs.output_parameters['energy']


@pytest.mark.slow
def test_the_same_inputs_are_not_computed_twice(run, request):
    from aiida.manage.caching import enable_caching

    structures = StructureSetData.from_ase(_structures(3), labels=['a', 'b', request.node.name]).store()
    with enable_caching(identifier='aiida.calculations:mlpotential.single_point'):
        _, first = run(structures=structures)
        _, second = run(structures=structures)
        _, other = run(structures=structures, parameters={'properties': ['energy']})
    assert second.base.caching.get_cache_source() == first.uuid
    assert second.is_finished_ok
    assert other.base.caching.get_cache_source() is None


@pytest.mark.slow
def test_another_results_version_is_computed_anew(run, request, monkeypatch):
    from aiida.manage.caching import enable_caching

    structures = StructureSetData.from_ase(_structures(3), labels=['a', 'b', request.node.name]).store()
    with enable_caching(identifier='aiida.calculations:mlpotential.single_point'):
        run(structures=structures)
        monkeypatch.setattr(SinglePointCalculation, 'CACHE_VERSION', SinglePointCalculation.CACHE_VERSION + 1)
        _, second = run(structures=structures)
    assert second.base.caching.get_cache_source() is None


@pytest.mark.slow
def test_structures_are_stored_once_and_copied_to_the_job(run):
    structures = StructureSetData.from_ase(_structures(3))
    _, node = run(structures=structures)
    assert 'structures.npz' not in node.base.repository.list_object_names()
    work = Path(node.outputs.remote_folder.get_remote_path())
    assert sha256_of(work / 'structures.npz') == structures.sha256


@pytest.mark.parametrize(
    ('inputs', 'text'),
    [
        ({'selection': {'start': 0, 'stop': 4}}, 'there is no structure 3: the set has 3'),
        ({'selection': {'from': 0}}, 'does not say which structures'),
        ({'structures': None, 'structure': 'Cu', 'selection': {'start': 0, 'stop': 1}}, 'there is one `structure`'),
    ],
)
def test_a_selection_that_cannot_be_is_refused(run, inputs, text):
    values = {'structures': StructureSetData.from_ase(_structures(3)), **inputs}
    if 'structure' in values:
        values['structure'] = orm.StructureData(ase=bulk('Cu'))
    with pytest.raises(ValueError, match=text):
        run(**{name: value for name, value in values.items() if value is not None})


@pytest.mark.slow
def test_a_job_takes_a_part_of_a_set_and_copies_nothing(run):
    """Numbers, labels and messages are those of the part; the node is that of all."""
    atoms = _structures(5)
    atoms[3] = bulk('Si')
    structures = StructureSetData.from_ase(atoms, labels=list('abcde')).store()
    whole, _ = run(structures=structures)
    outputs, node = run(structures=structures, selection={'start': 2, 'stop': 5})
    results = outputs['results']
    assert node.inputs.structures.pk == structures.pk
    assert 'structures.npz' not in node.base.repository.list_object_names()
    np.testing.assert_allclose(results.energies, whole['results'].energies[2:], rtol=0, atol=1e-13)
    assert node.exit_status == 400
    assert 'd: UNSUPPORTED_ELEMENT' in node.exit_message
    assert results.base.attributes.get('formulas') == ['Cu2', 'Cu3', 'Si2']
    assert results.get_structures().labels == ('c', 'd', 'e')
    assert results.to_dataframe()['label'].tolist() == ['c', 'd', 'e']
    found = {name: results.base.attributes.get(name) for name in ('selection', 'structures_uuid', 'structures_sha256')}
    assert found == {
        'selection': {'start': 2, 'stop': 5},
        'structures_uuid': structures.uuid,
        'structures_sha256': structures.sha256,
    }


@pytest.mark.slow
def test_results_tell_of_which_structures_parameters_and_version_they_are(run):
    structures = StructureSetData.from_ase(_structures(2)).store()
    first, _ = run(structures=structures)
    second, _ = run(structures=structures, parameters={'minimum_distance': 0.3, 'num_threads': 1})
    third, _ = run(structures=structures, parameters={'batch_atoms': 50})
    hashes = [outputs['results'].base.attributes.get('parameters_hash') for outputs in (first, second, third)]
    assert hashes[0] == hashes[2] != hashes[1]
    assert first['results'].base.attributes.get('results_version') == schema.RESULTS_VERSION
    assert first['results'].base.attributes.get('selection') is None


@pytest.mark.slow
def test_a_part_with_bad_structures_only_is_told_by_its_results(run):
    structures = StructureSetData.from_ase([bulk('Cu'), bulk('Si')]).store()
    outputs, node = run(structures=structures, selection={'indices': [1]})
    assert node.exit_status == 401
    assert outputs['results'].n_failed == 1


@pytest.mark.slow
def test_a_part_goes_on_where_it_stopped(run):
    structures = StructureSetData.from_ase(_structures(6)).store()
    selection = {'indices': [5, 4, 3, 2, 1]}
    _, first = run(structures=structures, selection=selection)
    _unfinish(first)
    outputs, node = run(structures=structures, selection=selection, parent_folder=first.outputs.remote_folder)
    assert node.is_finished_ok, node.exit_message
    assert 'went on with the results of' in outputs['output_parameters']['notes'][0]
    np.testing.assert_allclose(outputs['results'].energies, first.outputs.results.energies, rtol=0, atol=1e-13)


def test_the_spread_of_forces_needs_an_ensemble(python_code, tmp_path, file_facts):
    path = tmp_path / 'one_member.npz'
    path.write_bytes(b'parameters that nobody reads before the validator refuses')
    model = ModelData.from_file(path, backend='torchani', elements=['H'], info=ModelInfo(energy_unit='Hartree'))
    builder = SinglePointCalculation.get_builder()
    builder.code, builder.model = python_code, model
    builder.structure = orm.StructureData(ase=Atoms('H', cell=[5, 5, 5], pbc=True))
    builder.parameters = {'properties': ['energy', 'forces_std']}
    with pytest.raises(ValueError, match='has one member: leave it out'):
        run_get_node(builder)
