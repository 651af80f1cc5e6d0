"""Results of parts of a set read as those of the whole, without a byte stored twice."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError
from ase.build import bulk, molecule

from aiida_mlpotential.data.merged import MergedResultsData, Part
from aiida_mlpotential.data.results import ResultsData, ResultsError
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.quantities import QUANTITIES

pytestmark = pytest.mark.usefixtures('aiida_profile')

OK = FrameStatus.OK
#: Water and hydrogen, copper, methane.
BORDERS = [(0, 2), (2, 3), (3, 4)]


@pytest.fixture
def structures(frames):
    return StructureSetData.from_frames(frames).store()


@pytest.fixture
def whole(frames, make_arrays):
    return make_arrays(frames, [OK, FrameStatus.ATOMS_TOO_CLOSE, OK, OK])


@pytest.fixture
def make_part(frames, whole, make_folder, info):
    """Return a function that makes the results of a slice of the arrays."""

    def function(start, stop, changes=None, without=()):
        atoms = slice(frames.offsets[start], frames.offsets[stop])
        squares = np.concatenate([[0], np.cumsum(9 * frames.counts**2)])
        arrays = {}
        for name, array in whole.items():
            kind = QUANTITIES[name].shape if name in QUANTITIES else 'frame'
            if name == 'offsets':
                arrays[name] = frames.offsets[start : stop + 1] - frames.offsets[start]
            elif kind in ('atom', 'atom3'):
                arrays[name] = array[atoms]
            elif kind == 'hessian':
                arrays[name] = array[squares[start] : squares[stop]]
            elif kind == 'member':
                arrays[name] = np.asfortranarray(array[:, start:stop])
            else:
                arrays[name] = array[start:stop]
        arrays = {name: array for name, array in arrays.items() if name not in without}
        messages = {str(int(key) - start): text for key, text in info['messages'].items() if start <= int(key) < stop}
        return ResultsData.from_folder(make_folder(arrays), {**info, 'messages': messages, **(changes or {})}).store()

    return function


@pytest.fixture
def parts(make_part):
    return [Part(start, stop, make_part(start, stop)) for start, stop in BORDERS]


def merge(structures, parts):
    return MergedResultsData.from_parts(structures, parts).store()


@pytest.mark.slow
def test_arrays_of_the_whole_are_those_of_one_job(structures, parts, whole):
    node = orm.load_node(merge(structures, parts).pk)
    assert isinstance(node, MergedResultsData)
    assert set(node.get_arraynames()) == set(whole)
    for name, array in whole.items():
        assert np.array_equal(node.get_array(name), array, equal_nan=True), name
        assert node.get_array(name).dtype == array.dtype
        assert tuple(node.get_shape(name)) == array.shape


@pytest.mark.slow
def test_nothing_is_stored_twice(structures, parts):
    repository = merge(structures, parts).base.repository
    for number, part in enumerate(parts):
        for name in part.results.get_arraynames():
            copied = repository.get_object(f'part-{number:05d}/{name}.npy').key
            assert copied == part.results.base.repository.get_object(f'{name}.npy').key


@pytest.mark.slow
def test_attributes_are_those_of_one_job(structures, parts, whole, make_folder, info):
    single = ResultsData.from_folder(make_folder(whole), info, structures_info=structures.info).store()
    single, merged = (item.base.attributes.all for item in (single, merge(structures, parts)))
    assert merged['structures_uuid'] == structures.uuid
    different = {'parts', 'structures_uuid', 'structures_sha256', 'selection'}
    for key in set(single) - different - {'energy_std_mean'}:
        assert merged[key] == single[key], key
    assert merged['energy_std_mean'] == pytest.approx(single['energy_std_mean'], rel=1e-12)


@pytest.mark.slow
def test_numbers_of_messages_are_those_in_the_set(structures, parts, make_part):
    first = [Part(0, 1, make_part(0, 1)), Part(1, 4, make_part(1, 4))]
    assert list(merge(structures, first).messages) == [1]
    assert merge(structures, parts).messages == merge(structures, first).messages


@pytest.mark.slow
@pytest.mark.parametrize('missing', [0, 1, 2])
def test_structures_of_a_missing_part_are_pending(structures, parts, whole, missing):
    start, stop = BORDERS[missing]
    node = merge(structures, [Part(p.start, p.stop, None if n == missing else p.results) for n, p in enumerate(parts)])
    node = orm.load_node(node.pk)
    assert (node.status[start:stop] == FrameStatus.PENDING).all()
    assert node.n_pending == stop - start
    assert np.array_equal(node.offsets, whole['offsets'])
    there = np.ones(4, bool)
    there[start:stop] = False
    atoms = np.repeat(there, np.diff(whole['offsets']))
    assert np.isnan(node.energies[~there]).all() and np.isnan(node.member_energies[:, ~there]).all()
    assert np.isnan(node.forces[~atoms]).all()
    assert np.array_equal(node.energies[there], whole['energies'][there], equal_nan=True)
    assert np.array_equal(node.member_energies[:, there], whole['member_energies'][:, there], equal_nan=True)
    assert np.array_equal(node.forces[atoms], whole['forces'][atoms], equal_nan=True)
    for index in np.flatnonzero(there):
        frame = node.frame(int(index))
        assert frame.status == whole['status'][index]
        if frame.status is OK:
            assert frame.hessian.shape == (3 * frame.n_atoms, 3 * frame.n_atoms)
    assert node.frame(start).status is FrameStatus.PENDING


@pytest.mark.slow
def test_it_is_put_together_once(structures, parts):
    node = merge(structures, parts)
    assert node.get_array('energies') is node.get_array('energies')
    with pytest.raises(KeyError, match='there is no array'):
        node.get_array('colours')


@pytest.mark.slow
def test_gaps_overlaps_and_other_sets_are_refused(structures, parts, make_part):
    for wrong in (parts[:2], parts[1:], [parts[1], parts[0], parts[2]], [parts[0], *parts]):
        with pytest.raises(ResultsError, match='do not cover'):
            MergedResultsData.from_parts(structures, wrong)
    with pytest.raises(ResultsError, match='no results of any part'):
        MergedResultsData.from_parts(structures, [Part(0, 4)])
    with pytest.raises(ResultsError, match='those of other structures'):
        MergedResultsData.from_parts(structures, [Part(0, 2, make_part(2, 4)), Part(2, 4, make_part(2, 4))])


@pytest.mark.slow
def test_parts_of_different_origin_are_refused(structures, parts, make_part, info):
    other = make_part(2, 3, {'model': {**info['model'], 'sha256': 'cd' * 32}})
    with pytest.raises(ResultsError, match='differ in model_sha256'):
        MergedResultsData.from_parts(structures, [parts[0], Part(2, 3, other), parts[2]])
    fewer = make_part(2, 3, without=('forces',))
    with pytest.raises(ResultsError, match='do not have the same arrays'):
        MergedResultsData.from_parts(structures, [parts[0], Part(2, 3, fewer), parts[2]])


def test_a_node_without_files_is_refused(structures, parts):
    node = MergedResultsData.from_parts(structures, parts)
    node.base.repository.delete_object('part-00001/status.npy')
    with pytest.raises(ValidationError, match='part 1 has no files'):
        node.store()


def put(node, number, name, array):
    """Add an array to a part of an unstored node."""
    stream = io.BytesIO()
    np.save(stream, array)
    path = f'part-{number:05d}/{name}.npy'
    node.base.repository.put_object_from_filelike(io.BytesIO(stream.getvalue()), path)


@pytest.mark.parametrize('missing', [True, False])
def test_texts_of_a_part_are_not_cut_to_the_length_of_another(structures, parts, missing):
    node = MergedResultsData.from_parts(structures, [parts[0], Part(2, 3) if missing else parts[1], parts[2]])
    for number, texts in enumerate((['C2v', 'C1'], ['Oh'], ['D*h-long'])):
        if number != 1 or not missing:
            put(node, number, 'point_groups', np.array(texts))
    node.base.attributes.set('array|point_groups', [4])
    assert node.get_array('point_groups').tolist() == ['C2v', 'C1', '' if missing else 'Oh', 'D*h-long']


@pytest.mark.parametrize('missing', [True, False])
def test_one_part_at_a_time_is_in_memory_beside_the_whole(make_folder, info, missing):
    """A thousand atoms a structure: what numpy allocates is the array of the whole, and one part that is being read."""
    many = Frames.from_ase([bulk('Cu') * (10, 10, 10)] * 20)
    structures = StructureSetData.from_frames(many).store()
    arrays = {'energies': np.zeros(20), 'status': np.zeros(20, 'i1'), 'offsets': many.offsets}
    results = ResultsData.from_folder(make_folder(arrays), {**info, 'messages': {}}).store()
    node = MergedResultsData.from_parts(structures, [Part(0, 20, results)])
    forces = np.random.default_rng(1).normal(size=(many.n_atoms, 3))
    for number in range(10):
        if number != 3 or not missing:
            put(node, number, 'forces', forces[number * 2000 : (number + 1) * 2000])
    borders = [[2 * number, 2 * number + 2, int(number != 3 or not missing)] for number in range(10)]
    node.base.attributes.set('parts', borders)
    node.base.attributes.set('array|forces', list(forces.shape))
    tracemalloc.start()
    try:
        found = node.get_array('forces')
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    expected = forces.copy()
    if missing:
        expected[6000:8000] = np.nan
    np.testing.assert_array_equal(found, expected)
    assert forces.nbytes < peak < 1.35 * forces.nbytes  # a part is a tenth, and is read in two steps


def test_members_of_one_structure_stay_neighbours(structures, parts):
    """The worker writes them so; what reads structure by structure is faster then."""
    node = merge(structures, parts)
    assert node.member_energies.flags.f_contiguous
    assert node.forces.flags.c_contiguous


def conformers():
    """Return a set of structures that all have as many atoms: offsets do not tell them apart."""
    return StructureSetData.from_ase([molecule('H2O') for _ in range(4)], labels='abcd').store()


@pytest.fixture
def make_conformers(make_arrays, make_folder, info):
    """Return a function that makes results of a part of the conformers, with what they say of their origin."""

    def function(start, stop, **origin):
        part = conformers().get_frames().select(range(start, stop))
        node = ResultsData.from_folder(make_folder(make_arrays(part, [OK] * (stop - start))), {**info, 'messages': {}})
        node.base.attributes.set_many(origin)
        return node.store()

    return function


def test_parts_stand_where_their_structures_are(make_conformers):
    """The second half is given twice: numbers of other conformers in the place of the first half, of the same shape."""
    structures = conformers()
    origin = {'structures_sha256': structures.sha256}
    first, second = (
        make_conformers(start, stop, selection={'start': start, 'stop': stop}, **origin)
        for start, stop in ((0, 2), (2, 4))
    )
    assert merge(structures, [Part(0, 2, first), Part(2, 4, second)]).n_ok == 4
    with pytest.raises(ResultsError, match=r"the results of 0 to 1 are those of the selection {'start': 2, 'stop': 4}"):
        MergedResultsData.from_parts(structures, [Part(0, 2, second), Part(2, 4, second)])


@pytest.mark.slow
def test_single_numbers_that_follow_one_another_are_a_part(make_conformers):
    structures = conformers()
    whole = make_conformers(0, 4, selection={'indices': [0, 1, 2, 3]})
    assert merge(structures, [Part(0, 4, whole)]).n_ok == 4
    turned = make_conformers(0, 4, selection={'indices': [0, 2, 1, 3]})
    with pytest.raises(ResultsError, match='are those of the selection'):
        MergedResultsData.from_parts(structures, [Part(0, 4, turned)])


def test_results_of_the_whole_set_are_no_part_of_it(make_conformers):
    structures = conformers()
    origin = {'structures_sha256': structures.sha256, 'selection': None}
    assert merge(structures, [Part(0, 4, make_conformers(0, 4, **origin))]).n_ok == 4
    with pytest.raises(ResultsError, match='the results of 0 to 1 are those of all structures'):
        MergedResultsData.from_parts(structures, [Part(0, 2, make_conformers(0, 2, **origin)), Part(2, 4)])


def test_results_of_another_set_are_refused_whatever_their_shape(make_conformers):
    other = make_conformers(0, 2, structures_sha256='cd' * 32, selection={'start': 0, 'stop': 2})
    with pytest.raises(ResultsError, match='those of another set of structures: its sha256 is cdcdcdcdcdcdcdcd'):
        MergedResultsData.from_parts(conformers(), [Part(0, 2, other), Part(2, 4)])
