"""Any ASE calculator, of a family in ``families.FAMILIES`` or by import path: one frame after the other."""

from __future__ import annotations

import dataclasses
import importlib
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import FrameError, FrameStatus, OutOfMemory, WorkerError
from ..frames import FloatArray, Frames
from ..schema import ModelSpec
from ..units import DISTANCE_UNITS, ENERGY_UNITS
from .base import Backend, Evaluation, FileFacts, Settings
from .families import FAMILIES, FLOAT_TYPES, AseFamily
from .torch_device import choose_device, out_of_memory

#: What ASE calls the properties that have another name here.
_ASE_NAMES = {'atomic_energies': 'energies'}
#: What a user may say of a calculator of his own. A loader is not among it: only calculators are ever called by name.
_OWN_OPTIONS = ('calculator', 'device_argument', 'model_argument', 'precision_argument')
#: A calculator of which nothing is known but what the options of its model say.
_ANY = AseFamily('The calculator', '', precision='double')


class AseBackend(Backend):
    """A calculator of ASE, or of a package that follows its interface.

    ``spec.backend`` is the name of a family, whose row says how to make the calculator; or ``ase``, and then
    ``options['calculator']`` is the import path of the class, such as ``ase.calculators.emt.EMT``, and
    ``options['device_argument']``, ``['model_argument']`` and ``['precision_argument']`` are the keywords that take
    device, parameter file and float type, where it has them. ``options['kwargs']`` are further keyword arguments.
    Energies and lengths are eV and angstrom, as ASE has them, unless the model says that its calculator has others.
    """

    name: ClassVar[str] = 'ase'

    def __init__(self, calculator: Any, family: AseFamily, spec: ModelSpec) -> None:
        from ase.calculators.calculator import Calculator

        self._calculator = calculator
        self._computes_at_once = isinstance(calculator, Calculator)
        self._family = family
        self._elements = frozenset(spec.elements or family.elements or ())
        self._energy, self._distance = ENERGY_UNITS[spec.energy_unit], DISTANCE_UNITS[spec.distance_unit]
        implemented = {'energy', *calculator.implemented_properties}  # the catalogue says what calculators may have
        self.properties = frozenset(name for name in self.properties if _ASE_NAMES.get(name, name) in implemented)
        self.libraries = (family.distribution, 'torch') if family.distribution else ()

    @classmethod
    def load(cls, spec: ModelSpec, directory: Path, settings: Settings) -> AseBackend:
        """Import the class, make sure that it is a calculator, and make one with file, device and precision."""
        family = _family_of(spec)
        path = _model_path(spec, family, directory)  # before anything of the package is imported
        factory = _import_calculator(family.calculator, spec.backend)
        device, notes = _device(family, settings, spec.backend)
        keywords, loader_keywords = _keywords(spec, family, settings, device)
        try:
            if path:
                loader = pkgutil.resolve_name(family.model_loader) if family.model_loader else str
                keywords[family.model_argument] = loader(path, **loader_keywords)
            calculator = factory(**keywords)
        except Exception as exception:  # a calculator may raise anything for a wrong keyword or file
            raise WorkerError(
                'ERROR_MODEL_UNSUPPORTED', f'{family.calculator}: {type(exception).__name__}: {exception}'
            ) from exception
        backend = cls(calculator, family, spec)
        backend.notes = notes
        backend.device = device or 'cpu'
        backend.precision = settings.precision if family.precision_argument else family.precision
        backend.num_threads = _set_threads(settings.num_threads)
        return backend

    @classmethod
    def inspect(cls, path: Path) -> FileFacts:
        """Return that the file needs trust: the package's own loader reads it, and those that we know unpickle."""
        return FileFacts(
            needs_trust=f'{path.name} is read by the package of its calculator, which may run what is in the file'
        )

    def batch_atoms(self) -> int:
        """Return few atoms: batches gain nothing here, and a killed job then loses little."""
        return 256

    def evaluate(self, frames: Frames, request: frozenset[str]) -> Evaluation:
        """Evaluate frame by frame, as the interface of ASE wants it."""
        names = {name: _ASE_NAMES.get(name, name) for name in sorted(request)}
        missing = [name for name, of_ase in names.items() if of_ase not in self._calculator.implemented_properties]
        if missing:
            raise WorkerError(
                'ERROR_PROPERTY_UNAVAILABLE',
                f'{type(self._calculator).__name__} has no {", ".join(missing)}: leave it out of `properties`',
            )
        energies = np.zeros(len(frames))
        arrays = {name: np.full(_shape(name, frames), np.nan) for name in names}
        for index, atoms in enumerate(frames):
            crystal = bool(atoms.pbc.all())
            wanted = [name for name in names if name != 'stress' or crystal]
            rows = slice(frames.offsets[index], frames.offsets[index + 1])
            try:
                energies[index], values = self._compute(atoms, wanted)
                for name, value in values.items():
                    arrays[name][index if name == 'stress' else rows] = value
            except Exception as exception:
                raise _failure(exception, atoms, alone=len(frames) == 1) from exception
        return Evaluation(
            energies * self._energy, **{name: array * self._factor(name) for name, array in arrays.items()}
        )

    def hessians(self, frames: Frames) -> FloatArray | None:
        """Return what the calculator has of itself, frame by frame; NaN where it refuses a structure.

        MACE and AIMNet2 differentiate their forces once for each coordinate. On one core, for MACE this took as long
        as central differences of the same calculator for 3 atoms, and a sixth for 26; both agree to 1e-9
        eV/angstrom^2. In single precision the differences are fifty times as far off.
        """
        if not self._family.hessian:
            return None
        parts = []
        for atoms in frames:
            try:
                self._place(atoms)
                matrix = np.asarray(self._calculator.get_hessian(atoms), dtype=np.float64)
                matrix = matrix.reshape(3 * len(atoms), 3 * len(atoms))
            except NotImplementedError:  # not of this kind of model or structure
                matrix = np.full((3 * len(atoms), 3 * len(atoms)), np.nan)
            except Exception as exception:
                raise _failure(exception, atoms, alone=len(frames) == 1) from exception
            parts.append(np.ravel((matrix + matrix.T) / 2) * (self._energy / self._distance**2))
        return np.concatenate([np.empty(0), *parts])

    def _compute(self, atoms: Any, names: list[str]) -> tuple[float, dict[str, Any]]:
        """Return the energy and the other quantities of one structure, in the calculator's units."""
        from ase.calculators.calculator import all_changes

        self._place(atoms)
        if self._computes_at_once:
            # All at once and always anew: asked for one after the other, several compute all of it each time; and
            # whether a structure is still the previous one is for nobody to guess.
            self._calculator.reset()
            self._calculator.calculate(atoms, ['energy', *(_ASE_NAMES.get(name, name) for name in names)], all_changes)
        return atoms.get_potential_energy(), {name: _read(atoms, name) for name in names}

    def _place(self, atoms: Any) -> None:
        """Give a structure to the calculator, as that wants it.

        :raises FrameError: if the model does not know one of its elements
        """
        unknown = sorted(set(atoms.symbols) - self._elements) if self._elements else []
        if unknown:
            message = f'contains {", ".join(unknown)}, which {self._family.title} was not trained for'
            raise FrameError(FrameStatus.UNSUPPORTED_ELEMENT, message)
        atoms.positions /= self._distance
        atoms.cell /= self._distance
        if self._family.needs_cell:
            atoms.cell = atoms.cell.complete()
        atoms.calc = self._calculator  # some check the elements here

    def _factor(self, name: str) -> float:
        """Return what turns the calculator's unit of a quantity into ours."""
        factors = {
            'forces': self._energy / self._distance,
            'stress': self._energy / self._distance**3,
            'atomic_energies': self._energy,
        }
        return factors.get(name, 1.0)


def _failure(exception: Exception, atoms: Any, alone: bool) -> Exception:
    """Return what to raise for an exception of a calculator; in a batch it may be that of one structure."""
    if isinstance(exception, FrameError):
        return exception
    if out_of_memory(exception):
        return OutOfMemory(f'{len(atoms)} atoms: {exception}')
    if not alone:
        return exception
    return FrameError(FrameStatus.BACKEND_FAILED, f'{type(exception).__name__}: {exception}')


def _shape(name: str, frames: Frames) -> tuple[int, ...]:
    return {'stress': (len(frames), 3, 3), 'forces': (frames.n_atoms, 3)}.get(name, (frames.n_atoms,))


def _read(atoms: Any, name: str) -> Any:
    if name == 'stress':
        return atoms.get_stress(voigt=False)
    return {
        'forces': atoms.get_forces,
        'atomic_energies': atoms.get_potential_energies,
        'charges': atoms.get_charges,
    }[name]()


def _family_of(spec: ModelSpec) -> AseFamily:
    """Return the row of a family, or what the options say of a calculator that has none."""
    family = FAMILIES.get(spec.backend)
    options = {name: value for name, value in spec.options.items() if name != 'kwargs'}
    unknown = sorted(set(options) - (set(_OWN_OPTIONS) if family is None else set()))
    if unknown:
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED',
            f'the backend {spec.backend} has no option {", ".join(unknown)}: leave it out'
            + (f', or choose of {", ".join(("kwargs", *_OWN_OPTIONS))}' if family is None else ''),
        )
    if family is not None:
        return family
    wrong = [name for name, value in options.items() if not isinstance(value, str)]
    if wrong:
        raise WorkerError('ERROR_MODEL_UNSUPPORTED', f'the option {wrong[0]} has to be a text: the name of a keyword')
    return dataclasses.replace(_ANY, calculator=options.pop('calculator', ''), **options)


def _model_path(spec: ModelSpec, family: AseFamily, directory: Path) -> str:
    """Return the path of the parameter file, or of the directory of several; empty where there is none."""
    if not spec.files:
        if spec.backend in FAMILIES and not family.default_model:
            raise WorkerError(
                'ERROR_MODEL_UNSUPPORTED',
                f'{family.title} has no model in its package: give the parameter file ({family.files})',
            )
        return ''
    if not family.model_argument:
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED',
            f'{spec.name} has parameter files, but nothing says which keyword of {family.calculator} takes them: '
            'give the option `model_argument`',
        )
    if not spec.trusted:
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED',
            f'{family.calculator} reads {next(iter(spec.files))} with its own package, which may run what is in the '
            'file: import the model again with `--trust` if you trust whoever made it',
        )
    if len(spec.files) > 1 and spec.backend in FAMILIES:
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED',
            f'a model of {family.title} is one file, {spec.name} has {len(spec.files)}: import that file alone',
        )
    return str(directory / (os.path.commonpath(spec.files) if len(spec.files) > 1 else next(iter(spec.files))))


def _keywords(
    spec: ModelSpec, family: AseFamily, settings: Settings, device: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the keyword arguments of the calculator, and those of the loader of its file."""
    given = dict(spec.options.get('kwargs') or {})
    ours = {family.model_argument, family.precision_argument, family.device_argument} - {''}
    taken = sorted(ours & set(given))
    if taken:
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED',
            f'the keyword argument {", ".join(taken)} of {family.calculator} follows from the parameter file, and '
            'from `device` and `precision` of the job: leave it out of the model',
        )
    keywords: dict[str, Any] = {**family.kwargs, **given}
    loader: dict[str, Any] = {}
    if family.precision_argument:
        keywords[family.precision_argument] = FLOAT_TYPES[settings.precision]
    if family.device_argument and device:
        target = loader if family.device_to_loader else keywords
        target[family.device_argument] = device
    return keywords, loader


def _device(family: AseFamily, settings: Settings, backend: str) -> tuple[str, tuple[str, ...]]:
    """Return the device to give to the calculator, empty for its own default, with a remark for the results."""
    if not family.device_argument:
        notes = ('the ase backend leaves the device to the calculator: give it in its keyword arguments',)
        return '', notes if settings.device.startswith('cuda') else ()
    if 'torch' in sys.modules:  # the calculator's module has imported it
        return choose_device(settings, backend)
    return settings.device, ()


def _set_threads(number: int | None) -> int | None:
    """Set the threads of torch, if the calculator has brought it along; return how many it uses."""
    torch = sys.modules.get('torch')
    if torch is None:
        return None
    if number is not None:
        torch.set_num_threads(number)
    return int(torch.get_num_threads())


def _import_calculator(path: str, backend: str) -> Any:
    """Import a class by its path; only a calculator is returned, so that no other callable is ever called."""
    from ase.calculators.abc import GetPropertiesMixin
    from ase.calculators.calculator import BaseCalculator

    module, _, name = path.rpartition('.')
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as exception:  # a package that does not suit the installed torch may raise anything
        remedy = f'with `aiida-mlpotential backends install {backend}`' if backend in FAMILIES else 'on the computer'
        raise WorkerError(
            'ERROR_BACKEND_MISSING',
            f'cannot import the calculator {path!r} ({exception}): install its package {remedy}',
        ) from exception
    if not (isinstance(found, type) and issubclass(found, (BaseCalculator, GetPropertiesMixin))):
        raise WorkerError('ERROR_MODEL_UNSUPPORTED', f'{path} is not the class of an ASE calculator')
    return found
