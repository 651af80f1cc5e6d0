"""The results node: energies, forces, stress and ensemble statistics of many structures as flat arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.orm.pydantic import OrmMetadataField

from aiida_mlpotential.worker.errors import HAS_RESULTS, FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.quantities import QUANTITIES
from aiida_mlpotential.worker.schema import ARRAYS_DIRECTORY

from .finite import check_finite
from .formulas import formulas_of
from .frame_result import FrameResult, atoms_with_results
from .npy import NpyFile, ResultsError, check_offsets, check_shapes
from .selection import select_frames
from .statistics import info_attributes, statistics
from .structures import StructureSetData, check_index

if TYPE_CHECKING:
    from ase import Atoms
    from pandas import DataFrame
    from typing_extensions import Self

Array = npt.NDArray[Any]

#: Anything from which the structures of the results can be had.
Structures = StructureSetData | orm.StructureData | Frames

__all__ = ('FrameResult', 'ResultsData', 'ResultsError')


class ResultsData(orm.ArrayData):
    """Results of n structures with A atoms and m members, as ``.npy`` files that are those of the worker.

    Rows of structures that failed, or were not reached, are NaN; ``status`` says why. Some failures of a task leave
    values all the same, such as NOT_CONVERGED those of the last step. Arrays of what was not computed are ``None``;
    those that have no property here are had with ``get_array``.
    """

    class AttributesModel(orm.ArrayData.AttributesModel):
        """Attributes to filter on; extrema are over the structures that succeeded, and absent if none did."""

        n_frames: int = OrmMetadataField(0, description='Number of structures')
        n_ok: int = OrmMetadataField(0, description='Number of structures that were evaluated')
        n_failed: int = OrmMetadataField(0, description='Number of structures that failed')
        n_pending: int = OrmMetadataField(0, description='Number of structures that were not reached')
        status_counts: dict[str, int] | None = OrmMetadataField(None, description='Number of structures by status')
        n_members: int = OrmMetadataField(1, description='Number of members of the ensemble')
        elements: list[str] | None = OrmMetadataField(None, description='Chemical symbols that occur')
        formulas: list[str] | None = OrmMetadataField(None, description='Hill formulas that occur, at most 50')
        energy_min: float | None = OrmMetadataField(None, description='Lowest energy, eV')
        energy_max: float | None = OrmMetadataField(None, description='Highest energy, eV')
        energy_std_max: float | None = OrmMetadataField(None, description='Largest spread of an energy, eV')
        energy_std_mean: float | None = OrmMetadataField(None, description='Mean spread of the energies, eV')
        qbc_max: float | None = OrmMetadataField(None, description='Largest spread over sqrt(atoms), eV')
        force_max: float | None = OrmMetadataField(None, description='Largest force on an atom, eV/angstrom')
        steps_max: int | None = OrmMetadataField(None, description='Most steps that an optimization took')
        task: str | None = OrmMetadataField(None, description='What the job did')
        model_sha256: str | None = OrmMetadataField(None, description='Hash of the model')
        model_name: str | None = OrmMetadataField(None, description='Name of the model')
        precision: str | None = OrmMetadataField(None, description='Float type of the model')
        units: dict[str, str] = OrmMetadataField(default_factory=dict, description='Unit of each array')
        messages: dict[str, str] = OrmMetadataField(default_factory=dict, description='Why structures failed')
        structures_uuid: str | None = OrmMetadataField(None, description='Node of the structures')
        structures_sha256: str | None = OrmMetadataField(None, description='Hash of the set of structures')
        selection: dict[str, Any] | None = OrmMetadataField(None, description='Which structures of the set')
        parameters_hash: str | None = OrmMetadataField(None, description='Hash of the parameters that count')
        results_version: int | None = OrmMetadataField(None, description='Version of the results of the worker')

    @classmethod
    def from_folder(
        cls,
        folder: orm.FolderData,
        info: Mapping[str, Any],
        directory: str = ARRAYS_DIRECTORY,
        structures_info: Mapping[str, Any] | None = None,
        without: Collection[str] = (),
    ) -> Self:
        """Return an unstored node with the arrays of a job, copied byte by byte.

        Headers and sizes are checked first. Arrays with a row for each atom are never in memory as a whole.

        :param folder: what was retrieved
        :param info: the content of the worker's results file
        :param directory: where in the folder the arrays are
        :param structures_info: ``elements``, ``formulas`` and ``formulas_complete``: ``StructureSetData.info``
        :param without: arrays of which only headers and sizes are checked: another node has them and judges their
            numbers
        :raises ResultsError: if an array is missing, truncated, of a wrong shape or type, or no array at all
        """
        repository = folder.base.repository
        try:
            there = set(repository.list_object_names(directory))
        except (FileNotFoundError, NotADirectoryError):
            raise ResultsError(f'there is no folder {directory!r} in the retrieved files') from None
        files = {
            name: NpyFile.inspect(repository, f'{directory}/{name}.npy', name)
            for name in ('offsets', 'status', *QUANTITIES)
            if f'{name}.npy' in there or name in ('offsets', 'status', 'energies')
        }
        offsets = check_offsets(files['offsets'].load())
        check_shapes(files, offsets)
        status = files['status'].load()
        unknown = set(np.unique(status).tolist()) - {int(item) for item in FrameStatus}
        if unknown:
            raise ResultsError(f'status.npy has the value {min(unknown)}, which no status has')
        files = {name: file for name, file in files.items() if name not in without}
        check_finite(files, offsets, status)

        node = cls()
        attributes = {**info_attributes(info, files), **statistics(files, offsets, status)}
        attributes.update(cls._own_attributes(info, files, status))
        for key in ('elements', 'formulas', 'formulas_complete'):
            if structures_info is not None and key in structures_info:
                attributes[key] = structures_info[key]
        for name, file in files.items():
            with file.open() as handle:
                node.base.repository.put_object_from_filelike(handle, f'{name}.npy')  # type: ignore[arg-type]
            attributes[f'{cls.array_prefix}{name}'] = list(file.shape)
        node.base.attributes.set_many(attributes)
        return node

    @classmethod
    def _own_attributes(cls, info: Mapping[str, Any], files: Mapping[str, NpyFile], status: Array) -> dict[str, Any]:
        """Return what a subclass adds to the attributes.

        :raises ResultsError: if an array that it needs is missing
        """
        return {}

    def _optional(self, name: str) -> Array | None:
        return self.get_array(name) if name in self.get_arraynames() else None

    @property
    def energies(self) -> Array:
        """Return the potential energies, ``(n,)``, eV: the mean over the members."""
        return self.get_array('energies')

    @property
    def forces(self) -> Array | None:
        """Return the forces, ``(A, 3)``, eV/angstrom, or ``None``."""
        return self._optional('forces')

    @property
    def stress(self) -> Array | None:
        """Return the stress, ``(n, 3, 3)``, eV/angstrom^3, positive under tension, or ``None``."""
        return self._optional('stress')

    @property
    def member_energies(self) -> Array | None:
        """Return the energy of each member, ``(m, n)``, eV, or ``None``."""
        return self._optional('member_energies')

    @property
    def energy_std(self) -> Array | None:
        """Return the sample standard deviation (ddof = 1) of the energy over the members, ``(n,)``, eV, or ``None``."""
        return self._optional('energy_std')

    @property
    def qbc(self) -> Array | None:
        """Return ``energy_std`` over the square root of the number of atoms, ``(n,)``, eV, or ``None``."""
        return self._optional('qbc')

    @property
    def forces_std(self) -> Array | None:
        """Return the standard deviation of each force component, ``(A, 3)``, eV/angstrom, or ``None``."""
        return self._optional('forces_std')

    @property
    def atomic_energies(self) -> Array | None:
        """Return the energy of each atom, ``(A,)``, eV, or ``None``; they sum to the energy."""
        return self._optional('atomic_energies')

    @property
    def charges(self) -> Array | None:
        """Return the partial charge of each atom, ``(A,)``, elementary charges, or ``None``."""
        return self._optional('charges')

    @property
    def hessian(self) -> Array | None:
        """Return all Hessians, flat, eV/angstrom^2, or ``None``; :meth:`frame` gives that of one structure."""
        return self._optional('hessian')

    @property
    def status(self) -> Array:
        """Return the :class:`FrameStatus` of each structure as a number, ``(n,)``."""
        return self.get_array('status')

    @property
    def offsets(self) -> Array:
        """Return where the atoms of each structure are: ``offsets[i]:offsets[i + 1]``, ``(n + 1,)``."""
        return self.get_array('offsets')

    def __len__(self) -> int:
        return int(self.base.attributes.get('n_frames'))

    def __bool__(self) -> bool:
        """Return True, as every node."""
        return True

    @property
    def n_frames(self) -> int:
        """Return the number of structures."""
        return len(self)

    @property
    def n_ok(self) -> int:
        """Return the number of structures that were evaluated."""
        return int(self.base.attributes.get('n_ok'))

    @property
    def n_failed(self) -> int:
        """Return the number of structures that failed."""
        return int(self.base.attributes.get('n_failed'))

    @property
    def n_pending(self) -> int:
        """Return the number of structures that were not reached."""
        return int(self.base.attributes.get('n_pending'))

    @property
    def n_members(self) -> int:
        """Return the number of members of the ensemble."""
        return int(self.base.attributes.get('n_members'))

    @property
    def messages(self) -> dict[int, str]:
        """Return why structures failed, by index: the first hundred; the retrieved results file has more."""
        return {int(index): text for index, text in self.base.attributes.get('messages').items()}

    def frame(self, index: int) -> FrameResult:
        """Return the numbers of one structure; its status says what they are worth.

        :raises IndexError: if there is no such structure
        """
        number = check_index(index, len(self))
        status = FrameStatus(int(self.status[number]))
        start, stop = (int(value) for value in self.offsets[number : number + 2])
        message = self.messages.get(number, '' if status is FrameStatus.OK else status.help)
        if status not in HAS_RESULTS or not np.isfinite(self.energies[number]):
            return FrameResult(number, status, message, stop - start)
        arrays = {name: self.get_array(name) for name in self.get_arraynames() if name in QUANTITIES}
        return FrameResult.from_arrays(number, status, message, self.offsets, arrays)

    def get_structures(self) -> Frames:
        """Return the structures that the results are for: those that the job made, else those that it was given.

        :raises ValueError: if the results were not made by a job with structures
        """
        return self.frames_of(self.get_structures_node())

    def frames_of(self, node: StructureSetData | orm.StructureData) -> Frames:
        """Return the structures of a node: of the set that a job took a part of, that part."""
        attributes = self.base.attributes
        # A copy is as good: results from the cache, or of an earlier screening, name the set that they were made of.
        is_input = node.uuid == attributes.get('structures_uuid', None) or (
            isinstance(node, StructureSetData) and node.sha256 == attributes.get('structures_sha256', None)
        )
        return select_frames(node, attributes.get('selection', None) if is_input else None)

    def get_structures_node(self) -> StructureSetData | orm.StructureData:
        """Return the node with the structures that the results are for.

        :raises ValueError: if the results were not made by a job with structures
        """
        node = self._find_structures_node()
        if node is None:
            raise ValueError('the results are not linked to their structures: pass these as `structures`')
        return node

    def _find_structures_node(self) -> StructureSetData | orm.StructureData | None:
        creator = self.creator
        if creator is None:
            return None
        kinds = (StructureSetData, orm.StructureData)
        nodes = {
            **creator.base.links.get_outgoing(node_class=kinds).nested(),
            **creator.base.links.get_incoming(node_class=kinds).nested(),
        }
        order = ('output_structures', 'output_structure', 'structures', 'structure')
        found: list[StructureSetData | orm.StructureData] = [nodes[name] for name in order if name in nodes]
        return found[0] if found else None

    def _frames(self, structures: Structures | None) -> Frames:
        if structures is None:
            frames = self.get_structures()
        elif isinstance(structures, Frames):
            frames = structures
        else:
            frames = self.frames_of(structures)
        if not np.array_equal(frames.offsets, self.offsets):
            raise ValueError(
                f'the structures ({len(frames)}, {frames.n_atoms} atoms) are not those of the results '
                f'({len(self)}, {int(self.offsets[-1])} atoms)'
            )
        return frames

    def iter_ase(self, structures: Structures | None = None) -> Iterator[Atoms]:
        """Return the structures one by one as ASE atoms with their results.

        Energy, forces and stress are in a ``SinglePointCalculator``; status, label, spread and member energies in
        ``info``; ``forces_std`` in ``arrays``. A structure without results has no calculator.

        :param structures: those of the results, by default those of the job that made them
        :raises ValueError: if there are no structures, or others
        """
        frames = self._frames(structures)
        return (atoms_with_results(frames, index, self.frame(index)) for index in range(len(frames)))

    def to_ase(self, structures: Structures | None = None) -> list[Atoms]:
        """Return :meth:`iter_ase` as a list."""
        return list(self.iter_ase(structures))

    def write_extxyz(self, path: str | Path, structures: Structures | None = None) -> None:
        """Write structures and results as extended XYZ, one at a time.

        :raises ValueError: if there are no structures, or others
        """
        from ase.io.extxyz import write_extxyz

        iterator = self.iter_ase(structures)
        with Path(path).open('w', encoding='utf-8') as handle:
            for atoms in iterator:
                write_extxyz(handle, [atoms])

    def max_forces(self) -> Array | None:
        """Return the length of the largest force of each structure, ``(n,)``, eV/angstrom, NaN where there is none."""
        forces, offsets = self.forces, self.offsets
        if forces is None:
            return None
        result = np.full(len(self), np.nan)
        filled = np.flatnonzero(np.diff(offsets))
        if len(filled):
            norms = np.sqrt(np.square(forces, dtype=np.float64).sum(axis=1))
            result[filled] = np.maximum.reduceat(norms, offsets[:-1][filled])
        return result

    def to_dataframe(self, structures: Structures | None = None) -> DataFrame:
        """Return a table with a row for each structure: label, formula, number of atoms, energies, spread and status.

        What a task counts for each structure, such as steps or imaginary modes, has a column by the name of its array.

        :param structures: those of the results, by default those of the job that made them; where there are
            none, label and formula stay empty
        :raises ImportError: if pandas is not installed
        :raises ValueError: if the structures are others
        """
        try:
            import pandas as pd
        except ImportError:
            raise ImportError('a DataFrame needs pandas: pip install pandas') from None
        node = self._find_structures_node() if structures is None else structures
        frames = None if node is None else self._frames(node)
        messages, statuses = self.messages, [FrameStatus(value) for value in self.status.tolist()]
        missing = np.full(len(self), np.nan)
        columns: dict[str, Iterable[Any]] = {
            'label': frames.labels if frames is not None and frames.labels else [''] * len(self),
            'formula': [''] * len(self) if frames is None else formulas_of(frames)[0],
            'n_atoms': np.diff(self.offsets),
            'energy': self.energies,
        }
        for name, values in (('energy_std', self.energy_std), ('qbc', self.qbc), ('max_force', self.max_forces())):
            columns[name] = missing if values is None else values
        columns.update(
            (name, self.get_array(name))
            for name, quantity in QUANTITIES.items()
            if quantity.kind == 'task' and quantity.shape == 'frame' and name in self.get_arraynames()
        )
        columns['status'] = [status.name for status in statuses]
        columns['message'] = [
            messages.get(index, '' if status is FrameStatus.OK else status.help)
            for index, status in enumerate(statuses)
        ]
        table: DataFrame = pd.DataFrame(columns, index=pd.RangeIndex(len(self), name='frame'))
        return table

    def get_description(self) -> str:
        """Return a line for ``verdi node show`` and the like."""
        name = self.base.attributes.get('model_name', '')
        return f'{self.n_ok} of {self.n_frames} structures with {name}'

    def _validate(self) -> bool:
        """Check that the node was made by :meth:`from_folder` and has what every result has."""
        super()._validate()
        missing = {'energies', 'status', 'offsets'} - set(self.get_arraynames())
        if missing or 'n_frames' not in self.base.attributes:
            raise ValidationError('results must be made with ResultsData.from_folder')
        return True
