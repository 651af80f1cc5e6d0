"""The model node: parameter files (or an ASE calculator by name) with all that is needed to use and to cite them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.orm.implementation import clean_value
from aiida.orm.pydantic import OrmMetadataField

from aiida_mlpotential.worker.backends import BACKENDS
from aiida_mlpotential.worker.frames import sha256_of
from aiida_mlpotential.worker.schema import MODEL_DIRECTORY, ModelSpec
from aiida_mlpotential.worker.units import DISTANCE_UNITS, ENERGY_UNITS

#: Folder of the parameter files in the repository of the node.
PARAMETERS_DIRECTORY = 'parameters'
_SHA256 = re.compile(r'[0-9a-f]{64}')
_IMPORT_PATH = re.compile(r'[A-Za-z_]\w*(\.[A-Za-z_]\w*)+', re.ASCII)


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a parameter file does not say of itself.

    :ivar energy_unit: unit in which the model gives energies, a key of ``units.ENERGY_UNITS``
    :ivar distance_unit: unit of the distances that it expects, a key of ``units.DISTANCE_UNITS``
    :ivar source: where the parameters came from, such as ``PyPI: torchani==2.0``
    :ivar licence: licence of the parameters
    :ivar method: level of theory of the training data
    :ivar doi: the publication to cite
    """

    energy_unit: str = 'eV'
    distance_unit: str = 'angstrom'
    source: str = ''
    licence: str = ''
    method: str = ''
    doi: str = ''


DEFAULT_INFO = ModelInfo()


def _backend_of(node: Any) -> str:
    return str(node.base.attributes.get('backend'))


class ModelData(orm.Data):
    """A machine-learning potential with its parameters, immutable and identified by the sha256 of these.

    Make one with :meth:`from_file` or :meth:`from_ase_calculator`, then :meth:`get_or_store` it: the same parameters
    are one node. The text that says where the parameters came from is ``source['description']``.
    """

    class AttributesModel(orm.Data.AttributesModel):
        """Attributes that QueryBuilder can filter on."""

        name: str = OrmMetadataField(description='Name of the model')
        # `backend` of a node is AiiDA's storage, hence the detour
        backend: str = OrmMetadataField(description='Backend that evaluates the model', orm_to_model=_backend_of)
        sha256: str = OrmMetadataField(description='Hash of the parameters')
        elements: list[str] | None = OrmMetadataField(None, description='Chemical symbols in the order of the model')
        ensemble_size: int = OrmMetadataField(1, description='Number of members')
        energy_unit: str = OrmMetadataField('eV', description='Unit in which the model gives energies')
        distance_unit: str = OrmMetadataField('angstrom', description='Unit of the distances that the model expects')
        options: dict[str, Any] = OrmMetadataField(default_factory=dict, description='Keys for the backend')
        files: dict[str, str] = OrmMetadataField(default_factory=dict, description='Parameter files and their hashes')
        licence: str = OrmMetadataField('', description='Licence of the parameters')
        method: str = OrmMetadataField('', description='Level of theory of the training data')
        doi: str = OrmMetadataField('', description='Publication to cite')
        trusted: bool = OrmMetadataField(False, description='Whether unsafe loading of the files was allowed')

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        backend: str,
        name: str | None = None,
        elements: Sequence[str] | None = None,
        ensemble_size: int = 1,
        options: Mapping[str, Any] | None = None,
        info: ModelInfo = DEFAULT_INFO,
    ) -> ModelData:
        """Return an unstored node with a parameter file, or with all files of a directory.

        :param path: the file or directory
        :param backend: one of ``worker.backends.BACKENDS``
        :param name: defaults to the name of the file without its suffix
        :param elements: chemical symbols in the order of the model's own species; ``None`` if it takes any
        :param ensemble_size: number of members
        :param options: JSON values for the backend
        :param info: units, source, licence, method and DOI
        :raises FileNotFoundError: if there is no such file
        :raises ValueError: if something else is not valid; one sentence says what
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f'there is no model file {str(path)!r}')
        if path.is_dir():
            links = [item for item in sorted(path.rglob('*')) if item.is_symlink()]
            if links:
                raise ValueError(
                    f'the model directory has the symbolic link {links[0].name!r}: put the file itself there'
                )
            paths = {item.relative_to(path).as_posix(): item for item in sorted(path.rglob('*')) if item.is_file()}
        else:
            paths = {path.name: path}
        if not paths:
            raise ValueError(f'the model directory {str(path)!r} holds no files')
        empty = [file for file, item in paths.items() if item.stat().st_size == 0]
        if len(empty) == len(paths):
            raise ValueError(f'the model file {str(path)!r} is empty: get it again from its source')
        node = cls()
        node._set_all(name or path.stem, backend, ensemble_size, elements, options, info)
        hashes: dict[str, str] = {}
        for file, item in paths.items():
            with item.open('rb') as handle:
                node.base.repository.put_object_from_filelike(handle, f'{PARAMETERS_DIRECTORY}/{file}')
            hashes[file] = node._hash_of(file)
        node.base.attributes.set_many({'files': hashes, 'sha256': _model_sha256(hashes, node.options)})
        node._check()
        return node

    @classmethod
    def from_ase_calculator(
        cls,
        calculator: str,
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        elements: Sequence[str] | None = None,
    ) -> ModelData:
        """Return an unstored node for any ASE calculator.

        :param calculator: import path of the class, such as ``ase.calculators.emt.EMT``
        :param kwargs: its keyword arguments, JSON values
        :param name: defaults to the last part of the import path
        :param elements: chemical symbols that it knows; ``None`` leaves that to the calculator
        :raises ValueError: if the path is no import path or the arguments are no JSON
        """
        if not isinstance(calculator, str) or not _IMPORT_PATH.fullmatch(calculator):
            raise ValueError(
                f'{calculator!r} is no import path; give module and class, such as ase.calculators.emt.EMT'
            )
        node = cls()
        options = {'calculator': calculator, 'kwargs': dict(kwargs or {})}
        node._set_all(name or calculator.rpartition('.')[2], 'ase', 1, elements, options, DEFAULT_INFO)
        node.base.attributes.set_many({'files': {}, 'sha256': _model_sha256({}, node.options)})
        node._check()
        return node

    def _set_all(
        self,
        name: str,
        backend: str,
        ensemble_size: int,
        elements: Sequence[str] | None,
        options: Mapping[str, Any] | None,
        info: ModelInfo,
    ) -> None:
        """Set every attribute but those that depend on the files."""
        attributes = dataclasses.asdict(info)
        source = attributes.pop('source')
        if source:
            self.source = {'description': source}
        self.base.attributes.set_many(
            {
                **attributes,
                'name': name,
                'backend': backend,
                'ensemble_size': ensemble_size,
                'elements': None if elements is None else list(elements),
                'options': _canonical_options(options or {}),
                'trusted': False,
            }
        )
        self.label = str(name)

    @property
    def name(self) -> str:
        """Return the name of the model."""
        return str(self.base.attributes.get('name'))

    @property
    def backend_name(self) -> str:
        """Return the name of the backend that evaluates the model; ``backend`` is AiiDA's storage backend."""
        return str(self.base.attributes.get('backend'))

    @property
    def sha256(self) -> str:
        """Return the hash by which the model is known: of its one file, of the list of files, or of the options."""
        return str(self.base.attributes.get('sha256'))

    @property
    def elements(self) -> tuple[str, ...] | None:
        """Return the chemical symbols in the order of the model, or ``None`` where any may be asked for."""
        elements = self.base.attributes.get('elements')
        return None if elements is None else tuple(elements)

    @property
    def ensemble_size(self) -> int:
        """Return the number of members."""
        return int(self.base.attributes.get('ensemble_size'))

    @property
    def energy_unit(self) -> str:
        """Return the unit in which the model gives energies."""
        return str(self.base.attributes.get('energy_unit'))

    @property
    def distance_unit(self) -> str:
        """Return the unit of the distances that the model expects."""
        return str(self.base.attributes.get('distance_unit'))

    @property
    def options(self) -> dict[str, Any]:
        """Return the keys for the backend."""
        return dict(self.base.attributes.get('options'))

    @property
    def files(self) -> dict[str, str]:
        """Return the sha256 of each parameter file, by its path."""
        return dict(self.base.attributes.get('files'))

    @property
    def source_text(self) -> str:
        """Return where the parameters came from."""
        return str((self.source or {}).get('description', ''))

    @property
    def licence(self) -> str:
        """Return the licence of the parameters."""
        return str(self.base.attributes.get('licence'))

    @property
    def method(self) -> str:
        """Return the level of theory of the training data."""
        return str(self.base.attributes.get('method'))

    @property
    def doi(self) -> str:
        """Return the publication to cite."""
        return str(self.base.attributes.get('doi'))

    @property
    def trusted(self) -> bool:
        """Return whether unsafe loading of the files was allowed."""
        return bool(self.base.attributes.get('trusted'))

    def get_description(self) -> str:
        """Return a line for ``verdi node show`` and the like."""
        members = f', {self.ensemble_size} members' if self.ensemble_size > 1 else ''
        return f'{self.name} ({self.backend_name}{members}, sha256 {self.sha256[:12]})'

    def get_or_store(self) -> ModelData:
        """Return the stored node of the same model, or store this one.

        The same model means equal sha256, backend, options, elements, units and number of members; name and source
        may differ. Where two processes store the same model at the same moment there are two nodes, but both calls,
        and all later ones, return the older of the two; the other stays unused.
        """
        if self.is_stored:
            return self
        self._check()
        same = self._find_same()
        if same is not None:
            return same
        self.store()
        return self._find_same() or self

    def _find_same(self) -> ModelData | None:
        builder = orm.QueryBuilder(backend=self.backend)
        filters = {'attributes.sha256': self.sha256, 'attributes.backend': self.backend_name}
        builder.append(ModelData, filters=filters, tag='model')
        builder.order_by({'model': 'id'})
        nodes: list[ModelData] = builder.all(flat=True)
        return next((node for node in nodes if node._identity() == self._identity()), None)

    def _identity(self) -> tuple[Any, ...]:
        keys = ('options', 'elements', 'energy_unit', 'distance_unit', 'ensemble_size', 'files', 'trusted')
        return tuple(self.base.attributes.get(key) for key in keys)

    def to_spec(self) -> ModelSpec:
        """Return the model as a job describes it, with the files by their path in the work directory."""
        return ModelSpec(
            name=self.name,
            backend=self.backend_name,
            sha256=self.sha256,
            files={f'{MODEL_DIRECTORY}/{file}': sha256 for file, sha256 in self.files.items()},
            elements=self.elements,
            ensemble_size=self.ensemble_size,
            energy_unit=self.energy_unit,
            distance_unit=self.distance_unit,
            options=self.options,
        )

    def copy_list(self) -> list[tuple[str, str, str]]:
        """Return node, path in the repository and path in the work directory of each file: a ``local_copy_list``."""
        return [(self.uuid, f'{PARAMETERS_DIRECTORY}/{file}', f'{MODEL_DIRECTORY}/{file}') for file in self.files]

    def _hash_of(self, file: str) -> str:
        with self.base.repository.open(f'{PARAMETERS_DIRECTORY}/{file}', 'rb') as handle:
            return sha256_of(handle)

    def _check(self) -> None:
        """Raise a ``ValueError`` that names what is not valid."""
        try:
            self._validate()
        except ValidationError as exception:
            raise ValueError(str(exception)) from None

    def _validate(self) -> bool:
        """Check attributes, files and hashes before the node is stored."""
        super()._validate()
        attributes = self.base.attributes.all
        missing = [key for key in ('name', 'backend', 'sha256', 'files', 'options') if key not in attributes]
        if missing:
            _refuse(f'the model has no {missing[0]}: make it with ModelData.from_file or from_ase_calculator')
        if not isinstance(attributes['name'], str) or not attributes['name'].strip():
            _refuse(f'the name of the model must be a text, not {attributes["name"]!r}')
        if attributes['backend'] not in BACKENDS:
            _refuse(f'unknown backend {attributes["backend"]!r}; there are {", ".join(sorted(BACKENDS))}')
        for key, units in (('energy_unit', ENERGY_UNITS), ('distance_unit', DISTANCE_UNITS)):
            if attributes.get(key) not in units:
                _refuse(f'{key} = {attributes.get(key)!r} is not known; allowed are {", ".join(units)}')
        size = attributes.get('ensemble_size')
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            _refuse(f'ensemble_size must be an integer, 1 or larger, not {size!r}')
        _check_elements(attributes.get('elements'))
        self._validate_files(attributes['files'], attributes['sha256'])
        return True

    def _validate_files(self, files: Mapping[str, str], sha256: str) -> None:
        if not files and self.backend_name != 'ase':
            _refuse(f'a model of the backend {self.backend_name} needs a parameter file')
        root = PurePosixPath(PARAMETERS_DIRECTORY)
        there = {
            path.relative_to(root).as_posix()
            for path in self.base.repository.glob()
            if path.is_relative_to(root) and path.as_posix() != str(root) and not self._is_directory(path.as_posix())
        }
        if there != set(files):
            _refuse(f'files {sorted(there)} do not match the attribute files {sorted(files)}')
        for file, expected in files.items():
            if not _SHA256.fullmatch(expected):
                _refuse(f'the sha256 of {file!r} must be 64 hexadecimal digits, not {expected!r}')
            found = self._hash_of(file)
            if found != expected:
                _refuse(f'the file {file!r} has sha256 {found}, expected {expected}')
        if sha256 != _model_sha256(files, self.options):
            _refuse(f'the sha256 of the model, {sha256!r}, is not that of its content')

    def _is_directory(self, path: str) -> bool:
        return bool(self.base.repository.get_object(path).file_type.name == 'DIRECTORY')


def _refuse(message: str) -> NoReturn:
    raise ValidationError(message)


def _check_elements(elements: Any) -> None:
    from ase.data import atomic_numbers

    if elements is None:
        return
    if not elements:
        _refuse('elements must not be empty: leave it out for a model that takes any element')
    for symbol in elements:
        if symbol == 'X' or symbol not in atomic_numbers:
            _refuse(f'{symbol!r} in elements is no chemical symbol')
    if len(set(elements)) != len(elements):
        _refuse(f'elements has a symbol twice: {", ".join(elements)}')


def _canonical_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as the database gives them back: tuples are lists, floats have 14 significant digits."""
    try:
        text = json.dumps(dict(options), sort_keys=True, allow_nan=False)
        result: dict[str, Any] = clean_value(json.loads(text))  # type: ignore[no-untyped-call]
    except (TypeError, ValueError) as exception:
        raise ValueError(f'the options of a model must be finite JSON values: {exception}') from None
    return result


def _model_sha256(files: Mapping[str, str], options: Mapping[str, Any]) -> str:
    """Return the hash of the only file, else that of the list of files, else that of the options."""
    if len(files) == 1:
        return next(iter(files.values()))
    content = dict(files) or dict(options)
    return sha256_of(json.dumps(content, sort_keys=True, separators=(',', ':')).encode())
