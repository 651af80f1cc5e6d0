"""The generic ase backend: any calculator by name, and nothing but a calculator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from aiida_mlpotential.worker.backends import get_backend
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.errors import FrameError, WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.testing import Tolerances, check_backend
from aiida_mlpotential.worker.units import BOHR, KCAL_PER_MOL


def _load(calculator='ase.calculators.emt.EMT', **kwargs):
    spec = ModelSpec('m', 'ase', '0' * 64, options={'calculator': calculator, 'kwargs': kwargs})
    return get_backend('ase').load(spec, Path(), Settings())


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
