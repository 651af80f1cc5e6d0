"""The SchNetPack backend: loads a ``best_model``, chooses the device, and hands batches to the engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import WorkerError
from ...frames import FloatArray, Frames
from ...schema import ModelSpec
from ...units import DISTANCE_UNITS, ENERGY_UNITS
from ..base import Backend, Evaluation, FileFacts, Settings
from ..torch_device import choose_device, import_torch, memory_errors
from .files import inspect_file
from .library import import_schnetpack, load_model

if TYPE_CHECKING:
    from .engine import Engine

#: Atoms in a batch: more do not fit the processor's cache, fewer do not keep it busy.
_BATCH_ATOMS = {'cpu': 512, 'cuda': 16384}


class SchNetPackBackend(Backend):
    """A network of SchNetPack 2: SchNet, PaiNN, SO3net or FieldSchNet.

    Options: ``energy_key`` names the output that is the energy, ``cutoff`` is how far a model looks that does not say
    so itself, ``total_charge`` and ``spin_multiplicity`` are those of all structures, for a model that needs them.
    """

    name: ClassVar[str] = 'schnetpack'

    def __init__(self, engine: Engine, spec: ModelSpec, device: str, precision: str, notes: tuple[str, ...]) -> None:
        import torch

        self._engine = engine
        self._distance = DISTANCE_UNITS[spec.distance_unit]
        self.device = device
        self.precision = precision
        self.num_threads = torch.get_num_threads()
        self.notes = notes

    @classmethod
    def inspect(cls, path: Path) -> FileFacts:
        """Return elements and cutoff of a ``best_model``; its units are in no file."""
        return inspect_file(path)

    @classmethod
    def load(cls, spec: ModelSpec, directory: Path, settings: Settings) -> SchNetPackBackend:
        """Load the network and put it on the device."""
        if len(spec.files) != 1:
            raise WorkerError(
                'ERROR_MODEL_UNSUPPORTED', f'a SchNetPack model is one file, {spec.name} has {len(spec.files)}'
            )
        torch = import_torch('schnetpack')
        if settings.num_threads is not None:  # before the first tensor: threads that fight cost a factor of a hundred
            torch.set_num_threads(settings.num_threads)
        device, notes = choose_device(settings, 'schnetpack')
        model, remarks = load_model(directory / next(iter(spec.files)), spec.trusted)
        from .engine import Engine, Units

        units = Units(ENERGY_UNITS[spec.energy_unit], DISTANCE_UNITS[spec.distance_unit])
        engine = Engine(import_schnetpack(), model, units, device, settings.precision, spec.options)
        if spec.elements is None:
            remarks = (*remarks, 'the elements of the model are not known: any other gets a meaningless number')
        return cls(engine, spec, device, settings.precision, (*notes, *remarks))

    def batch_atoms(self) -> int:
        """Return enough atoms to keep the device busy, few enough to see progress and lose little."""
        return _BATCH_ATOMS[self.device.partition(':')[0]]

    def evaluate(self, frames: Frames, request: frozenset[str]) -> Evaluation:
        """Evaluate a batch."""
        with memory_errors(self.device):
            return self._engine.evaluate(frames, request)

    def hessians(self, frames: Frames) -> FloatArray:
        """Return analytic Hessians, in either precision.

        On one core they took a third to a fifth of the time of central differences, which approach them with the
        square of the step. PaiNN takes ``sqrt(v^2 + 1e-8)`` of vectors: where symmetry makes one vanish, as on the
        carbon of methane, the energy of a model may bend by thousands of eV/angstrom^2 within 1e-4 angstrom. That is
        in the model, and only much longer steps do not see it.
        """
        with memory_errors(self.device):
            return self._engine.hessians(frames)

    def details(self) -> Mapping[str, Any]:
        """Return the cutoff in angstrom, and which output is the energy."""
        return {'cutoff': self._engine.cutoff * self._distance, 'energy_key': self._engine.energy_key}
