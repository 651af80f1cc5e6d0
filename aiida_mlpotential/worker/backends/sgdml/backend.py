"""The sGDML backend: checks the file and the order of the atoms, and lets the library predict whole batches.

:source: Chmiela, Sauceda, Müller, Tkatchenko, Nat. Commun. 9 (2018) 3887, doi:10.1038/s41467-018-06169-2
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...checks import Rules, explain
from ...errors import FrameError, FrameStatus, WorkerError
from ...frames import Frames
from ...schema import ModelSpec
from ...units import DISTANCE_UNITS, ENERGY_UNITS
from ..base import Backend, Evaluation, FileFacts, ModelFileError, Settings
from .files import SgdmlModel, distance_unit, energy_unit, read_model
from .order import AtomOrder, OrderError


class SgdmlBackend(Backend):
    """An sGDML model: one molecule, its atoms in one order.

    The library computes in double precision on the CPU, in one process. Its torch variant is not used: that rounds
    positions to single precision, and is slower on a CPU. It has no second derivatives: Hessians are differences of
    its forces, which are smooth and in double precision.
    """

    name: ClassVar[str] = 'sgdml'
    fixed_atom_order = True

    def __init__(self, model: SgdmlModel, spec: ModelSpec, settings: Settings) -> None:
        """Hand a checked model to the library."""
        self._energy, self._distance = ENERGY_UNITS[spec.energy_unit], DISTANCE_UNITS[spec.distance_unit]
        self._model = model
        self._order = AtomOrder(model, self._distance)
        _check_unit(self._order, spec.distance_unit)
        self._reorder = settings.reorder_atoms
        self._predictor = _make_predictor(model)
        self.num_threads = settings.num_threads  # set in the environment before numpy was loaded
        self.notes = _choose_cpu(settings)
        if model.relative:
            self.notes += (_RELATIVE,)

    @classmethod
    def load(cls, spec: ModelSpec, directory: Path, settings: Settings) -> SgdmlBackend:
        """Read and check the file, then make the library's predictor."""
        if len(spec.files) != 1:
            message = f'an sGDML model is one .npz file, {spec.name} has {len(spec.files)}'
            raise WorkerError('ERROR_MODEL_UNSUPPORTED', message)
        name = next(iter(spec.files))
        try:
            model = read_model(directory / name)
        except FileNotFoundError:
            raise WorkerError('ERROR_MODEL_MISSING', f'{name} is not in the work directory') from None
        except ModelFileError as exception:
            raise WorkerError('ERROR_MODEL_CORRUPT', f'{name}: {exception}') from exception
        order = spec.options.get('atom_order')
        symbols = _symbols(model)
        if (order is not None and list(order) != model.numbers.tolist()) or (
            spec.elements is not None and set(spec.elements) != set(symbols)
        ):
            message = f'{name} is for the atoms {" ".join(symbols)}, not those the model node names: import it again'
            raise WorkerError('ERROR_MODEL_UNSUPPORTED', message)
        return cls(model, spec, settings)

    @classmethod
    def inspect(cls, path: Path) -> FileFacts:
        """Return the atoms, the units and the origin of a model file."""
        model = read_model(path)
        unit = distance_unit(model)
        remarks = [f'sGDML model of {len(model.numbers)} atoms from {len(model.descriptors)} training points']
        names = {'dataset_name': 'data set', 'dataset_theory': 'level of theory', 'code_version': 'sGDML version'}
        remarks += [f'{what}: {model.texts[key]}' for key, what in names.items() if model.texts[key]]
        for key, found in (('e_unit', energy_unit(model)), ('r_unit', unit)):
            if found is None:
                stated = f'is {model.texts[key]!r}, which is unknown' if model.texts[key] else 'is missing'
                option = '--energy-unit' if key == 'e_unit' else '--distance-unit'
                remarks.append(f'{key} {stated} in the file: state it with `{option}` unless it is the default')
        wrong = AtomOrder(model, DISTANCE_UNITS[unit or 'angstrom']).wrong_unit()
        if wrong is not None:
            remarks.append(f'the training points cannot be in {unit or "angstrom"}: state `--distance-unit`')
        if model.relative:
            remarks.append(_RELATIVE)
        return FileFacts(
            elements=tuple(dict.fromkeys(_symbols(model))),
            energy_unit=energy_unit(model),
            distance_unit=unit,
            options={'atom_order': model.numbers.tolist()},
            remarks=tuple(remarks),
        )

    def batch_atoms(self) -> int:
        """Return enough atoms for the checks to cost nothing; the library goes through the batch one by one."""
        return 4096

    def evaluate(self, frames: Frames, request: frozenset[str]) -> Evaluation:
        """Evaluate a batch; forces are always there, they cost nothing."""
        self._check(frames)
        shape = (len(frames), len(self._model.numbers))
        positions = frames.positions.reshape(*shape, 3)
        orders = np.broadcast_to(np.arange(shape[1]), shape)
        try:
            if self._reorder:
                orders = self._order.assign(frames.numbers.reshape(shape).astype(np.int64), positions)
            else:
                self._order.check(positions)
        except OrderError as exception:
            message = exception.message if len(frames) == 1 else f'structure {exception.index}: {exception.message}'
            raise FrameError(FrameStatus.ATOM_ORDER, message) from None
        placed = np.take_along_axis(positions, orders[..., None], axis=1) / self._distance
        energies, native = self._predictor.predict(placed.reshape(len(frames), -1))
        forces = np.empty((*shape, 3))
        np.put_along_axis(forces, orders[..., None], native.reshape(*shape, 3), axis=1)
        return Evaluation(
            energies=np.asarray(energies, dtype=np.float64) * self._energy,
            forces=forces.reshape(-1, 3) * (self._energy / self._distance) if 'forces' in request else None,
        )

    def details(self) -> Mapping[str, Any]:
        """Return the atoms of the model and the number of its training points."""
        return {'atom_order': self._model.numbers.tolist(), 'training_points': len(self._model.descriptors)}

    def _check(self, frames: Frames) -> None:
        """Raise for the first frame that is periodic or has not the atoms of the model."""
        order = tuple(int(number) for number in self._model.numbers)
        for periodic in np.flatnonzero(frames.pbc.any(axis=1)):
            message = 'the structure is periodic, and the model is of one molecule: take its periodicity away'
            raise FrameError(FrameStatus.BACKEND_FAILED, f'{_which(frames, int(periodic))}{message}')
        wanted = np.sort(order) if self._reorder else np.array(order)
        for index, (begin, end) in enumerate(zip(frames.offsets, frames.offsets[1:], strict=False)):
            found = np.sort(frames.numbers[begin:end]) if self._reorder else frames.numbers[begin:end]
            if not np.array_equal(found, wanted):
                message = explain(frames, index, FrameStatus.ATOM_ORDER, Rules(atom_order=order))
                raise FrameError(FrameStatus.ATOM_ORDER, f'{_which(frames, index)}{message}')


_RELATIVE = 'the model was trained without energies: its energies are relative to an arbitrary zero'


def _which(frames: Frames, index: int) -> str:
    return f'structure {index}: ' if len(frames) > 1 else ''


def _symbols(model: SgdmlModel) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[number] for number in model.numbers]


def import_predictor() -> Any:
    """Return the library's class ``GDMLPredict``.

    :raises WorkerError: if it cannot be imported, with the remedy
    """
    logger = logging.getLoggerClass()
    try:
        import sgdml  # noqa: F401 - for its side effect, before anything else of the library is loaded

        logging.setLoggerClass(logger)  # the library puts its own in place, for everybody, torch included
        from sgdml.predict import GDMLPredict
    except ImportError as exception:
        raise WorkerError(
            'ERROR_BACKEND_MISSING',
            f'sgdml cannot be imported ({exception}): run `aiida-mlpotential backends install sgdml`, '
            "or install it in the code's environment",
        ) from exception
    finally:
        logging.setLoggerClass(logger)
    return GDMLPredict


def _make_predictor(model: SgdmlModel) -> Any:
    """Return the predictor of the library: no further processes, nothing written, and the file is not read again."""
    predictor = import_predictor()
    try:
        # prepare_parallel() is not called: it starts processes and writes its timings beside the library.
        return predictor(dict(model.arrays), max_processes=1)
    except SystemExit as exception:  # this is how the library says that it does not like a model
        raise WorkerError(
            'ERROR_MODEL_CORRUPT', 'the library refuses the model: train it again with the installed version of sgdml'
        ) from exception


def _choose_cpu(settings: Settings) -> tuple[str, ...]:
    """Return a remark if a GPU was asked for and the CPU is allowed instead."""
    if not settings.device.startswith('cuda'):
        return ()
    message = f'{settings.device} was asked for, but sGDML computes on the CPU'
    if settings.device_fallback:
        return (message,)
    raise WorkerError('ERROR_DEVICE_MISSING', f'{message}: ask for the CPU, or set device_fallback')


def _check_unit(order: AtomOrder, unit: str) -> None:
    wrong = order.wrong_unit()
    if wrong is not None:
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED',
            f'with distances in {unit} the nearest atoms of the training set are {wrong:.2f} bond lengths apart, '
            'which cannot be: import the model again with the right `--distance-unit`',
        )
