"""The generic ase backend: any calculator by name, and nothing but a calculator; families of them by a row."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_mlpotential.worker.backends import get_backend
from aiida_mlpotential.worker.backends.ase import AseBackend
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.backends.families import FAMILIES, AseFamily
from aiida_mlpotential.worker.errors import FrameError, FrameStatus, OutOfMemory, WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.testing import Tolerances, check_backend
from aiida_mlpotential.worker.units import BOHR, KCAL_PER_MOL

#: A package with a calculator that remembers how it was made and how often it computed.
PACKAGE = Path(__file__).with_name('fake_package.py')

FAKE = AseFamily(
    'Fake',
    'fake_package.Fake',
    distribution='fake',
    files='a `.fake` file',
    model_argument='weights',
    device_argument='place',
    precision_argument='kind',
    properties=frozenset({'stress', 'atomic_energies', 'charges'}),
)
ALL = frozenset({'forces', 'stress', 'atomic_energies', 'charges'})
FILE = {'model/a[1].fake': '0' * 64}


class FakeTorch(SimpleNamespace):
    """As much of torch as the choice of device and threads needs, with a number of GPUs."""

    def __init__(self, gpus: int = 0) -> None:
        cuda = SimpleNamespace(is_available=lambda: gpus > 0, device_count=lambda: gpus)
        super().__init__(cuda=cuda, version=SimpleNamespace(cuda=None), threads=7)

    def set_num_threads(self, number: int) -> None:
        self.threads = number

    def get_num_threads(self) -> int:
        return self.threads


@pytest.fixture
def torch(monkeypatch):
    """Put a torch without GPU where the calculator's package would have imported the real one."""
    monkeypatch.setitem(sys.modules, 'torch', FakeTorch())
    return sys.modules['torch']


@pytest.fixture
def fake(tmp_path, monkeypatch, torch):
    """Return a loader of models of a family that a package in a temporary directory provides."""
    shutil.copy(PACKAGE, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'fake_package', raising=False)

    def load(row=FAKE, settings=None, backend='fake', **spec):
        monkeypatch.setitem(FAMILIES, 'fake', row)
        return AseBackend.load(ModelSpec('m', backend, '0' * 64, **spec), tmp_path, settings or Settings())

    yield load
    sys.modules.pop('fake_package', None)


def _load(calculator='ase.calculators.emt.EMT', **kwargs):
    spec = ModelSpec('m', 'ase', '0' * 64, options={'calculator': calculator, 'kwargs': kwargs})
    return get_backend('ase').load(spec, Path(), Settings())


def _made_with(backend):
    return backend._calculator.made_with


def _row(**changes):
    return AseFamily(**{**{name: getattr(FAKE, name) for name in FAKE.__dataclass_fields__}, **changes})


def test_emt_keeps_the_contract(copper):
    check_backend(_load(), copper(4), Tolerances(energy=1e-7, forces=1e-6))


def test_lennard_jones_keeps_the_contract():
    random = np.random.default_rng(4)
    structures = []
    for repeat in (2, 3):
        atoms = bulk('Ar', cubic=True) * (repeat, 2, 2)
        atoms.positions += random.normal(scale=0.1, size=atoms.positions.shape)
        structures.append(atoms)
    backend = _load('ase.calculators.lj.LennardJones', sigma=3.4, epsilon=0.01, rc=8.0, smooth=True)
    check_backend(backend, Frames.from_ase(structures), Tolerances(energy=1e-7, forces=1e-6))


def test_keyword_arguments_reach_the_calculator(copper):
    one, two = (
        _load('ase.calculators.lj.LennardJones', sigma=2.3, epsilon=epsilon).evaluate(copper(1), frozenset()).energies
        for epsilon in (1.0, 2.0)
    )
    assert two == pytest.approx(2 * one)


def test_units_of_the_calculator_are_converted(copper):
    frames = copper(2)
    request = frozenset({'forces', 'stress'})
    expected = _load('ase.calculators.lj.LennardJones', sigma=2.3, epsilon=0.1, rc=6.0).evaluate(frames, request)
    options = {'sigma': 2.3 / BOHR, 'epsilon': 0.1 / KCAL_PER_MOL, 'rc': 6.0 / BOHR}
    spec = ModelSpec(
        'm',
        'ase',
        '0' * 64,
        energy_unit='kcal/mol',
        distance_unit='bohr',
        options={'calculator': 'ase.calculators.lj.LennardJones', 'kwargs': options},
    )
    found = get_backend('ase').load(spec, Path(), Settings()).evaluate(frames, request)
    for name in ('energies', 'forces', 'stress'):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ('calculator', 'kwargs', 'label'),
    [
        ('', {}, 'ERROR_BACKEND_MISSING'),
        ('EMT', {}, 'ERROR_BACKEND_MISSING'),
        ('ase.calculators.emt.NoSuch', {}, 'ERROR_BACKEND_MISSING'),
        ('no_such_package.Calculator', {}, 'ERROR_BACKEND_MISSING'),
        ('subprocess.Popen', {'args': ['touch', 'hostile']}, 'ERROR_MODEL_UNSUPPORTED'),
        ('os.system', {'command': 'touch hostile'}, 'ERROR_MODEL_UNSUPPORTED'),
        ('ase.calculators.tip3p.TIP3P', {'no_such': 1}, 'ERROR_MODEL_UNSUPPORTED'),
    ],
)
def test_what_is_no_calculator_is_never_called(calculator, kwargs, label, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkerError) as caught:
        _load(calculator, **kwargs)
    assert caught.value.label == label
    assert list(tmp_path.iterdir()) == []


def test_a_property_that_the_calculator_lacks_ends_the_job(copper):
    backend = _load('ase.calculators.morse.MorsePotential')
    backend._calculator.implemented_properties = ['energy']
    with pytest.raises(WorkerError, match='leave it out'):
        backend.evaluate(copper(1), frozenset({'forces'}))


def test_a_calculator_that_raises_fails_the_frame(copper):
    atoms = bulk('Fe')
    with pytest.raises(FrameError, match='NotImplementedError'):
        _load().evaluate(Frames.from_ase([atoms]), frozenset())
    assert np.isfinite(_load().evaluate(copper(2), frozenset()).energies).all()


def test_an_unknown_backend_is_named():
    with pytest.raises(WorkerError, match='unknown backend'):
        get_backend('abacus')


# Families, and calculators of which a user says what a row would.


def test_file_device_and_precision_reach_their_keywords(fake, tmp_path):
    backend = fake(files=FILE, trusted=True, settings=Settings(device='cpu', precision='double'))
    path = str(tmp_path / 'model/a[1].fake')
    assert _made_with(backend) == {'weights': path, 'place': 'cpu', 'kind': 'float64'}
    assert (backend.device, backend.precision) == ('cpu', 'double')
    assert backend.libraries == ('fake', 'torch')
    assert _made_with(fake(files=FILE, trusted=True))['kind'] == 'float32'


def test_a_loader_turns_the_path_into_the_model(fake, tmp_path):
    row = _row(model_loader='fake_package:load', device_argument='where', device_to_loader=True, precision_argument='')
    backend = fake(row, files=FILE, trusted=True)
    expected = ('loaded', str(tmp_path / 'model/a[1].fake'), 'cpu')
    assert _made_with(backend) == {'weights': expected, 'place': None, 'kind': None}
    assert backend.precision == 'single', 'the float type of a family that cannot be told'


def test_a_file_without_trust_is_refused_before_its_package_is_imported(fake):
    with pytest.raises(WorkerError, match='--trust') as caught:
        fake(files=FILE)
    assert caught.value.label == 'ERROR_MODEL_UNSUPPORTED'
    assert 'fake_package' not in sys.modules


def test_every_file_needs_trust(tmp_path):
    assert 'may run' in AseBackend.inspect(tmp_path / 'a.model').needs_trust


def test_without_a_file_only_a_model_in_the_package_is_used(fake):
    with pytest.raises(WorkerError, match=r'no model in its package: give the parameter file \(a `.fake` file\)'):
        fake()
    assert _made_with(fake(_row(default_model=True)))['weights'] is None


def test_a_family_takes_one_file(fake):
    with pytest.raises(WorkerError, match='is one file, m has 2'):
        fake(files={'model/a': '0' * 64, 'model/b': '0' * 64}, trusted=True)


@pytest.mark.parametrize('keyword', ['weights', 'place', 'kind'])
def test_keywords_that_the_job_decides_are_refused(fake, keyword):
    with pytest.raises(WorkerError, match=f'argument {keyword} of fake_package.Fake follows from'):
        fake(_row(default_model=True), options={'kwargs': {keyword: 'x'}})


def test_keyword_arguments_override_those_of_the_row(fake, copper):
    row, frames = _row(default_model=True, kwargs={'scale': 2.0}), copper(1)
    default, own = fake(row), fake(row, options={'kwargs': {'scale': 6.0}})
    energies = [item.evaluate(frames, frozenset()).energies for item in (default, own)]
    assert energies[1] == pytest.approx(3 * energies[0])


def test_a_calculator_of_the_users_own(fake, tmp_path):
    options = {
        'calculator': 'fake_package.Fake',
        'kwargs': {'scale': 3.0},
        'model_argument': 'weights',
        'device_argument': 'place',
        'precision_argument': 'kind',
    }
    directory = {'model/net/a': '0' * 64, 'model/net/b': '0' * 64}
    settings = Settings(device='cpu', precision='single')
    backend = fake(backend='ase', options=options, files=directory, trusted=True, settings=settings)
    assert _made_with(backend) == {'weights': str(tmp_path / 'model/net'), 'place': 'cpu', 'kind': 'float32'}
    assert (backend.precision, backend.libraries) == ('single', ())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'model_loader': 'os:system'}, 'has no option model_loader'),
        ({'device_arg': 'place'}, 'has no option device_arg'),
        ({'device_argument': 1}, 'device_argument has to be a text'),
        ({}, 'give the option `model_argument`'),
    ],
)
def test_wrong_options_of_the_users_own(fake, options, message):
    with pytest.raises(WorkerError, match=message):
        fake(backend='ase', options={'calculator': 'fake_package.Fake', **options}, files=FILE, trusted=True)
    assert 'fake_package' not in sys.modules


def test_a_family_has_no_options_but_keyword_arguments(fake):
    with pytest.raises(WorkerError, match=r'the backend fake has no option calculator: leave it out$'):
        fake(_row(default_model=True), options={'calculator': 'ase.calculators.emt.EMT'})


def test_a_gpu_that_is_not_there(fake):
    row = _row(default_model=True)
    with pytest.raises(WorkerError) as caught:
        fake(row, settings=Settings(device='cuda:1'))
    assert caught.value.label == 'ERROR_DEVICE_MISSING'
    backend = fake(row, settings=Settings(device='cuda:1', device_fallback=True))
    assert (_made_with(backend)['place'], backend.device) == ('cpu', 'cpu')
    assert 'computed on the CPU' in backend.notes[0]


def test_a_gpu_that_is_there(fake, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', FakeTorch(gpus=2))
    for asked, given in (('', 'cuda'), ('cuda:1', 'cuda:1'), ('cpu', 'cpu')):
        backend = fake(_row(default_model=True), settings=Settings(device=asked))
        assert _made_with(backend)['place'] == backend.device == given


def test_a_calculator_that_is_not_of_torch_gets_the_device_as_it_is(fake, monkeypatch):
    monkeypatch.delitem(sys.modules, 'torch')
    backend = fake(_row(default_model=True), settings=Settings(device='cuda:1', num_threads=3))
    assert (_made_with(backend)['place'], backend.num_threads) == ('cuda:1', None)
    assert _made_with(fake(_row(default_model=True)))['place'] is None, 'its own default'


def test_a_gpu_for_a_calculator_without_device_argument_is_remarked(torch):
    spec = ModelSpec('m', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'})
    (note,) = AseBackend.load(spec, Path(), Settings(device='cuda')).notes
    assert 'leaves the device to the calculator' in note
    assert AseBackend.load(spec, Path(), Settings()).notes == ()


def test_threads_are_set(fake, torch):
    assert fake(_row(default_model=True), settings=Settings(num_threads=3)).num_threads == 3
    assert torch.threads == 3


def test_a_package_that_is_broken_or_missing(fake, tmp_path):
    (tmp_path / 'broken_package.py').write_text('raise RuntimeError("torch is too new")')
    for module, message in (('broken_package', 'too new'), ('no_such_package', 'No module')):
        with pytest.raises(WorkerError, match=f'{message}.*backends install fake') as caught:
            fake(_row(default_model=True, calculator=f'{module}.Fake'))
        assert caught.value.label == 'ERROR_BACKEND_MISSING'


def test_all_quantities_with_units(fake, copper):
    frames = copper(2)
    row = _row(default_model=True)
    ours = fake(row).evaluate(frames, ALL)
    squares = (frames.positions**2).sum(axis=1)
    np.testing.assert_allclose(ours.atomic_energies, squares)
    np.testing.assert_allclose(ours.energies, np.bincount(frames.frame_of_atom, squares))
    np.testing.assert_allclose(ours.forces, -2 * frames.positions)
    np.testing.assert_allclose(ours.stress[0], [[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    np.testing.assert_allclose(ours.charges, 0.1 * frames.numbers)
    theirs = fake(row, energy_unit='kcal/mol', distance_unit='bohr').evaluate(frames, ALL)
    np.testing.assert_allclose(theirs.atomic_energies, ours.atomic_energies * KCAL_PER_MOL / BOHR**2)
    np.testing.assert_allclose(theirs.energies, ours.energies * KCAL_PER_MOL / BOHR**2)
    np.testing.assert_allclose(theirs.forces, ours.forces * KCAL_PER_MOL / BOHR**2)
    np.testing.assert_allclose(theirs.stress, ours.stress * KCAL_PER_MOL / BOHR**3)
    np.testing.assert_allclose(theirs.charges, ours.charges)


def test_stress_is_of_crystals_only(fake):
    frames = Frames.from_ase([bulk('Cu'), molecule('H2O')])
    stress = fake(_row(default_model=True)).evaluate(frames, frozenset({'stress'})).stress
    assert np.isnan(stress).all(axis=(1, 2)).tolist() == [False, True]


def test_what_the_calculator_implements_is_what_the_backend_offers(fake):
    assert fake(_row(default_model=True)).properties == ALL | {'energy'}
    assert _load('ase.calculators.tip3p.TIP3P').properties == {'energy', 'forces'}


def test_each_structure_is_computed_anew_and_once(fake):
    """Of a calculator that takes every structure for the previous one, and computes only what it is asked for."""
    frames = Frames.from_ase([Atoms('H', [[x, 0, 0]], cell=[9, 9, 9], pbc=True) for x in (1.0, 2.0, 2.0, 3.0)])
    backend = fake(_row(default_model=True), options={'kwargs': {'stale': True}})
    result = backend.evaluate(frames, ALL)
    assert result.energies.tolist() == [1, 4, 4, 9]
    assert result.forces[:, 0].tolist() == [-2, -4, -4, -6]
    assert backend._calculator.count == 4


def test_elements_of_the_family_are_checked_where_the_model_names_none(fake):
    row, frames = _row(default_model=True, elements=('H', 'O')), Frames.from_ase([molecule('CH3OH')])
    with pytest.raises(FrameError, match='contains C, which Fake was not trained for') as caught:
        fake(row).evaluate(frames, frozenset())
    assert caught.value.status == FrameStatus.UNSUPPORTED_ELEMENT
    assert np.isfinite(fake(row, elements=('H', 'C', 'O')).evaluate(frames, frozenset()).energies).all()


def test_a_cell_is_made_for_a_family_that_needs_one(fake):
    frames = Frames.from_ase([bulk('Cu'), molecule('H2O')])
    options = {'kwargs': {'needs_cell': True}}
    with pytest.raises(np.linalg.LinAlgError):
        fake(_row(default_model=True), options=options).evaluate(frames, frozenset())
    backend = fake(_row(default_model=True, needs_cell=True), options=options)
    assert np.isfinite(backend.evaluate(frames, frozenset()).energies).all()
    assert not backend._calculator.atoms.pbc.any(), 'the molecule stays one'


def test_memory_that_ran_out_is_said_to_be_that(fake, copper):
    backend = fake(_row(default_model=True), options={'kwargs': {'memory': 1}})
    with pytest.raises(OutOfMemory, match='2 atoms'):
        backend.evaluate(copper(2), frozenset())


def _carbons(*sizes):
    return [Atoms('C' * size, positions=2.0 * np.arange(3 * size).reshape(size, 3)) for size in sizes]


def test_hessians_come_from_the_calculator_where_the_family_says_so(fake):
    row = _row(hessian=True, kwargs={'scale': 1.5})
    frames = Frames.from_ase(_carbons(2, 1))
    assert fake(_row(hessian=False), files=FILE, trusted=True).hessians(frames) is None
    backend = fake(row, files=FILE, trusted=True)
    np.testing.assert_array_equal(
        backend.hessians(frames), np.concatenate([3 * np.eye(6).ravel(), 3 * np.eye(3).ravel()])
    )
    other = fake(row, files=FILE, trusted=True, energy_unit='kcal/mol', distance_unit='bohr').hessians(frames)
    np.testing.assert_allclose(other, backend.hessians(frames) * KCAL_PER_MOL / BOHR**2, rtol=1e-12)


def test_a_structure_that_the_calculator_refuses_is_left_to_differences(fake):
    free, crystal = _carbons(1, 1)
    crystal.set_cell(np.eye(3) * 5)
    crystal.pbc = True
    flat = fake(_row(hessian=True), files=FILE, trusted=True).hessians(Frames.from_ase([crystal, free]))
    assert np.isnan(flat[:9]).all()
    np.testing.assert_array_equal(flat[9:], 2 * np.eye(3).ravel())


def test_errors_of_a_hessian_are_those_of_an_evaluation(fake):
    backend = fake(_row(hessian=True, kwargs={'memory': 1}), files=FILE, trusted=True)
    with pytest.raises(OutOfMemory, match='2 atoms'):
        backend.hessians(Frames.from_ase(_carbons(2)))
    with pytest.raises(FrameError, match='no hydrogen'):
        backend.hessians(Frames.from_ase([Atoms('H')]))
