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
from .catalogue import BACKENDS


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to compute: what a backend needs of the job's parameters."""

    device: str = ''
    device_fallback: bool = False
    precision: str = 'single'
    num_threads: int | None = None
    reorder_atoms: bool = False


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of a batch of n frames with A atoms and m members: eV, eV/angstrom, eV/angstrom^3, double precision.

    :ivar energies: ``(n,)``, the mean over the members
    :ivar member_energies: ``(m, n)``, or ``None`` for a model without members
    :ivar forces: ``(A, 3)``
    :ivar stress: ``(n, 3, 3)``, dE/dstrain over volume; NaN for frames that are not periodic in three directions
    :ivar forces_std: ``(A, 3)``, sample standard deviation over the members (ddof = 1)
    :ivar atomic_energies: ``(A,)``, eV; they sum to the energy
    :ivar charges: ``(A,)``, elementary charges
    :ivar hessian: ``(sum of (3 N)^2,)``, eV/angstrom^2, the matrices of the frames one after the other, row by row
    :ivar member_forces: ``(m, A, 3)``; ``forces`` are their mean and ``forces_std`` their spread
    """

    energies: FloatArray
    member_energies: FloatArray | None = None
    forces: FloatArray | None = None
    stress: FloatArray | None = None
    forces_std: FloatArray | None = None
    atomic_energies: FloatArray | None = None
    charges: FloatArray | None = None
    hessian: FloatArray | None = None
    member_forces: FloatArray | None = None


@dataclasses.dataclass(frozen=True)
class FileFacts:
    """What a parameter file says of itself, read without running anything in it.

    :ivar elements: chemical symbols in the order of the model's own species; ``None`` where the file does not say
    :ivar ensemble_size: number of members
    :ivar energy_unit: key of ``units.ENERGY_UNITS``; ``None`` where the file does not say
    :ivar distance_unit: key of ``units.DISTANCE_UNITS``; ``None`` where the file does not say
    :ivar cutoff: in the distance unit of the model
    :ivar options: what the backend needs to know in addition, such as the atom order of an sGDML model; JSON values
    :ivar needs_trust: why the file cannot be loaded without running what is in it; empty where it can
    :ivar remarks: sentences for whoever imports the file
    :ivar files: of a directory, the files that the backend needs, by their path in it; ``None``: all
    :ivar elements_certain: False where the elements are a good guess, which the user may know better
    """

    elements: tuple[str, ...] | None = None
    ensemble_size: int = 1
    energy_unit: str | None = None
    distance_unit: str | None = None
    cutoff: float | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    needs_trust: str = ''
    remarks: tuple[str, ...] = ()
    files: tuple[str, ...] | None = None
    elements_certain: bool = True


class ModelFileError(ValueError):
    """A parameter file is damaged, hostile, or of another kind; the message says which and what to do."""


class Backend(abc.ABC):
    """A loaded model.

    A subclass imports its library inside its own methods, converts units at its edge, and raises
    :class:`~..errors.WorkerError` when the model, the library or the device is not usable,
    :class:`~..errors.OutOfMemory` when a batch does not fit, :class:`~..errors.FrameError` when a batch of one frame
    cannot be evaluated. ``testing.check_backend`` checks all that this class promises.
    """

    #: Name in the catalogue, and in ``ModelSpec.backend``.
    name: ClassVar[str]
    #: What may be asked for; a backend of the catalogue has it from there.
    properties: frozenset[str]
    #: Distributions whose versions are recorded, beside those of numpy and ase; from the catalogue, too.
    libraries: tuple[str, ...] = ()
    #: True where a model is for one molecule with its atoms in one order.
    fixed_atom_order: bool = False

    #: Device that is used, such as ``cpu`` or ``cuda:0``.
    device: str = 'cpu'
    #: Number of members; 1 for a model without members.
    n_members: int = 1
    #: Threads that are used, where the library tells.
    num_threads: int | None = None
    #: Float type of the model: ``single`` or ``double``.
    precision: str = 'double'
    #: Chemical symbols that the model itself names; ``None`` where it does not.
    elements: tuple[str, ...] | None = None
    #: Remarks for the results, such as that the CPU replaced an absent GPU.
    notes: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        entry = BACKENDS.get(cls.__dict__.get('name', ''))
        if entry is not None:
            cls.properties, cls.libraries = entry.properties, entry.libraries

    @classmethod
    @abc.abstractmethod
    def load(cls, spec: ModelSpec, directory: Path, settings: Settings) -> Backend:
        """Load a model whose files lie in ``directory``."""

    @classmethod
    def inspect(cls, path: Path) -> FileFacts:
        """Return what a parameter file or directory says of itself, without its library and without running it.

        :raises ModelFileError: if this backend cannot use the file
        """
        return FileFacts()

    @abc.abstractmethod
    def evaluate(self, frames: Frames, request: frozenset[str]) -> Evaluation:
        """Evaluate a batch.

        :param frames: valid frames: finite, of known elements, no two atoms on top of each other
        :param request: property names, a subset of :attr:`properties`; and ``member_forces``, which no user asks for
            but tasks do, of every model with two members or more that has ``forces_std``
        """

    def hessians(self, frames: Frames) -> FloatArray | None:
        """Return analytic second derivatives of the energy, or ``None`` where these come from differences of forces.

        :param frames: as :meth:`evaluate` takes them
        :return: symmetric, ``(sum of (3 N)^2,)``, eV/angstrom^2, laid out as ``Evaluation.hessian``; NaN for a frame
            whose second derivatives have to come from differences, though others have their own
        :raises OutOfMemory: if they do not fit
        """
        return None

    def member_hessians(self, frames: Frames) -> FloatArray | None:
        """Return the same for each member, ``(m, sum of (3 N)^2)``, whose mean :meth:`hessians` is; or ``None``.

        A backend with members gives both or neither.
        """
        return None

    def batch_atoms(self) -> int:
        """Return how many atoms a batch should have on this device, when nobody says otherwise."""
        return 2048

    def batch_key(self, frames: Frames) -> npt.NDArray[Any] | None:
        """Return a sortable key for each frame, ``(n,)``, so that like frames are neighbours; ``None``: all alike."""
        return None

    def details(self) -> Mapping[str, Any]:
        """Return what else the results should record of this model, as JSON values."""
        return {}
