"""The sGDML backend against the library called directly, and what it refuses."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mlpotential.worker.backends import sgdml as package
from aiida_mlpotential.worker.backends.base import ModelFileError, Settings
from aiida_mlpotential.worker.backends.sgdml import SgdmlBackend
from aiida_mlpotential.worker.backends.sgdml.backend import import_predictor
from aiida_mlpotential.worker.errors import FrameError, FrameStatus, WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.testing import check_backend
from aiida_mlpotential.worker.units import BOHR, ENERGY_UNITS, KCAL_PER_MOL

UNITS = {'ethanol_kcal_ang': ('kcal/mol', 'angstrom'), 'ethanol_hartree_bohr': ('Hartree', 'bohr')}
FORCES = frozenset({'forces'})


def _predictor() -> Any:
    """Return the library's own class, or skip: not by ``importorskip``, which would leave its loggers behind."""
    if importlib.util.find_spec('sgdml') is None:
        pytest.skip('the sgdml library is not installed')
    return import_predictor()


def _load(path: Path, energy_unit: str = 'kcal/mol', distance_unit: str = 'angstrom', **options) -> SgdmlBackend:
    _predictor()
    settings = Settings(**{key: options.pop(key) for key in list(options) if key in Settings.__dataclass_fields__})
    spec = ModelSpec(
        'ethanol',
        'sgdml',
        '0' * 64,
        files={path.name: '0' * 64},
        energy_unit=energy_unit,
        distance_unit=distance_unit,
        **options,
    )
    return SgdmlBackend.load(spec, path.parent, settings)


@pytest.fixture
def backend(folder) -> SgdmlBackend:
    """Return the model in kcal/mol and angstrom."""
    return _load(folder / 'ethanol_kcal_ang.npz')


@pytest.fixture
def reordering(folder) -> SgdmlBackend:
    """Return the same, permitted to put the atoms in order."""
    return _load(folder / 'ethanol_kcal_ang.npz', reorder_atoms=True)


def _failure(backend: SgdmlBackend, *structures: Atoms) -> FrameError:
    with pytest.raises(FrameError) as caught:
        backend.evaluate(Frames.from_ase(structures), FORCES)
    return caught.value


def _compare(folder: Path, variant: str, reference: Path) -> None:
    structures = json.loads(reference.read_text())['models'][f'{variant}.npz']['structures']
    frames = Frames.from_ase([Atoms(item['numbers'], item['positions']) for item in structures])
    energies = np.array([item['energy_ev'] for item in structures])
    forces = np.array([item['forces_ev_per_ang'] for item in structures])
    backend = _load(folder / f'{variant}.npz', *UNITS[variant])
    together = backend.evaluate(frames, FORCES)
    assert np.abs(together.energies - energies).max() < 1e-8
    assert np.abs(together.forces.reshape(forces.shape) - forces).max() < 1e-8
    for index in range(len(frames)):
        alone = backend.evaluate(frames.select([index]), FORCES)
        assert abs(alone.energies[0] - energies[index]) < 1e-8
        assert np.abs(alone.forces - forces[index]).max() < 1e-8


def test_reference_values(folder, variant) -> None:
    """Both variants of units give the library's numbers, batched and alone."""
    _compare(folder, variant, folder / 'reference.json')


def test_all_reference_values(shared_data, variant) -> None:
    """So do all published ones."""
    folder = shared_data / 'models' / 'sgdml'
    _compare(folder, variant, folder / 'reference.json')


def test_contract(folder, variant, ethanol) -> None:
    """All that a backend promises; the order of the atoms is the model's."""
    backend = _load(folder / f'{variant}.npz', *UNITS[variant])
    check_backend(backend, Frames.from_ase(ethanol))
    assert backend.fixed_atom_order
    assert backend.precision == 'double'
    assert backend.device == 'cpu'
    assert backend.batch_atoms() > 9


def test_contract_of_a_model_with_energy_constraints(alter, ethanol) -> None:
    """Models with energy constraints take another path of the library."""
    random = np.random.default_rng(1)
    frames = Frames.from_ase(ethanol)
    backend = _load(alter(alphas_E=random.normal(scale=1e-3, size=120)))
    check_backend(backend, frames)
    plain = _load(alter())
    difference = backend.evaluate(frames, FORCES).energies - plain.evaluate(frames, FORCES).energies
    assert np.abs(difference).min() > 1e-6


def test_library_called_directly(folder, ethanol) -> None:
    """The numbers are those of the library's own predictor for shaken geometries."""
    predictor_class = _predictor()
    random = np.random.default_rng(4)
    for atoms in ethanol:
        atoms.positions += random.normal(scale=0.05, size=(9, 3))
    with np.load(folder / 'ethanol_kcal_ang.npz', allow_pickle=False) as model:
        predictor = predictor_class(model, max_processes=1)
        energies, forces = predictor.predict(np.array([atoms.positions.ravel() for atoms in ethanol]))
    result = _load(folder / 'ethanol_kcal_ang.npz').evaluate(Frames.from_ase(ethanol), FORCES)
    assert np.abs(result.energies - energies * KCAL_PER_MOL).max() < 1e-9
    assert np.abs(result.forces.ravel() - forces.ravel() * KCAL_PER_MOL).max() < 1e-9


@pytest.mark.parametrize('unit', sorted(ENERGY_UNITS))
def test_energy_unit_alone(alter, backend, ethanol, unit) -> None:
    """A model in another unit of energy gives the same: positions are left alone."""
    factor = KCAL_PER_MOL / ENERGY_UNITS[unit]
    with np.load(alter(), allow_pickle=False) as file:
        changes = {name: file[name] * factor for name in ('std', 'c')}
    frames = Frames.from_ase(ethanol)
    expected, found = backend.evaluate(frames, FORCES), _load(alter(**changes), unit).evaluate(frames, FORCES)
    assert np.abs(found.energies - expected.energies).max() < 1e-8
    assert np.abs(found.forces - expected.forces).max() < 1e-8


def test_distance_unit_alone(alter, backend, ethanol) -> None:
    """A model in bohr with the same energies gives the same: energies are left alone."""
    with np.load(alter(), allow_pickle=False) as file:
        changes = {name: file[name] * BOHR for name in ('R_desc', 'R_d_desc_alpha', 'sig')}
    frames = Frames.from_ase(ethanol)
    found = _load(alter(**changes), distance_unit='bohr').evaluate(frames, FORCES)
    expected = backend.evaluate(frames, FORCES)
    assert np.abs(found.energies - expected.energies).max() < 1e-8
    assert np.abs(found.forces - expected.forces).max() < 1e-8


@pytest.mark.parametrize('variant_and_unit', [('ethanol_kcal_ang', 'bohr'), ('ethanol_hartree_bohr', 'angstrom')])
def test_impossible_distance_unit(folder, variant_and_unit) -> None:
    """A wrong unit of distance would give plausible energies: the training points give it away."""
    variant, unit = variant_and_unit
    with pytest.raises(WorkerError, match=f'with distances in {unit} .* `--distance-unit`') as caught:
        _load(folder / f'{variant}.npz', distance_unit=unit)
    assert caught.value.label == 'ERROR_MODEL_UNSUPPORTED'


def test_only_energies(backend, ethanol) -> None:
    """Forces that nobody asked for are not there."""
    assert backend.evaluate(Frames.from_ase(ethanol), frozenset()).forces is None


def test_order_of_elements(backend, ethanol) -> None:
    """Other elements, or these in another order, would give a plausible energy: they are refused by name."""
    hydrogens = ethanol[0].copy()
    hydrogens.numbers[:] = 1
    for wrong in (ethanol[0][[2, 1, 0, 3, 4, 5, 6, 7, 8]], hydrogens, ethanol[0][:8], Atoms('H', [[0, 0, 0]])):
        error = _failure(backend, wrong)
        assert error.status == FrameStatus.ATOM_ORDER
        assert 'C C O H H H H H H' in error.message
    error = _failure(backend, ethanol[0], ethanol[1], hydrogens)
    assert error.status == FrameStatus.ATOM_ORDER
    assert error.message.startswith('structure 2: ')


@pytest.mark.parametrize('pair', [(3, 6), (4, 6), (4, 5), (0, 1)])
def test_order_of_equal_elements(backend, ethanol, pair) -> None:
    """Equal atoms in each other's places have the right elements and a wrong energy, by tenths of an electronvolt."""
    order = np.arange(9)
    order[list(pair)] = pair[::-1]
    error = _failure(backend, ethanol[0][order])
    assert error.status == FrameStatus.ATOM_ORDER
    assert 'reorder_atoms' in error.message
    assert _failure(backend, ethanol[0], ethanol[0][order]).message.startswith('structure 1: ')
    energies, _ = backend._predictor.predict(
        np.array([ethanol[0].positions.ravel(), ethanol[0][order].positions.ravel()])
    )
    assert abs(energies[1] - energies[0]) * KCAL_PER_MOL > 0.05


def test_reordering_is_undone(backend, reordering, ethanol) -> None:
    """In any order of the atoms the energy is the same and each atom has its own force, mixed in one batch."""
    random = np.random.default_rng(12)
    expected = backend.evaluate(Frames.from_ase(ethanol), FORCES)
    forces = expected.forces.reshape(-1, 9, 3)
    shuffles = [random.permutation(9) for _ in range(40)]
    frames = Frames.from_ase([ethanol[index % 4][shuffle] for index, shuffle in enumerate(shuffles)])
    result = reordering.evaluate(frames, FORCES)
    for index, shuffle in enumerate(shuffles):
        assert abs(result.energies[index] - expected.energies[index % 4]) < 1e-7
        assert np.abs(result.forces[9 * index : 9 * index + 9] - forces[index % 4][shuffle]).max() < 1e-7


def test_reordering_has_limits(reordering, ethanol) -> None:
    """Other atoms are not those of the model in any order."""
    error = _failure(reordering, ethanol[0][[0, 1, 2, 3, 4, 5, 6, 7]])
    assert error.status == FrameStatus.ATOM_ORDER
    assert 'these are others' in error.message
    scattered = ethanol[0][::-1]
    scattered.positions[:] = np.random.default_rng(3).uniform(-20, 20, size=(9, 3))
    assert 'cannot be found out' in _failure(reordering, scattered).message


def test_periodic_structures(backend, ethanol) -> None:
    """A crystal is no molecule, whatever its atoms; a box without periodicity is."""
    crystal = ethanol[0].copy()
    crystal.cell = np.eye(3) * 12
    free = backend.evaluate(Frames.from_ase([crystal]), FORCES)
    crystal.pbc = (True, False, False)
    error = _failure(backend, crystal)
    assert error.status == FrameStatus.BACKEND_FAILED
    assert 'periodic' in error.message
    assert free.energies[0] == backend.evaluate(Frames.from_ase(ethanol[:1]), FORCES).energies[0]


def test_inspect(folder, variant) -> None:
    """A file says which atoms, in which order and which units, and where it comes from, without the library."""
    facts = SgdmlBackend.inspect(folder / f'{variant}.npz')
    assert facts.elements == ('C', 'O', 'H')
    assert facts.options == {'atom_order': [6, 6, 8, 1, 1, 1, 1, 1, 1]}
    assert (facts.energy_unit, facts.distance_unit) == UNITS[variant]
    assert facts.cutoff is None
    assert facts.needs_trust == ''
    assert 'level of theory: ANI-1ccx' in facts.remarks
    json.dumps(facts.options)


def test_inspect_without_units(alter) -> None:
    """Missing and unknown units are said to be so, and so is a missing zero of energy."""
    facts = SgdmlBackend.inspect(alter(e_unit=None, r_unit=np.array('furlong'), use_E=np.array(False)))
    assert facts.energy_unit is None
    assert facts.distance_unit is None
    text = ' '.join(facts.remarks)
    assert 'e_unit is missing in the file: state it with `--energy-unit`' in text
    assert "r_unit is 'furlong', which is unknown" in text
    assert 'relative to an arbitrary zero' in text


def test_inspect_finds_the_wrong_unit(folder, alter) -> None:
    """Training points in bohr whose file does not say so are no molecule in angstrom."""
    with np.load(folder / 'ethanol_hartree_bohr.npz', allow_pickle=False) as file:
        path = alter(r_unit=None, R_desc=file['R_desc'])
    assert 'the training points cannot be in angstrom: state `--distance-unit`' in SgdmlBackend.inspect(path).remarks


def test_inspect_refuses(alter) -> None:
    """What cannot be loaded cannot be imported."""
    with pytest.raises(ModelFileError, match='training task'):
        SgdmlBackend.inspect(alter(type=np.array('t')))


def test_relative_energies(alter) -> None:
    """A model without energies says so in every result."""
    assert 'relative' in _load(alter(use_E=np.array(False))).notes[0]


def test_bad_files_do_not_end_the_process(alter, folder) -> None:
    """The library would exit; the check comes first, and an exit that gets past it is caught."""
    predictor_class = _predictor()
    with pytest.raises(SystemExit):
        predictor_class({'type': 't'}, max_processes=1)
    with pytest.raises(WorkerError, match='training task') as caught:
        _load(alter(type=np.array('t')))
    assert caught.value.label == 'ERROR_MODEL_CORRUPT'
    with pytest.raises(WorkerError) as caught:
        _load(folder / 'absent.npz')
    assert caught.value.label == 'ERROR_MODEL_MISSING'


def test_an_exit_of_the_library_is_an_error(folder, monkeypatch) -> None:
    """Whatever the library exits on, the job ends with a message."""
    predictor_class = _predictor()

    def leave(self: Any, *_: Any, **__: Any) -> None:
        self.glob_id = sys.maxsize  # which its destructor asks for
        sys.exit()

    monkeypatch.setattr(predictor_class, '__init__', leave)
    with pytest.raises(WorkerError, match='the library refuses the model') as caught:
        _load(folder / 'ethanol_kcal_ang.npz')
    assert caught.value.label == 'ERROR_MODEL_CORRUPT'


def test_missing_library(folder, monkeypatch) -> None:
    """Where the library is missing, the remedy is said."""
    monkeypatch.setitem(sys.modules, 'sgdml', None)
    spec = ModelSpec(
        'ethanol',
        'sgdml',
        '0' * 64,
        files={'ethanol_kcal_ang.npz': '0'},
        energy_unit='kcal/mol',
        distance_unit='angstrom',
    )
    with pytest.raises(WorkerError, match='aiida-mlpotential backends install sgdml') as caught:
        SgdmlBackend.load(spec, folder, Settings())
    assert caught.value.label == 'ERROR_BACKEND_MISSING'


@pytest.mark.parametrize(
    'wrong', [{'elements': ('C', 'H')}, {'options': {'atom_order': [6, 6, 1, 8, 1, 1, 1, 1, 1]}}], ids=str
)
def test_a_node_that_says_otherwise(folder, wrong) -> None:
    """A model node that names other atoms than the file is not believed, nor is the file."""
    with pytest.raises(WorkerError, match='for the atoms C C O H H H H H H, not those') as caught:
        _load(folder / 'ethanol_kcal_ang.npz', **wrong)
    assert caught.value.label == 'ERROR_MODEL_UNSUPPORTED'


def test_one_file(folder) -> None:
    """Two files are no model."""
    spec = ModelSpec('two', 'sgdml', '0' * 64, files={'a.npz': '0', 'b.npz': '0'})
    with pytest.raises(WorkerError, match=r'one \.npz file, two has 2'):
        SgdmlBackend.load(spec, folder, Settings())


def test_devices(folder) -> None:
    """There is no GPU to be had: said aloud, or noted where the CPU is allowed instead."""
    path = folder / 'ethanol_kcal_ang.npz'
    with pytest.raises(WorkerError, match='cuda:1 was asked for, but sGDML computes on the CPU') as caught:
        _load(path, device='cuda:1')
    assert caught.value.label == 'ERROR_DEVICE_MISSING'
    fallen_back = _load(path, device='cuda', device_fallback=True)
    assert fallen_back.device == 'cpu'
    assert 'computes on the CPU' in fallen_back.notes[0]
    assert _load(path, device='cpu').notes == ()
    assert _load(path, num_threads=3).num_threads == 3


def test_no_traces(folder, ethanol) -> None:
    """No further process, nothing written beside the library, single precision nowhere."""
    library = Path(inspect.getfile(_predictor())).parent
    before = {path: path.stat().st_mtime_ns for path in library.rglob('*.np*')}
    backend = _load(folder / 'ethanol_kcal_ang.npz')
    backend.evaluate(Frames.from_ase(ethanol), FORCES)
    assert multiprocessing.active_children() == []
    assert backend._predictor.pool is None
    assert not backend._predictor.use_torch
    assert {path: path.stat().st_mtime_ns for path in library.rglob('*.np*')} == before


@pytest.mark.slow
def test_logging_is_left_alone(folder) -> None:
    """The library would make all loggers of the process colourful and loud."""
    _predictor()
    code = f"""
import logging
from pathlib import Path
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.backends.sgdml import SgdmlBackend
from aiida_mlpotential.worker.schema import ModelSpec
spec = ModelSpec('m', 'sgdml', '0' * 64, files={{'ethanol_kcal_ang.npz': '0'}}, energy_unit='kcal/mol')
SgdmlBackend.load(spec, Path({str(folder)!r}), Settings())
assert logging.getLoggerClass() is logging.Logger
assert not any(type(logger).__name__ == 'ColoredLogger' for logger in logging.Logger.manager.loggerDict.values())
"""
    paths = os.pathsep.join([str(Path(package.__file__).parents[4]), os.environ.get('PYTHONPATH', '')])
    process = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, 'PYTHONPATH': paths},
    )
    assert process.returncode == 0, process.stderr


def test_details(backend) -> None:
    """The results say which molecule the model is for."""
    assert backend.details() == {'atom_order': [6, 6, 8, 1, 1, 1, 1, 1, 1], 'training_points': 120}
    assert json.dumps(backend.details())
    assert dataclasses.is_dataclass(backend._model)
