"""Any ASE calculator, given by import path and keyword arguments: one frame after the other."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import FrameError, FrameStatus, WorkerError
from ..frames import Frames
from ..schema import ModelSpec
from ..units import DISTANCE_UNITS, ENERGY_UNITS
from .base import Backend, Evaluation, Settings


class AseBackend(Backend):
    """A calculator of ASE, or of a package that follows its interface.

    ``options['calculator']`` is the import path of the class, such as ``ase.calculators.emt.EMT``, and
    ``options['kwargs']`` what it is made with. Energies and lengths are eV and angstrom, as ASE has them, unless the
    model says that this calculator has others.
    """

    name: ClassVar[str] = 'ase'
    properties: ClassVar[frozenset[str]] = frozenset({'energy', 'forces', 'stress'})

    def __init__(self, calculator: Any, energy_unit: str = 'eV', distance_unit: str = 'angstrom') -> None:
        self._calculator = calculator
        self._energy, self._distance = ENERGY_UNITS[energy_unit], DISTANCE_UNITS[distance_unit]

    @classmethod
    def load(cls, spec: ModelSpec, directory: Path, settings: Settings) -> AseBackend:
        """Import the class, make sure that it is a calculator, and make one."""
        path = str(spec.options.get('calculator', ''))
        factory = _import_calculator(path)
        try:
            calculator = factory(**dict(spec.options.get('kwargs', {})))
        except Exception as exception:  # a calculator may raise anything for a wrong keyword
            raise WorkerError(
                'ERROR_MODEL_UNSUPPORTED', f'{path}: {type(exception).__name__}: {exception}'
            ) from exception
        backend = cls(calculator, spec.energy_unit, spec.distance_unit)
        if settings.device.startswith('cuda'):
            backend.notes = ('the ase backend leaves the device to the calculator: give it in its keyword arguments',)
        return backend

    def batch_atoms(self) -> int:
        """Return few atoms: batches gain nothing here, and a killed job then loses little."""
        return 256

    def evaluate(self, frames: Frames, request: frozenset[str]) -> Evaluation:
        """Evaluate frame by frame, as the interface of ASE wants it."""
        missing = request - set(self._calculator.implemented_properties)
        if missing:
            raise WorkerError(
                'ERROR_PROPERTY_UNAVAILABLE',
                f'{type(self._calculator).__name__} has no {", ".join(sorted(missing))}: leave it out of `properties`',
            )
        energies = np.zeros(len(frames))
        forces = np.zeros((frames.n_atoms, 3)) if 'forces' in request else None
        stress = np.full((len(frames), 3, 3), np.nan) if 'stress' in request else None
        atoms: Any  # the methods of ASE are not typed
        for index, atoms in enumerate(frames):
            atoms.positions /= self._distance
            atoms.cell /= self._distance
            atoms.calc = self._calculator
            try:
                energies[index] = atoms.get_potential_energy()
                if forces is not None:
                    forces[frames.offsets[index] : frames.offsets[index + 1]] = atoms.get_forces()
                if stress is not None and atoms.pbc.all():
                    stress[index] = atoms.get_stress(voigt=False)
            except Exception as exception:
                self._calculator.reset()
                if len(frames) > 1:
                    raise
                message = f'{type(exception).__name__}: {exception}'
                raise FrameError(FrameStatus.BACKEND_FAILED, message) from exception
        return Evaluation(
            energies=energies * self._energy,
            forces=None if forces is None else forces * (self._energy / self._distance),
            stress=None if stress is None else stress * (self._energy / self._distance**3),
        )


def _import_calculator(path: str) -> Any:
    """Import a class by its path; only a calculator is returned, so that no other callable is ever called."""
    from ase.calculators.abc import GetPropertiesMixin
    from ase.calculators.calculator import BaseCalculator

    module, _, name = path.rpartition('.')
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as exception:
        raise WorkerError(
            'ERROR_BACKEND_MISSING',
            f'cannot import the calculator {path!r} ({exception}): install its package on the computer',
        ) from exception
    if not (isinstance(found, type) and issubclass(found, (BaseCalculator, GetPropertiesMixin))):
        raise WorkerError('ERROR_MODEL_UNSUPPORTED', f'{path} is not the class of an ASE calculator')
    return found
