"""check_backend: it must catch every promise that a backend breaks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from aiida_mlpotential.worker.backends.ase import AseBackend
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.testing import Tolerances, check_backend

SPEC = ModelSpec('EMT', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'})
LOOSE = Tolerances(energy=1e-7, forces=1e-6)


def _wrong_shape(frames, result):
    return {'energies': result.energies[:, None]}


def _no_forces(frames, result):
    return {'forces': None}


def _single_type(frames, result):
    return {'energies': result.energies.astype(np.float32)}


def _wrong_force(frames, result):
    return {} if result.forces is None else {'forces': 1.01 * result.forces}


def _wrong_stress(frames, result):
    return {} if result.stress is None else {'stress': -result.stress}


def _batch_dependent(frames, result):
    return {'energies': result.energies + 1e-5 * len(frames)}


def _wrong_sum(frames, result):
    return {} if result.atomic_energies is None else {'atomic_energies': result.atomic_energies + 1e-3}


def _turned(frames, result):
    return {'energies': result.energies + 1e-4 * frames.positions[frames.offsets[:-1], 0]}


@pytest.mark.parametrize(
    ('fault', 'text'),
    [
        (_wrong_shape, 'shape'),
        (_no_forces, 'forces was asked for'),
        (_single_type, 'float32'),
        (_wrong_force, 'forces against central differences'),
        (_wrong_stress, 'stress against central differences'),
        (_batch_dependent, 'alone'),
        (_wrong_sum, 'sum of the atomic energies'),
        (_turned, 'order|rotated|unwrapped'),
    ],
)
def test_a_broken_promise_is_found(copper, fault, text):
    class Broken(AseBackend):
        def evaluate(self, frames, request):
            result = super().evaluate(frames, request)
            return dataclasses.replace(result, **fault(frames, result))

    with pytest.raises(AssertionError, match=text):
        check_backend(Broken.load(SPEC, Path(), Settings()), copper(3), LOOSE)


def test_members_must_average_to_the_energy(copper):
    class Members(AseBackend):
        n_members = 2

        def evaluate(self, frames, request):
            result = super().evaluate(frames, request)
            return dataclasses.replace(result, member_energies=np.stack([result.energies, result.energies + 1]))

    with pytest.raises(AssertionError, match='mean of the members'):
        check_backend(Members.load(SPEC, Path(), Settings()), copper(3), LOOSE)
