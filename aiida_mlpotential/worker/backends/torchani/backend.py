"""The TorchANI backend: loads a model, chooses the device, hands batches to an engine, and converts its units."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import OutOfMemory, WorkerError
from ...frames import FloatArray, Frames
from ...memory import available_memory
from ...schema import ModelSpec
from ...units import DISTANCE_UNITS, ENERGY_UNITS
from ..base import Backend, Evaluation, FileFacts, Settings
from ..torch_device import choose_device, import_torch, memory_errors
from .inspection import RELATIVE, inspect_file, is_canonical
from .parameters import AniParameters, ParametersError

if TYPE_CHECKING:
    from .loading import Engine, Loaded

#: Atoms in a batch; the engine cuts it further, to what its processor likes.
_BATCH_ATOMS = {'cpu': 4096, 'cuda': 131072}
#: From so many atoms on a batch is checked against the memory before it is tried; smaller ones always fit.
_LARGE = 8192


class TorchAniBackend(Backend):
    """An ANI ensemble in the canonical parameter file, or a model trained with torchani in any form it is saved in."""

    name: ClassVar[str] = 'torchani'

    def __init__(
        self, loaded: Loaded, spec: ModelSpec, device: str, settings: Settings, notes: tuple[str, ...]
    ) -> None:
        import torch

        self._engine: Engine = loaded.engine
        self._relative = loaded.relative
        # the engines take their models to be in Hartree and angstrom, as torchani's are
        self._energy_factor = ENERGY_UNITS[spec.energy_unit] / ENERGY_UNITS['Hartree']
        self._distance_factor = DISTANCE_UNITS[spec.distance_unit]
        self.elements = tuple(loaded.symbols) if loaded.symbols else None
        self.device = device
        self.n_members = loaded.engine.members
        self.num_threads = torch.get_num_threads()
        self.precision = settings.precision
        self.notes = notes + loaded.notes + ((RELATIVE,) if loaded.relative else ())
        if not loaded.tells_atoms:
            self.properties = self.properties - {'atomic_energies'}

    @classmethod
    def load(cls, spec: ModelSpec, directory: Path, settings: Settings) -> TorchAniBackend:
        """Read the model and put it on the device."""
        torch = import_torch('torchani')
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        device, notes = choose_device(settings)
        if len(spec.files) != 1:
            raise WorkerError(
                'ERROR_MODEL_UNSUPPORTED', f'a TorchANI model is one file, {spec.name} has {len(spec.files)}'
            )
        path = directory / next(iter(spec.files))
        if is_canonical(path):
            loaded = _load_canonical(path, spec, device, settings.precision)
        else:
            _import_torchani()
            from .loading import load_custom

            loaded = load_custom(path, spec, device, settings.precision)
        return cls(loaded, spec, device, settings, notes)

    @classmethod
    def inspect(cls, path: Path) -> FileFacts:
        """Return form, elements, members and cutoff of a file, and whether it needs trust; torch is not needed."""
        return inspect_file(path)

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
        missing = request - self.properties - {'member_forces'}
        if missing:
            raise WorkerError('ERROR_PROPERTY_UNAVAILABLE', f'this model does not tell {", ".join(sorted(missing))}')
        frames = self._scaled(frames)
        if frames.n_atoms >= _LARGE and self.device == 'cpu':
            needed, available = self._engine.estimate_bytes(frames, request), available_memory()
            if available is not None and needed > available:
                raise OutOfMemory(f'about {needed >> 20} MB are needed, {available >> 20} MB are there')
        with memory_errors(self.device):
            result = self._engine.evaluate(frames, request)
        return self._converted(result if self.n_members > 1 else dataclasses.replace(result, member_energies=None))

    def hessians(self, frames: Frames) -> FloatArray | None:
        """Return analytic Hessians, in either precision; ``None`` for a model that can only be asked as a whole.

        Written out by hand for models of the ANI papers: with eight members on one core they take a third of the time
        of central differences for molecules of 8 atoms, a sixth for 26, and a fiftieth for a crystal of 375. In double
        precision both agree to 1e-6 eV/angstrom^2 unless the argument of an activation changes its sign within the
        differences; in single precision they are 5e-5 eV/angstrom^2 off, and differences 0.1 to 1. Other models of
        torchani are differentiated by torch, once for each coordinate, which takes as long as differences.
        """
        return self._second(frames, each=False)

    def member_hessians(self, frames: Frames) -> FloatArray | None:
        """Return analytic Hessians of all members, which take no longer than their mean in the ANI papers' models."""
        return self._second(frames, each=True)

    def _second(self, frames: Frames, each: bool) -> FloatArray | None:
        frames = self._scaled(frames)
        with memory_errors(self.device):
            result = self._engine.hessians(frames, each)
        return None if result is None else result * (self._energy_factor / self._distance_factor**2)

    def _scaled(self, frames: Frames) -> Frames:
        """Return frames in the unit of length of the model."""
        if self._distance_factor == 1.0:
            return frames
        return dataclasses.replace(
            frames, positions=frames.positions / self._distance_factor, cells=frames.cells / self._distance_factor
        )

    def details(self) -> Mapping[str, Any]:
        """Return the cutoff, where the model tells it, and whether its energies lack self energies."""
        details: dict[str, Any] = {}
        if self._engine.cutoff is not None:
            details['cutoff'] = self._engine.cutoff * self._distance_factor
        return details | ({'energies': 'relative'} if self._relative else {})

    def _converted(self, result: Evaluation) -> Evaluation:
        """Return results of a model in the units that it really has."""
        energy, distance = self._energy_factor, self._distance_factor
        if energy == 1.0 and distance == 1.0:
            return result
        factors = {
            **dict.fromkeys(('energies', 'member_energies', 'atomic_energies'), energy),
            **dict.fromkeys(('forces', 'forces_std', 'member_forces'), energy / distance),
            'stress': energy / distance**3,
        }
        values = {name: getattr(result, name) for name in factors}
        return dataclasses.replace(
            result, **{name: values[name] * factor for name, factor in factors.items() if values[name] is not None}
        )


def _load_canonical(path: Path, spec: ModelSpec, device: str, precision: str) -> Loaded:
    """Load the file of parameters that the package writes itself, for which torchani is not needed."""
    from .engine import AniEngine
    from .loading import Loaded

    name = path.name
    try:
        parameters = AniParameters.read(path)
    except ParametersError as exception:
        raise WorkerError('ERROR_MODEL_CORRUPT', f'{name}: {exception}') from exception
    if spec.elements is not None and set(spec.elements) != set(parameters.symbols):
        raise WorkerError(
            'ERROR_MODEL_CORRUPT', f'{name} is for {", ".join(parameters.symbols)}, not {", ".join(spec.elements)}'
        )
    relative = not np.any(parameters.self_energies)
    return Loaded(AniEngine(parameters, device, precision), parameters.symbols, relative)


def _import_torchani() -> None:
    try:
        import torchani  # noqa: F401
    except ImportError as exception:
        raise WorkerError(
            'ERROR_BACKEND_MISSING',
            f'torchani cannot be imported ({exception}): run `aiida-mlpotential backends install torchani`, '
            "or install it in the code's environment",
        ) from exception
