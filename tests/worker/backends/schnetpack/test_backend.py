"""Tests of the SchNetPack backend: published numbers, units, threads, and what every backend promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.backends.schnetpack import SchNetPackBackend
from aiida_mlpotential.worker.errors import OutOfMemory, WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.testing import Tolerances, check_backend
from aiida_mlpotential.worker.units import BOHR, HARTREE, KCAL_PER_MOL

ALL = frozenset({'forces', 'stress', 'atomic_energies'})
#: eV and eV/angstrom; what is asked for is 1e-4 and 1e-3.
LIMITS = {'double': (1e-9, 1e-12), 'single': (5e-6, 5e-5)}


@pytest.fixture
def load(library: Any, best_model: Path, spec: Callable[..., ModelSpec]) -> Callable[..., SchNetPackBackend]:
    """Return a loader of the trained model."""

    def loaded(precision: str = 'double', num_threads: int = 1, **fields: Any) -> SchNetPackBackend:
        settings = Settings(device='cpu', precision=precision, num_threads=num_threads)
        return SchNetPackBackend.load(spec(best_model, **fields), best_model.parent, settings)

    return loaded


def _compare(backend: SchNetPackBackend, frames: Frames, items: list[dict[str, Any]], precision: str) -> None:
    energy, force = LIMITS[precision]
    found = backend.evaluate(frames, ALL)
    np.testing.assert_allclose(found.energies, [item['energy_ev'] for item in items], atol=energy, rtol=0)
    expected = np.concatenate([item['forces_ev_per_ang'] for item in items])
    np.testing.assert_allclose(found.forces, expected, atol=force, rtol=0)
    for row, item in zip(found.stress, items, strict=True):
        if 'stress_ev_per_ang3' in item:
            np.testing.assert_allclose(row, item['stress_ev_per_ang3'], atol=force, rtol=0)
        else:
            assert np.isnan(row).all()


@pytest.mark.slow
@pytest.mark.parametrize('precision', ['double', 'single'])
def test_reference(
    load: Callable[..., SchNetPackBackend],
    reference: list[dict[str, Any]],
    reference_frames: Frames,
    precision: str,
) -> None:
    backend = load(precision)
    assert backend.precision == precision
    _compare(backend, reference_frames, reference, precision)
    for index, item in enumerate(reference):
        _compare(backend, reference_frames.select([index]), [item], precision)


@pytest.mark.parametrize('precision', ['double', 'single'])
def test_whole_reference(load: Callable[..., SchNetPackBackend], shared_data: Path, precision: str) -> None:
    path = shared_data / 'models' / 'schnetpack' / 'reference.json'
    content = json.loads(path.read_text())['models']['best_model']
    items = [*content['structures'], *content['periodic']]
    frames = Frames.from_ase(
        Atoms(item['numbers'], item['positions'], cell=item.get('cell'), pbc=item.get('pbc', False)) for item in items
    )
    _compare(load(precision), frames, items, precision)


def test_single_precision_is_better_than_the_library_s(
    load: Callable[..., SchNetPackBackend], reference: list[dict[str, Any]], reference_frames: Frames
) -> None:
    energies = load('single').evaluate(reference_frames, frozenset()).energies
    for energy, item in zip(energies, reference, strict=True):
        if 'energy_ev_float32' in item:
            library_error = abs(item['energy_ev_float32'] - item['energy_ev'])
            assert abs(energy - item['energy_ev_float32']) < 1e-4
            assert abs(energy - item['energy_ev']) < max(library_error / 5, 1e-6)


@pytest.mark.parametrize('precision', ['double', 'single'])
def test_what_every_backend_promises(
    load: Callable[..., SchNetPackBackend], reference_frames: Frames, crystals: list[Atoms], precision: str
) -> None:
    last = list(reference_frames)[-1]
    wire = last.copy()
    wire.pbc = (True, False, True)
    frames = Frames.from_ase([*reference_frames, wire, *crystals])
    limits = Tolerances(step=5e-5)  # the model bends strongly where atoms are close
    if precision == 'single':
        limits = Tolerances(
            energy=2e-5, forces=2e-4, stress=2e-5, derivative=0.1, step=2e-3, hessian=0.3, hessian_step=1e-3
        )
    check_backend(load(precision), frames, limits)


def test_unit_of_energy(load: Callable[..., SchNetPackBackend], reference_frames: Frames) -> None:
    kcal, hartree = (load(energy_unit=unit).evaluate(reference_frames, ALL) for unit in ('kcal/mol', 'Hartree'))
    for name in ('energies', 'forces', 'stress', 'atomic_energies'):
        ratio = getattr(hartree, name) / getattr(kcal, name)
        np.testing.assert_allclose(ratio[np.isfinite(ratio)], HARTREE / KCAL_PER_MOL, rtol=1e-9)


def test_unit_of_length(load: Callable[..., SchNetPackBackend], reference_frames: Frames) -> None:
    """SpkCalculator never converts positions; here the same numbers in bohr are the same structure for the model."""
    plain = load().evaluate(reference_frames, ALL)
    backend = load(distance_unit='bohr')
    assert backend.details()['cutoff'] == pytest.approx(5 * BOHR)
    smaller = Frames.from_ase(
        Atoms(a.numbers, a.positions * BOHR, cell=a.cell.array * BOHR, pbc=a.pbc) for a in reference_frames
    )
    found = backend.evaluate(smaller, ALL)
    np.testing.assert_allclose(found.energies, plain.energies, atol=1e-9, rtol=0)
    np.testing.assert_allclose(found.forces, plain.forces / BOHR, atol=1e-9)
    np.testing.assert_allclose(found.stress, plain.stress / BOHR**3, atol=1e-9)


def test_threads_are_set(load: Callable[..., SchNetPackBackend]) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        assert load(num_threads=2).num_threads == 2
        assert torch.get_num_threads() == 2
        assert load(num_threads=1).num_threads == 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_no_gradients_where_none_are_needed(
    load: Callable[..., SchNetPackBackend], reference_frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    backend = load()
    monkeypatch.setattr(torch.autograd, 'grad', lambda *args, **kwargs: pytest.fail('a gradient was taken'))
    result = backend.evaluate(reference_frames, frozenset({'atomic_energies'}))
    assert (result.forces, result.stress) == (None, None)


def test_out_of_memory_is_told(
    load: Callable[..., SchNetPackBackend], reference_frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = load()

    def fail(message: str) -> Any:
        def evaluate(*args: Any) -> None:
            raise RuntimeError(message)

        return evaluate

    monkeypatch.setattr(backend._engine, 'evaluate', fail("DefaultCPUAllocator: can't allocate memory: you tried"))
    with pytest.raises(OutOfMemory):
        backend.evaluate(reference_frames, ALL)
    monkeypatch.setattr(backend._engine, 'evaluate', fail('something else'))
    with pytest.raises(RuntimeError, match='something else'):
        backend.evaluate(reference_frames, ALL)


def test_unknown_elements_are_remarked(load: Callable[..., SchNetPackBackend]) -> None:
    assert load().notes == ()
    assert any('elements' in note for note in load(elements=None).notes)


def test_one_file(library: Any, best_model: Path) -> None:
    model = ModelSpec('x', 'schnetpack', '', {'a': '', 'b': ''})
    with pytest.raises(WorkerError, match='one file, x has 2'):
        SchNetPackBackend.load(model, best_model.parent, Settings(device='cpu'))


def test_device_that_is_not_there(spec: Callable[..., ModelSpec], best_model: Path, library: Any) -> None:
    with pytest.raises(WorkerError) as caught:
        SchNetPackBackend.load(spec(best_model), best_model.parent, Settings(device='cuda:99'))
    assert caught.value.label == 'ERROR_DEVICE_MISSING'
