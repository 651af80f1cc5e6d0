"""The structure set node: any number of structures in one file, the very file that the worker reads."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.engine import calcfunction
from aiida.orm.pydantic import OrmMetadataField

from aiida_mlpotential.worker.frames import Frames, FramesError, clean_label, sha256_of
from aiida_mlpotential.worker.schema import FRAMES_FILE

from .formulas import StructuresError, describe_frames
from .recent import read_once

if TYPE_CHECKING:
    from ase import Atoms

__all__ = (
    'StructureSetData',
    'StructuresError',
    'collect_structures',
    'describe_frames',
    'extract_structure',
    'frames_of_structures',
    'to_frames',
)


class StructureSetData(orm.Data):
    """A set of structures (frames) as flat arrays in one file: ten thousand structures are one node.

    Make one with :meth:`from_ase`, :meth:`from_file`, :meth:`from_frames` or, keeping the provenance of AiiDA
    structures, :meth:`from_structures`. Lengths are in angstrom.
    """

    class AttributesModel(orm.Data.AttributesModel):
        """Attributes that QueryBuilder can filter on."""

        n_frames: int = OrmMetadataField(description='Number of structures')
        n_atoms: int = OrmMetadataField(description='Number of atoms of all structures together')
        max_atoms: int = OrmMetadataField(description='Number of atoms of the largest structure')
        elements: list[str] = OrmMetadataField(description='Chemical symbols that occur, by atomic number')
        formulas: list[str] = OrmMetadataField(description='Hill formulas that occur, the most frequent ones')
        formulas_complete: bool = OrmMetadataField(description='Whether no formula was left out')
        periodic: bool = OrmMetadataField(description='Whether a structure is periodic in any direction')
        sha256: str = OrmMetadataField(description='Hash of the file')

    def __init__(self, frames: Frames | None = None, **kwargs: Any) -> None:
        """Construct an unstored node.

        :param frames: the structures
        :raises StructuresError: if there are none, or an atomic number is none of an element
        """
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        if frames is not None:
            self._set_frames(frames)

    def initialize(self) -> None:
        """Set up what a node has that was made or loaded."""
        super().initialize()
        self._frames: Frames | None = None

    def _set_frames(self, frames: Frames) -> None:
        attributes = describe_frames(frames)
        with tempfile.TemporaryFile() as handle:
            frames.write(handle)
            handle.seek(0)
            attributes['sha256'] = sha256_of(handle)
            handle.seek(0)
            self.base.repository.put_object_from_filelike(handle, FRAMES_FILE)  # type: ignore[arg-type]
        self.base.attributes.set_many(attributes)

    @classmethod
    def from_frames(cls, frames: Frames) -> StructureSetData:
        """Return an unstored node of frames as the worker has them.

        :raises StructuresError: if there are no frames
        """
        return cls(frames)

    @classmethod
    def from_ase(cls, structures: Iterable[Atoms], labels: Sequence[str] = ()) -> StructureSetData:
        """Return an unstored node of ASE atoms; a generator is read once.

        :param structures: the structures, or a single one
        :param labels: a name for each, or none
        :raises StructuresError: if there are none, or the labels do not fit
        """
        from ase import Atoms

        if isinstance(structures, Atoms):
            structures = [structures]
        try:
            frames = Frames.from_ase(structures, tuple(labels))
        except FramesError as exception:
            raise StructuresError(str(exception)) from None
        return cls(frames)

    @classmethod
    def from_file(cls, path: str | Path, index: str | int = ':', format: str | None = None) -> StructureSetData:
        """Return an unstored node of the structures in a file that ASE can read, which is streamed.

        Labels are those in the file (``label`` or ``name`` of extended XYZ), or the name of the file if it holds one
        structure.

        :param path: the file
        :param index: which structures, in the notation of ASE, such as ``:``, ``-1`` or ``::10``
        :param format: name of an ASE format, for a file whose name does not tell
        :raises FileNotFoundError: if there is no such file
        :raises StructuresError: if it cannot be read or holds no structures
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f'there is no structure file {str(path)!r}')
        if path.stat().st_size == 0:
            raise StructuresError(f'{path.name!r} is empty: name a file with at least one structure')
        labels: list[str] = []
        try:
            frames = Frames.from_ase(_read_ase(path, index, format, labels))
        except Exception as exception:  # each of ASE's readers has its own
            reason = f'{type(exception).__name__}: {exception}'.rstrip(': ')
            raise StructuresError(
                f'{path.name!r} cannot be read ({reason}): check the file, or name its ASE format with `format`'
            ) from exception
        if len(frames) == 0:
            raise StructuresError(f'{path.name!r} holds no structures')
        if len(frames) == 1 and not labels[0]:
            labels = [path.stem]
        return cls(dataclasses.replace(frames, labels=tuple(map(clean_label, labels)) if any(labels) else ()))

    @classmethod
    def from_structures(
        cls, structures: Mapping[str, orm.StructureData] | Sequence[orm.StructureData] | None = None, **kwargs: Any
    ) -> StructureSetData:
        """Return a stored node that is linked to the StructureData nodes of which it was made.

        :param structures: the structures by name, or in a list; or give them as keyword arguments
        :raises StructuresError: if there are none, or one of them has kinds of mixed or missing elements
        """
        if structures is not None and kwargs:
            raise StructuresError('give the structures as one mapping or list, or as keyword arguments, not both')
        items: dict[str, orm.StructureData]
        if structures is None or isinstance(structures, Mapping):
            items = dict(structures if structures is not None else kwargs)
            order = [[name, name] for name in items]
        else:
            items = {f'structure_{index}': node for index, node in enumerate(structures)}
            order = [[name, node.label if isinstance(node, orm.Node) else ''] for name, node in items.items()]
        if 'order' in items:
            raise StructuresError('a structure cannot be called "order": choose another name')
        frames_of_structures(items.values())  # the same check, before a process node exists
        order_node = orm.List(order)  # type: ignore[no-untyped-call]
        result: StructureSetData = collect_structures(order_node, **items)
        return result

    def get_frames(self) -> Frames:
        """Return the structures as flat arrays, which are read once and cannot be changed."""
        if self._frames is None:
            self._frames = read_once(self.sha256, self._read)
        return self._frames

    def _read(self) -> Frames:
        with self.base.repository.open(FRAMES_FILE, 'rb') as handle:
            return Frames.read(handle)

    def get_ase(self, index: int) -> Atoms:
        """Return a structure as ASE atoms; its label is ``info['label']``.

        :raises IndexError: if there is no such structure
        """
        frames = self.get_frames()
        number = check_index(index, len(frames))
        atoms = frames.to_ase(number)
        if frames.labels and frames.labels[number]:
            atoms.info['label'] = frames.labels[number]
        return atoms

    def get_structure(self, index: int) -> orm.StructureData:
        """Return a structure as an unstored StructureData; :func:`extract_structure` keeps the link to this node.

        :raises IndexError: if there is no such structure
        :raises StructuresError: if AiiDA cannot hold it, as one with coordinates that are not finite
        """
        number = check_index(index, len(self))
        atoms = self.get_ase(number)
        if len(atoms) == 0 or not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            reason = 'coordinates that are not finite' if len(atoms) else 'no atoms'
            raise StructuresError(f'structure {number} has {reason}, which a StructureData cannot hold')
        try:
            structure = orm.StructureData(ase=atoms)
        except ValueError as exception:
            raise StructuresError(f'structure {number} cannot be a StructureData: {exception}') from None
        structure.label = atoms.info.get('label', '')
        return structure

    def __len__(self) -> int:
        return int(self.base.attributes.get('n_frames'))

    def __bool__(self) -> bool:
        """Return True, as every node: without it ``bool`` would ask ``len`` of a node without frames."""
        return True

    @property
    def labels(self) -> tuple[str, ...]:
        """Return a name for each structure, or nothing."""
        return self.get_frames().labels

    @property
    def n_frames(self) -> int:
        """Return the number of structures."""
        return len(self)

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms of all structures together."""
        return int(self.base.attributes.get('n_atoms'))

    @property
    def max_atoms(self) -> int:
        """Return the number of atoms of the largest structure."""
        return int(self.base.attributes.get('max_atoms'))

    @property
    def elements(self) -> list[str]:
        """Return the chemical symbols that occur, by atomic number."""
        return list(self.base.attributes.get('elements'))

    @property
    def formulas(self) -> list[str]:
        """Return the Hill formulas that occur, sorted; the most frequent ones where there are many."""
        return list(self.base.attributes.get('formulas'))

    @property
    def formulas_complete(self) -> bool:
        """Return whether :attr:`formulas` has all formulas."""
        return bool(self.base.attributes.get('formulas_complete'))

    @property
    def periodic(self) -> bool:
        """Return whether a structure is periodic in any direction."""
        return bool(self.base.attributes.get('periodic'))

    @property
    def sha256(self) -> str:
        """Return the hash of the file."""
        return str(self.base.attributes.get('sha256'))

    @property
    def info(self) -> dict[str, Any]:
        """Return numbers, elements and formulas, as :func:`describe_frames` does."""
        keys = ('n_frames', 'n_atoms', 'elements', 'formulas', 'formulas_complete')
        return {key: self.base.attributes.get(key) for key in keys}

    def get_description(self) -> str:
        """Return a line for ``verdi node show`` and the like."""
        more = '' if self.formulas_complete and len(self.formulas) <= 3 else ', ...'
        plural = '' if self.n_frames == 1 else 's'
        return f'{self.n_frames} structure{plural}, {self.n_atoms} atoms: {", ".join(self.formulas[:3])}{more}'

    def _validate(self) -> bool:
        """Check that the file is there and is the one that the attributes describe."""
        super()._validate()
        if FRAMES_FILE not in self.base.repository.list_object_names():
            raise ValidationError('a set of structures must not be empty: make it with from_ase, from_file or the like')
        with self.base.repository.open(FRAMES_FILE, 'rb') as handle:
            sha256 = sha256_of(handle)
        if sha256 != self.base.attributes.get('sha256', None):
            raise ValidationError(f'{FRAMES_FILE} is not the file that the attributes describe')
        if self.base.attributes.get('n_frames', 0) < 1:
            raise ValidationError('a set of structures must not be empty')
        return True


def _read_ase(path: Path, index: str | int, format: str | None, labels: list[str]) -> Iterator[Atoms]:
    """Stream the structures of a file, adding the label of each to a list."""
    from ase.io import iread

    for atoms in iread(path, index=index, format=format):
        _check_occupancy(atoms, len(labels))
        labels.append(str(atoms.info.get('label') or atoms.info.get('name') or ''))
        yield atoms


def _check_occupancy(atoms: Atoms, number: int) -> None:
    """Refuse sites that ASE reads as one whole atom though the file (a CIF) has several, or less than one, on them."""
    for site, occupants in (atoms.info.get('occupancy') or {}).items():
        if len(occupants) > 1 or any(value < 1 for value in occupants.values()):
            found = ', '.join(f'{symbol} {value:g}' for symbol, value in occupants.items())
            raise StructuresError(
                f'structure {number} has mixed or partial occupation at site {site} ({found}): '
                'a potential needs one whole atom on every site'
            )


def check_index(index: int, length: int) -> int:
    """Return an index counted from 0; a negative one counts from the end.

    :raises IndexError: if it is out of range
    """
    if not -length <= index < length:
        raise IndexError(f'there is no structure {index}: the set has {length}, counted from 0')
    return int(index) % length


def frames_of_structures(structures: Iterable[orm.StructureData], labels: Sequence[str] = ()) -> Frames:
    """Return AiiDA structures as frames, in which every site has the element of its kind, whatever the kind's name.

    :raises StructuresError: if one is no StructureData, or has kinds of mixed or missing elements
    """
    from ase.data import atomic_numbers

    numbers: list[int] = []
    positions: list[Sequence[float]] = []
    offsets, cells, pbc = [0], [], []
    for number, node in enumerate(structures):
        if not isinstance(node, orm.StructureData):
            raise StructuresError(f'structure {number} is a {type(node).__name__}, not a StructureData')
        elements: dict[str, int] = {}
        for kind in node.kinds:
            if kind.is_alloy or kind.has_vacancies:
                raise StructuresError(
                    f'structure {number} has the kind {kind.name!r} with mixed elements or vacancies: '
                    'a potential needs one whole atom on every site'
                )
            elements[kind.name] = atomic_numbers.get(kind.symbol, 0)
        sites = node.sites
        numbers.extend(elements[site.kind_name] for site in sites)
        positions.extend(site.position for site in sites)
        offsets.append(len(numbers))
        cells.append(node.cell)
        pbc.append(node.pbc)
    if not cells:
        raise StructuresError('there are no structures: give at least one')
    return Frames(
        numbers=np.array(numbers, dtype='u1'),
        positions=np.array(positions, dtype='f8').reshape(-1, 3),
        offsets=np.array(offsets, dtype='i8'),
        cells=np.array(cells, dtype='f8').reshape(-1, 3, 3),
        pbc=np.array(pbc, dtype=bool).reshape(-1, 3),
        labels=tuple(map(clean_label, labels)) if any(labels) else (),
    )


def to_frames(node: StructureSetData | orm.StructureData) -> Frames:
    """Return the frames of either kind of structure node, as a job takes them."""
    if isinstance(node, StructureSetData):
        return node.get_frames()
    return frames_of_structures([node], [node.label])


@calcfunction
def collect_structures(order: orm.List, **structures: orm.StructureData) -> StructureSetData:
    """Make one set of many structures.

    :param order: name and label of each structure, in the order of the set
    :param structures: the structures by name
    """
    names: list[tuple[str, str]] = order.get_list()  # type: ignore[no-untyped-call]
    nodes = [structures[name] for name, _ in names]
    return StructureSetData(frames_of_structures(nodes, [label for _, label in names]))


@calcfunction
def extract_structure(structures: StructureSetData, index: orm.Int) -> orm.StructureData:
    """Take one structure out of a set, keeping the link to it.

    :param structures: the set
    :param index: which one, counted from 0
    """
    return structures.get_structure(index.value)
