"""Tests of the results node."""

import builtins
import tracemalloc

import ase.io
import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ModificationNotAllowed, ValidationError
from ase.build import molecule

from aiida_mlpotential.data.results import FrameResult, ResultsData, ResultsError
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames

pytestmark = pytest.mark.usefixtures('aiida_profile')


def test_arrays_are_those_of_the_folder(results, arrays):
    loaded = orm.load_node(results.pk)
    assert isinstance(loaded, ResultsData)
    assert sorted(loaded.get_arraynames()) == sorted(arrays)
    for name, array in arrays.items():
        assert np.array_equal(loaded.get_array(name), array, equal_nan=True)
        assert np.array_equal(getattr(loaded, name), array, equal_nan=True)
        assert loaded.get_shape(name) == array.shape
    assert loaded.member_energies.shape == (4, 4)
    assert len(loaded) == 4
    assert bool(loaded) is True


def test_bytes_are_shared_with_the_folder(arrays, make_folder, info):
    """The repository keeps equal content once, so the results take no space of their own."""
    folder = make_folder(arrays)
    results = ResultsData.from_folder(folder, info).store()
    for name in arrays:
        key = results.base.repository.get_object(f'{name}.npy').key
        assert key == folder.base.repository.get_object(f'arrays/{name}.npy').key


def test_attributes(results, arrays, info):
    ok = arrays['status'] == 0
    attributes = results.base.attributes.all
    expected = {'n_frames': 4, 'n_ok': 2, 'n_failed': 1, 'n_pending': 1, 'n_members': 4}
    assert {key: attributes[key] for key in expected} == expected
    assert (results.n_frames, results.n_ok, results.n_failed, results.n_pending, results.n_members) == (4, 2, 1, 1, 4)
    # AiiDA keeps 14 significant digits of an attribute
    assert attributes['energy_min'] == pytest.approx(arrays['energies'][ok].min(), rel=1e-13)
    assert attributes['energy_max'] == pytest.approx(arrays['energies'][ok].max(), rel=1e-13)
    assert attributes['energy_std_max'] == pytest.approx(arrays['energy_std'][ok].max(), rel=1e-13)
    assert attributes['energy_std_mean'] == pytest.approx(arrays['energy_std'][ok].mean(), rel=1e-13)
    assert attributes['qbc_max'] == pytest.approx(arrays['qbc'][ok].max(), rel=1e-13)
    norms = np.linalg.norm(arrays['forces'].astype('f8'), axis=1)
    assert attributes['force_max'] == pytest.approx(np.nanmax(norms), rel=1e-12)
    assert (attributes['model_name'], attributes['model_sha256']) == ('ANI-x', 'ab' * 32)
    assert attributes['precision'] == 'single'
    assert attributes['units']['forces'] == 'eV/angstrom'
    assert set(attributes['units']) == set(arrays) - {'status', 'offsets'}
    assert attributes['elements'] == ['H', 'C', 'O', 'Cu']
    assert attributes['formulas'] == ['CH4', 'Cu', 'H2', 'H2O']
    assert results.messages == {1: info['messages']['1']}
    assert results.get_description() == '2 of 4 structures with ANI-x'


def test_values_of_failed_frames_do_not_count(frames, arrays, make_folder, info):
    """Even if a worker had left numbers there."""
    for name, value in (('energies', -1e9), ('energy_std', 1e9), ('qbc', 1e9)):
        arrays[name][1] = value
    arrays['forces'][3:5] = 1e9
    attributes = ResultsData.from_folder(make_folder(arrays), info).base.attributes
    assert attributes.get('energy_min') > -1e8
    assert max(attributes.get(key) for key in ('energy_std_max', 'energy_std_mean', 'qbc_max', 'force_max')) < 1e3


def test_no_frame_succeeded(frames, make_arrays, make_folder, info):
    folder = make_folder(make_arrays(frames, [FrameStatus.PENDING] * 4))
    results = ResultsData.from_folder(folder, info).store()
    attributes = results.base.attributes.all
    absent = {'energy_min', 'energy_max', 'energy_std_max', 'energy_std_mean', 'qbc_max', 'force_max'}
    assert not absent & set(attributes)
    assert attributes['n_ok'] == 0
    assert all(not results.frame(index).ok for index in range(4))


def test_only_energies(arrays, make_folder, info):
    few = {name: arrays[name] for name in ('energies', 'status', 'offsets')}
    results = ResultsData.from_folder(make_folder(few), {**info, 'messages': {}}).store()
    for name in ('forces', 'stress', 'member_energies', 'energy_std', 'qbc', 'forces_std'):
        assert getattr(results, name) is None
        assert getattr(results.frame(0), name) is None
    assert results.max_forces() is None
    assert results.frame(0).energy == arrays['energies'][0]
    assert 'force_max' not in results.base.attributes.all
    assert results.base.attributes.get('n_members') == 4


def test_query(results):
    filters = {'attributes.energy_std_max': {'>': 1e-6}, 'attributes.model_sha256': 'ab' * 32}
    found = orm.QueryBuilder().append(ResultsData, filters=filters, project='id').all(flat=True)
    assert results.pk in found
    filters['attributes.energy_std_max'] = {'>': 1e6}
    assert orm.QueryBuilder().append(ResultsData, filters=filters).count() == 0


def test_frame(results, arrays):
    frame = results.frame(0)
    assert isinstance(frame, FrameResult)
    assert (frame.index, frame.status, frame.message, frame.n_atoms, frame.ok) == (0, FrameStatus.OK, '', 3, True)
    assert frame.energy == arrays['energies'][0]
    assert np.array_equal(frame.forces, arrays['forces'][:3])
    assert np.array_equal(frame.forces_std, arrays['forces_std'][:3])
    assert np.array_equal(frame.member_energies, arrays['member_energies'][:, 0])
    assert (frame.energy_std, frame.qbc) == (arrays['energy_std'][0], arrays['qbc'][0])
    assert frame.stress is None
    assert frame.max_force == pytest.approx(np.linalg.norm(arrays['forces'][:3], axis=1).max(), rel=1e-6)
    frame.forces[:] = 0
    assert np.array_equal(results.frame(0).forces, arrays['forces'][:3])
    assert np.array_equal(results.frame(2).stress, arrays['stress'][2])
    assert results.frame(-2).index == 2


def test_arrays_with_rows_for_atoms_and_matrices(results, arrays):
    copper = results.frame(2)
    assert np.array_equal(copper.atomic_energies, arrays['atomic_energies'][5:6])
    assert np.array_equal(results.frame(0).charges, arrays['charges'][:3])
    assert np.array_equal(results.frame(0).hessian, arrays['hessian'][:81].reshape(9, 9))
    assert np.array_equal(copper.hessian, arrays['hessian'][81 + 36 : 81 + 36 + 9].reshape(3, 3))
    assert np.array_equal(results.to_ase()[0].arrays['atomic_energies'], arrays['atomic_energies'][:3])
    assert results.frame(1).hessian is None


def test_failed_frame(results, info):
    frame = results.frame(1)
    assert frame.status is FrameStatus.ATOMS_TOO_CLOSE
    assert frame.message == info['messages']['1']
    assert (frame.ok, frame.energy, frame.forces, frame.max_force) == (False, None, None, None)
    assert results.frame(3).message == FrameStatus.PENDING.help
    with pytest.raises(IndexError, match='there is no structure 4'):
        results.frame(4)


def test_to_ase(results, arrays, frames, info):
    water, bad, copper, late = results.to_ase()
    assert water.get_potential_energy() == arrays['energies'][0]
    assert np.array_equal(water.get_forces(), arrays['forces'][:3])
    assert water.info['status'] == 'OK'
    assert water.info['label'] == 'water'
    assert water.info['energy_std'] == arrays['energy_std'][0]
    assert water.info['qbc'] == arrays['qbc'][0]
    assert np.array_equal(water.info['member_energies'], arrays['member_energies'][:, 0])
    assert np.array_equal(water.arrays['forces_std'], arrays['forces_std'][:3])
    assert 'stress' not in water.calc.results
    assert np.allclose(copper.get_stress(voigt=False), arrays['stress'][2])
    assert bad.calc is None
    assert bad.info == {'status': 'ATOMS_TOO_CLOSE', 'label': 'bad', 'message': info['messages']['1']}
    assert late.info['status'] == 'PENDING'
    assert copper == frames.to_ase(2)


def test_structures_of_results(arrays, frames, make_folder, info):
    results = ResultsData.from_folder(make_folder(arrays), info)
    with pytest.raises(ValueError, match='not linked to their structures'):
        results.to_ase()
    assert len(results.to_ase(frames)) == 4
    assert len(results.to_ase(StructureSetData.from_frames(frames))) == 4
    with pytest.raises(ValueError, match=r'structures \(1, 3 atoms\) are not those of the results \(4, 11 atoms'):
        results.iter_ase(frames.select([0]))


def test_single_structure(frames, make_arrays, make_folder, attach, info):
    one = frames.select([2])
    results = ResultsData.from_folder(make_folder(make_arrays(one, [FrameStatus.OK])), {**info, 'messages': {}})
    structure = orm.StructureData(ase=one.to_ase(0))
    structure.label = 'copper'
    attach(results, structure, link='structure')
    (atoms,) = results.to_ase()
    assert atoms.info['label'] == 'copper'
    assert len(results.to_ase(structure)) == 1
    pytest.importorskip('pandas')
    assert results.to_dataframe()['formula'].tolist() == ['Cu']


def test_to_dataframe(results, arrays, info, frames):
    pytest.importorskip('pandas')
    table = results.to_dataframe()
    assert table.columns.tolist() == (
        ['label', 'formula', 'n_atoms', 'energy', 'energy_std', 'qbc', 'max_force', 'status', 'message']
    )
    assert table.index.name == 'frame'
    assert table['label'].tolist() == list(frames.labels)
    assert table['formula'].tolist() == ['H2O', 'H2', 'Cu', 'CH4']
    assert table['n_atoms'].tolist() == [3, 2, 1, 5]
    assert np.array_equal(table['energy'], arrays['energies'], equal_nan=True)
    assert table['status'].tolist() == ['OK', 'ATOMS_TOO_CLOSE', 'OK', 'PENDING']
    assert table['message'].tolist() == ['', info['messages']['1'], '', FrameStatus.PENDING.help]
    assert table['max_force'][0] == pytest.approx(results.frame(0).max_force)
    assert np.isnan(table['max_force'][1])


def test_to_dataframe_without_structures(arrays, make_folder, info):
    pytest.importorskip('pandas')
    results = ResultsData.from_folder(make_folder({k: v for k, v in arrays.items() if k != 'forces'}), info)
    table = results.to_dataframe()
    assert table['formula'].tolist() == [''] * 4
    assert table['max_force'].isna().all()


def test_to_dataframe_without_pandas(results, monkeypatch):
    real = builtins.__import__

    def fail(name, *args, **kwargs):
        if name == 'pandas':
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', fail)
    with pytest.raises(ImportError, match='needs pandas: pip install pandas'):
        results.to_dataframe()


def test_write_extxyz(results, tmp_path, arrays, info):
    results.write_extxyz(tmp_path / 'out.extxyz')
    images = ase.io.read(tmp_path / 'out.extxyz', index=':')
    assert [atoms.info['status'] for atoms in images] == ['OK', 'ATOMS_TOO_CLOSE', 'OK', 'PENDING']
    assert images[0].get_potential_energy() == pytest.approx(arrays['energies'][0], abs=1e-7)
    assert np.allclose(images[0].get_forces(), arrays['forces'][:3], atol=1e-7)
    assert np.allclose(images[2].get_stress(voigt=False), arrays['stress'][2], atol=1e-7)
    assert images[1].info['message'] == info['messages']['1']


def test_max_forces_with_empty_frames(frames, make_arrays, make_folder, info):
    some = Frames.from_ase([ase.Atoms(), molecule('H2O'), ase.Atoms(), ase.Atoms('H'), ase.Atoms()])
    arrays = make_arrays(some, [FrameStatus.EMPTY, FrameStatus.OK, FrameStatus.EMPTY, FrameStatus.OK, 5])
    results = ResultsData.from_folder(make_folder(arrays), info).store()
    norms = np.linalg.norm(arrays['forces'], axis=1)
    assert np.allclose(results.max_forces(), [np.nan, norms[:3].max(), np.nan, norms[3], np.nan], equal_nan=True)
    assert results.base.attributes.get('force_max') == pytest.approx(norms.max(), rel=1e-6)


@pytest.mark.parametrize(
    'changes', [{'model': {}}, {'model': None}, {'model': {'name': 'x'}}, {'messages': {'x': 'y'}}]
)
def test_incomplete_info(arrays, changes, make_folder, info):
    with pytest.raises(ResultsError, match='the results file is incomplete'):
        ResultsData.from_folder(make_folder(arrays), {**info, **changes})


def test_messages_are_bounded(frames, make_arrays, make_folder, info):
    many = frames.select(np.zeros(150, dtype=int))
    folder = make_folder(make_arrays(many, [FrameStatus.BACKEND_FAILED] * 150))
    many_messages = {str(index): 'no' for index in reversed(range(150))}
    results = ResultsData.from_folder(folder, {**info, 'messages': many_messages})
    assert sorted(results.messages) == list(range(100))
    assert results.frame(149).message == FrameStatus.BACKEND_FAILED.help


def test_validation_and_immutability(results):
    with pytest.raises(ValidationError, match=r'made with ResultsData\.from_folder'):
        ResultsData().store()
    with pytest.raises(ValidationError, match=r'made with ResultsData\.from_folder'):
        ResultsData({'energies': np.zeros(1)}).store()
    with pytest.raises(ModificationNotAllowed):
        results.set_array('energies', np.zeros(4))
    assert results.serialize()['attributes']['n_ok'] == 2


def _many(n):
    numbers = np.tile(np.array([6] * 7 + [1] * 10, dtype='u1'), n)
    return Frames(
        numbers, np.zeros((17 * n, 3)), np.arange(n + 1) * 17, np.zeros((n, 3, 3)), np.zeros((n, 3), dtype=bool)
    )


@pytest.mark.slow
def test_a_hundred_thousand_structures_in_bounded_memory(make_arrays, make_folder, info):
    n = 100_000
    frames = _many(n)
    folder = make_folder(make_arrays(frames, [0] * n))
    tracemalloc.start()
    results = ResultsData.from_folder(folder, info)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert results.n_ok == n
    assert peak < 60e6  # the forces, or their deviations in double precision, alone are 41 MB in double precision


@pytest.mark.slow
def test_table_of_many_structures(make_arrays, make_folder, info):
    pytest.importorskip('pandas')
    n = 10_000
    frames = _many(n)
    results = ResultsData.from_folder(make_folder(make_arrays(frames, [0] * n)), info)
    assert len(results.store().to_dataframe()) == n
