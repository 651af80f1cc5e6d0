"""The TorchANI backend: loads the canonical parameters, chooses the device, and hands batches to the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import OutOfMemory, WorkerError
from ...frames import Frames
from ...memory import available_memory
from ...schema import ModelSpec
from ..base import Backend, Evaluation, Settings
from ..torch_device import choose_device, free_memory, import_torch, out_of_memory
from .parameters import AniParameters, ParametersError

if TYPE_CHECKING:
    from .engine import AniEngine

#: Atoms in a batch; the engine cuts it further, to what its processor likes.
_BATCH_ATOMS = {'cpu': 4096, 'cuda': 131072}
#: From so many atoms on a batch is checked against the memory before it is tried; smaller ones always fit.
_LARGE = 8192


class TorchAniBackend(Backend):
    """An ANI ensemble in the canonical parameter file."""

    name: ClassVar[str] = 'torchani'
    properties: ClassVar[frozenset[str]] = frozenset({'energy', 'forces', 'stress', 'forces_std'})
    libraries: ClassVar[tuple[str, ...]] = ('torch', 'torchani')

    def __init__(self, engine: AniEngine, device: str, settings: Settings, notes: tuple[str, ...] = ()) -> None:
        import torch

        self._engine = engine
        self.device = device
        self.n_members = engine.members
        self.num_threads = torch.get_num_threads()
        self.precision = settings.precision
        self.notes = notes

    @classmethod
    def load(cls, spec: ModelSpec, directory: Path, settings: Settings) -> TorchAniBackend:
        """Read the parameters and put them on the device."""
        torch = import_torch('torchani')
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        device, notes = choose_device(settings)
        parameters = _read(spec, directory)
        from .engine import AniEngine

        engine = AniEngine(parameters, device, settings.precision)
        return cls(engine, device, settings, notes)

    def batch_atoms(self) -> int:
        """Return enough atoms to keep the device busy, few enough to see progress and lose little."""
        return _BATCH_ATOMS[self.device.partition(':')[0]]

    def batch_key(self, frames: Frames) -> npt.NDArray[Any]:
        """Return which elements each frame has: the fewer in a batch, the shorter its atomic environment vectors."""
        bits = np.left_shift(np.int64(1), frames.numbers.astype(np.int64) % 63)
        nonempty = frames.counts > 0
        keys = np.zeros(len(frames), dtype=np.int64)
        keys[nonempty] = np.bitwise_or.reduceat(bits, frames.offsets[:-1][nonempty]) if len(bits) else 0
        return keys

    def evaluate(self, frames: Frames, request: frozenset[str]) -> Evaluation:
        """Evaluate a batch; members are always there, they cost nothing."""
        if frames.n_atoms >= _LARGE and self.device == 'cpu':
            needed, available = self._engine.estimate_bytes(frames, request), available_memory()
            if available is not None and needed > available:
                raise OutOfMemory(f'about {needed >> 20} MB are needed, {available >> 20} MB are there')
        try:
            result = self._engine.evaluate(frames, request)
        except RuntimeError as exception:  # torch has a type for the GPU only
            if not out_of_memory(exception):
                raise
            free_memory(self.device)
            raise OutOfMemory('torch could not allocate what it needs') from None
        return result if self.n_members > 1 else dataclasses.replace(result, member_energies=None)

    def details(self) -> Mapping[str, Any]:
        """Return the cutoff."""
        return {'cutoff': self._engine.cutoff}


def _read(spec: ModelSpec, directory: Path) -> AniParameters:
    if len(spec.files) != 1:
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED', f'an ANI model is one parameter file, {spec.name} has {len(spec.files)}'
        )
    if (spec.energy_unit, spec.distance_unit) != ('Hartree', 'angstrom'):
        raise WorkerError(
            'ERROR_MODEL_UNSUPPORTED',
            f'ANI parameters are in Hartree and angstrom, not {spec.energy_unit} and {spec.distance_unit}',
        )
    name = next(iter(spec.files))
    try:
        parameters = AniParameters.read(directory / name)
    except ParametersError as exception:
        raise WorkerError('ERROR_MODEL_CORRUPT', f'{name}: {exception}') from exception
    if spec.elements is not None and set(spec.elements) != set(parameters.symbols):
        raise WorkerError(
            'ERROR_MODEL_CORRUPT', f'{name} is for {", ".join(parameters.symbols)}, not {", ".join(spec.elements)}'
        )
    return parameters
