"""The PiNN backend: batches of frames through one TensorFlow graph, put together in double precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import OutOfMemory, WorkerError
from ...frames import FloatArray, Frames, IntArray
from ...neighbors import find_half_pairs
from ...schema import ModelSpec
from ...storage import hessian_offsets
from ...stress import stress_of_pairs
from ...units import DISTANCE_UNITS, ENERGY_UNITS
from ..base import Backend, Evaluation, FileFacts, Settings
from ..hessians import place_row, symmetrized
from .files import PARAMETERS_FILE, PinnFileError, PinnModel, read_model
from .library import choose_device, choose_threads, import_libraries, session_config

if TYPE_CHECKING:
    from .graph import PinnGraph

#: Atoms in a batch.
_BATCH_ATOMS = {'cpu': 1024, 'cuda': 16384}


class PinnBackend(Backend):
    """A ``potential_model`` of PiNN (Teoroo-CMC), in single precision, the only one that PiNN has."""

    name: ClassVar[str] = 'pinn'

    def __init__(self, graph: PinnGraph, model: PinnModel, units: tuple[str, str], device: str, threads: int) -> None:
        """Hold a graph that is ready.

        :param units: of energy and of distance, keys of ``ENERGY_UNITS`` and ``DISTANCE_UNITS``
        """
        self._graph = graph
        self._model = model
        self.elements = model.elements
        self._energy, self._distance = ENERGY_UNITS[units[0]], DISTANCE_UNITS[units[1]]
        self._dress = np.zeros(256)
        for number, energy in model.dress.items():
            self._dress[number] = energy
        self.device = device
        self.num_threads = threads
        self.precision = 'single'

    @classmethod
    def inspect(cls, path: Path) -> FileFacts:
        """Return what the directory of a model says: its elements, but not its units.

        The unit of energy is that of the training data times ``e_unit``, and nothing names the former; a value of 27.2
        is no proof. So the backend's default, eV and angstrom as in PiNN's ASE calculator, holds unless a user knows.
        """
        model = read_model(path)
        return FileFacts(
            elements=model.elements,
            cutoff=model.cutoff,
            options={'network': model.network, 'e_unit': model.unit},  # which members of a committee must share
            remarks=model.remarks(),
            files=model.files,
        )

    @classmethod
    def load(cls, spec: ModelSpec, directory: Path, settings: Settings) -> PinnBackend:
        """Read the files, build the graph, and evaluate something small: threads and kernels are then there."""
        if settings.precision != 'single':
            raise WorkerError(
                'ERROR_MODEL_UNSUPPORTED', f'PiNN has no {settings.precision} precision: set precision to single'
            )
        folder, model = _read(spec, directory)
        libraries = import_libraries()
        device, notes = choose_device(libraries[0], settings)
        threads = choose_threads(settings)
        from .graph import PinnGraph

        graph = PinnGraph(libraries, model, folder, session_config(libraries[0], device, threads))
        backend = cls(graph, model, (spec.energy_unit, spec.distance_unit), device, threads)
        backend.notes = notes
        backend.warm_up()
        return backend

    def warm_up(self) -> None:
        """Evaluate two atoms that see each other."""
        from ase import Atoms

        half = self.cutoff / 2
        symbol = self._model.elements[0] if self._model.elements else 'H'
        self.evaluate(Frames.from_ase([Atoms([symbol] * 2, [[0, 0, 0], [half, 0, 0]])]), frozenset({'forces'}))

    @property
    def cutoff(self) -> float:
        """Return the cutoff in angstrom."""
        return self._model.cutoff * self._distance

    def batch_atoms(self) -> int:
        """Return enough atoms to keep the device busy, few enough to see progress and lose little."""
        return _BATCH_ATOMS[self.device.partition(':')[0]]

    def evaluate(self, frames: Frames, request: frozenset[str]) -> Evaluation:
        """Evaluate a batch; frames of any kind may be mixed."""
        slopes_needed = bool(request & {'forces', 'stress'})
        try:
            first, second, vectors = self._full_pairs(frames)
            outputs, slopes = self._graph.run(
                frames.numbers.astype('i4'), first, second, vectors / self._distance, slopes_needed
            )
        except MemoryError:
            raise OutOfMemory('numpy could not allocate what it needs') from None
        # From here on in double precision: a total energy of 4 keV has steps of 0.5 meV in single.
        factor = self._model.unit * self._energy / self._model.scale
        dress = self._dress[frames.numbers] * (self._model.unit * self._energy)
        atomic = outputs.astype('f8') * factor + dress
        energies = np.bincount(frames.frame_of_atom, atomic, minlength=len(frames)).astype('f8')
        forces = stress = None
        if slopes is not None:
            gradient = slopes.astype('f8') * (factor / self._distance)
            if 'forces' in request:
                forces = _forces(first, second, gradient, frames.n_atoms)
            if 'stress' in request:
                stress = stress_of_pairs(frames.frame_of_atom[first], vectors, gradient, frames)
        return Evaluation(
            energies, forces=forces, stress=stress, atomic_energies=atomic if 'atomic_energies' in request else None
        )

    def hessians(self, frames: Frames) -> FloatArray:
        """Return analytic Hessians of the network in single precision.

        They took half the time of differences of forces of fourth order, which rounding leaves 1e-3 to 5e-2
        eV/angstrom^2 off; the sum over all atoms, zero in truth, is below 5e-6 here.
        """
        try:
            first, second, vectors = self._full_pairs(frames)
            offsets = hessian_offsets(frames.offsets)
            result = np.zeros(int(offsets[-1]))
            ways = (_way(frames, first, second, row) for row in range(3 * int(frames.counts.max(initial=0))))
            numbers = frames.numbers.astype('i4')
            bends = self._graph.bends(numbers, first, second, vectors / self._distance, ways)
            for row, bend in enumerate(bends):
                place_row(result, row, -_forces(first, second, bend.astype('f8'), frames.n_atoms), frames)
        except MemoryError:
            raise OutOfMemory('numpy could not allocate what it needs') from None
        factor = self._model.unit * self._energy / self._model.scale / self._distance**2
        return symmetrized(result, frames) * factor

    def _full_pairs(self, frames: Frames) -> tuple[IntArray, IntArray, FloatArray]:
        """Return every pair in both directions, by rising first atom, with the vectors in angstrom."""
        pairs = find_half_pairs(frames.positions, frames.offsets, frames.cells, frames.pbc, self.cutoff)
        first, second = np.concatenate([pairs.first, pairs.second]), np.concatenate([pairs.second, pairs.first])
        order = np.argsort(first, kind='stable')
        return first[order], second[order], np.concatenate([pairs.vectors, -pairs.vectors])[order]

    def details(self) -> Mapping[str, Any]:
        """Return the cutoff, what was evaluated."""
        return {
            'cutoff': self.cutoff,
            'network': self._model.network,
            'checkpoint': self._model.checkpoint,
        }


def _way(frames: Frames, first: IntArray, second: IntArray, row: int) -> FloatArray:
    """Return how the vectors of the pairs change with one coordinate of every frame, ``(P, 3)``."""
    atom, axis = divmod(row, 3)
    moved = np.zeros(frames.n_atoms)
    moved[frames.offsets[:-1][frames.counts > atom] + atom] = 1.0
    way = np.zeros((len(first), 3))
    way[:, axis] = moved[second] - moved[first]
    return way


def _forces(first: IntArray, second: IntArray, slopes: FloatArray, n_atoms: int) -> FloatArray:
    """Return the forces of the slopes dE/d(r_second - r_first), ``(A, 3)``."""
    columns = [
        np.bincount(first, slopes[:, axis], minlength=n_atoms) - np.bincount(second, slopes[:, axis], minlength=n_atoms)
        for axis in range(3)
    ]
    return np.stack(columns, axis=1).astype('f8')  # without any pair numpy counts in integers


def _read(spec: ModelSpec, directory: Path) -> tuple[Path, PinnModel]:
    """Return the directory of the model and what is in it, all of it sent with the job.

    :raises WorkerError: if files are missing or unusable, or the elements are others than those announced
    """
    folders = {PurePosixPath(name).parent for name in spec.files if PurePosixPath(name).name == PARAMETERS_FILE}
    if len(folders) != 1:
        raise WorkerError(
            'ERROR_MODEL_MISSING', f'a PiNN model has one {PARAMETERS_FILE}, {spec.name} has {len(folders)}'
        )
    folder = folders.pop()
    try:
        model = read_model(directory / folder)
    except PinnFileError as exception:
        raise WorkerError(exception.label, f'{spec.name}: {exception}') from exception
    strange = [name for name in model.files if str(folder / name) not in spec.files]
    if strange:
        raise WorkerError('ERROR_MODEL_MISSING', f'{strange[0]} is not among the files of {spec.name}: import it again')
    if None not in (spec.elements, model.elements) and set(spec.elements or ()) != set(model.elements or ()):
        raise WorkerError(
            'ERROR_MODEL_CORRUPT',
            f'{spec.name} is for {", ".join(model.elements or ())}, not {", ".join(spec.elements or ())}',
        )
    return directory / folder, model
