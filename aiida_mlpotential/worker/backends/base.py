"""The contract of a backend: batches of frames in, energies and their derivatives out, in eV and angstrom."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy.typing as npt

from ..frames import FloatArray, Frames
from ..schema import ModelSpec


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to compute: what a backend needs of the job's parameters."""

    device: str = ''
    device_fallback: bool = False
    precision: str = 'single'
    num_threads: int | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of a batch of n frames with A atoms and m members: eV, eV/angstrom, eV/angstrom^3, double precision.

    :ivar energies: ``(n,)``, the mean over the members
    :ivar member_energies: ``(m, n)``, or ``None`` for a model without members
    :ivar forces: ``(A, 3)``
    :ivar stress: ``(n, 3, 3)``, dE/dstrain over volume; NaN for frames that are not periodic in three directions
    :ivar forces_std: ``(A, 3)``, sample standard deviation over the members (ddof = 1)
    """

    energies: FloatArray
    member_energies: FloatArray | None = None
    forces: FloatArray | None = None
    stress: FloatArray | None = None
    forces_std: FloatArray | None = None


class Backend(abc.ABC):
    """A loaded model.

    A subclass imports its library inside its own methods, converts units at its edge, and raises
    :class:`~..errors.WorkerError` when the model, the library or the device is not usable,
    :class:`~..errors.OutOfMemory` when a batch does not fit, :class:`~..errors.FrameError` when a batch of one frame
    cannot be evaluated. ``testing.check_backend`` checks all that this class promises.
    """

    #: Name in the registry, and in ``ModelSpec.backend``.
    name: ClassVar[str]
    #: Properties that it can compute beside the energy.
    properties: ClassVar[frozenset[str]]
    #: Distribution whose version is recorded, beside those of numpy and ase.
    libraries: ClassVar[tuple[str, ...]] = ()

    #: Device that is used, such as ``cpu`` or ``cuda:0``.
    device: str = 'cpu'
    #: Number of members; 1 for a model without members.
    n_members: int = 1
    #: Threads that are used, where the library tells.
    num_threads: int | None = None
    #: Float type of the model: ``single`` or ``double``.
    precision: str = 'double'
    #: Remarks for the results, such as that the CPU replaced an absent GPU.
    notes: tuple[str, ...] = ()

    @classmethod
    @abc.abstractmethod
    def load(cls, spec: ModelSpec, directory: Path, settings: Settings) -> Backend:
        """Load a model whose files lie in ``directory``."""

    @abc.abstractmethod
    def evaluate(self, frames: Frames, request: frozenset[str]) -> Evaluation:
        """Evaluate a batch.

        :param frames: valid frames: finite, of known elements, no two atoms on top of each other
        :param request: property names, a subset of :attr:`properties`
        """

    def batch_atoms(self) -> int:
        """Return how many atoms a batch should have on this device, when nobody says otherwise."""
        return 2048

    def batch_key(self, frames: Frames) -> npt.NDArray[Any] | None:
        """Return a sortable key for each frame, ``(n,)``, so that like frames are neighbours; ``None``: all alike."""
        return None

    def details(self) -> Mapping[str, Any]:
        """Return what else the results should record of this model, as JSON values."""
        return {}
