"""The model node: parameter files (or an ASE calculator by name) with all that is needed to use and to cite them."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.orm.pydantic import OrmMetadataField

from aiida_mlpotential.worker.frames import sha256_of
from aiida_mlpotential.worker.schema import MODEL_DIRECTORY, ModelSpec

from .model_checks import check_attributes, check_files, check_text
from .model_files import is_inside, model_sha256, show
from .model_info import DEFAULT_INFO, DEFAULT_UNITS_FROM, Claims, ModelInfo, describe_calculator, resolve
from .model_parameters import Parameters, default_name, read_committee, read_single

__all__ = ('DEFAULT_INFO', 'PARAMETERS_DIRECTORY', 'ModelData', 'ModelInfo')

#: Folder of the parameter files in the repository of the node.
PARAMETERS_DIRECTORY = 'parameters'
_PREFIX = 'aiida-mlpotential-'
#: What makes a model another one, and what nodes stand for that were stored before it was recorded.
_IDENTITY: dict[str, Any] = {
    'options': None,
    'elements': None,
    'energy_unit': None,
    'distance_unit': None,
    'ensemble_size': None,
    'files': None,
    'trusted': False,
    'committee': 0,
    'units_from': DEFAULT_UNITS_FROM,
}


def _backend_of(node: Any) -> str:
    return str(node.base.attributes.get('backend'))


class ModelData(orm.Data):
    """A machine-learning potential with its parameters, immutable and identified by the sha256 of these.

    Make one with :meth:`from_file`, :meth:`from_members` or :meth:`from_ase_calculator`, then :meth:`get_or_store` it:
    the same parameters are one node. The text that says where they came from is ``source['description']``.
    """

    class AttributesModel(orm.Data.AttributesModel):
        """Attributes that QueryBuilder can filter on."""

        name: str = OrmMetadataField(description='Name of the model')
        # `backend` of a node is AiiDA's storage, hence the detour
        backend: str = OrmMetadataField(description='Backend that evaluates the model', orm_to_model=_backend_of)
        sha256: str = OrmMetadataField(description='Hash of the parameters')
        elements: list[str] | None = OrmMetadataField(None, description='Chemical symbols in the order of the model')
        ensemble_size: int = OrmMetadataField(1, description='Number of members')
        committee: int = OrmMetadataField(0, description='Number of parameter sets of a committee; 0: it is none')
        energy_unit: str = OrmMetadataField('eV', description='Unit in which the model gives energies')
        distance_unit: str = OrmMetadataField('angstrom', description='Unit of the distances that the model expects')
        units_from: dict[str, str] = OrmMetadataField(
            default_factory=dict, description='Who said the units `energy` and `distance`: `user`, `file`, `default`'
        )
        cutoff: float | None = OrmMetadataField(None, description='Range of the model (angstrom), if the file says it')
        options: dict[str, Any] = OrmMetadataField(default_factory=dict, description='Keys for the backend')
        files: dict[str, str] = OrmMetadataField(default_factory=dict, description='Parameter files and their hashes')
        original_names: dict[str, str] = OrmMetadataField(
            default_factory=dict, description='Names that files had, where they were not plain'
        )
        licence: str = OrmMetadataField('', description='Licence of the parameters')
        method: str = OrmMetadataField('', description='Level of theory of the training data')
        doi: str = OrmMetadataField('', description='Publication to cite')
        trusted: bool = OrmMetadataField(False, description='Whether somebody allowed unsafe loading of the files')
        trust_reason: str = OrmMetadataField('', description='What is unsafe about loading them')
        remarks: list[str] = OrmMetadataField(default_factory=list, description='What was worth noting at the import')

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        backend: str,
        name: str | None = None,
        elements: Sequence[str] | None = None,
        ensemble_size: int | None = None,
        options: Mapping[str, Any] | None = None,
        info: ModelInfo = DEFAULT_INFO,
        trusted: bool = False,
    ) -> ModelData:
        """Return an unstored node with a parameter file, or with the files of a directory that the backend needs.

        What is left out is read from the file, without its library and without running anything in it.

        :param path: the file or directory
        :param backend: one of ``worker.backends.BACKENDS``
        :param name: defaults to the name of the file without its suffix
        :param elements: chemical symbols in the order of the model's own species; ``None`` if it takes any
        :param ensemble_size: number of members
        :param options: JSON values for the backend
        :param info: units, source, licence, method and DOI
        :param trusted: that whoever made the file may run code on the computer of the job; recorded where it is needed
        :raises FileNotFoundError: if there is no such file
        :raises ValueError: if something else is not valid; one sentence says what
        """
        path = Path(path)
        claims = Claims.make(backend, elements, ensemble_size, options, info, trusted)
        with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
            parameters = read_single(path, backend, Path(folder))
            return cls._from_parameters(parameters, default_name(path) if name is None else name, claims)

    @classmethod
    def from_members(
        cls,
        paths: Sequence[str | Path],
        *,
        backend: str,
        name: str | None = None,
        elements: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        info: ModelInfo = DEFAULT_INFO,
        trusted: bool = False,
    ) -> ModelData:
        """Return an unstored node with several parameter sets of one backend: a committee.

        It is one potential: its energy and forces are means over the members, which all count the same, and their
        sample standard deviation (ddof = 1) is its spread. The members must agree in elements, units and options.

        :param paths: a file or directory for each member, which differ
        :param name: defaults to that of the first file, with ``-committee``

        The other parameters and the errors are those of :meth:`from_file`.
        """
        members = [Path(path) for path in paths]
        if len(members) < 2:
            raise ValueError(f'a committee needs two parameter sets or more, not {len(members)}: use from_file for one')
        claims = Claims.make(backend, elements, None, options, info, trusted)
        with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
            parameters = read_committee(members, backend, Path(folder))
            chosen = f'{default_name(members[0])}-committee' if name is None else name
            return cls._from_parameters(parameters, chosen, claims)

    @classmethod
    def _from_parameters(cls, parameters: Parameters, name: str, claims: Claims) -> ModelData:
        node = cls()
        node._set_all(name, claims, resolve(claims, parameters.facts))
        hashes: dict[str, str] = {}
        for file, path in parameters.files.items():
            with path.open('rb') as handle:
                node.base.repository.put_object_from_filelike(handle, f'{PARAMETERS_DIRECTORY}/{file}')
            hashes[file] = node._hash_of(file)
        node._set_files(hashes, committee=parameters.committee, original_names=dict(parameters.original_names))
        return node

    @classmethod
    def from_ase_calculator(
        cls,
        calculator: str,
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        elements: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        info: ModelInfo = DEFAULT_INFO,
    ) -> ModelData:
        """Return an unstored node for any ASE calculator, or for the model in the package of a family.

        :param calculator: import path of the class, such as ``ase.calculators.emt.EMT``, or a family with a model of
            its own, such as ``chgnet``
        :param kwargs: its keyword arguments, JSON values
        :param name: defaults to the last part of the import path, or what people call the family
        :param elements: chemical symbols that it knows; ``None`` leaves that to the calculator
        :param options: further options of the backend, such as ``device_argument``
        :param info: units, source, licence, method and DOI
        :raises ValueError: if the path is no import path, the family needs a file, or the arguments are no JSON
        """
        claims, facts, default = describe_calculator(calculator, kwargs, elements, options)
        claims = dataclasses.replace(claims, info=info)
        node = cls()
        node._set_all(default if name is None else name, claims, resolve(claims, facts))
        node._set_files({})
        return node

    def _set_all(self, name: str, claims: Claims, resolved: Mapping[str, Any]) -> None:
        """Set every attribute but those that depend on the files."""
        attributes = dataclasses.asdict(claims.info)
        source = attributes.pop('source')
        if source:
            self.source = {'description': source}
        self.base.attributes.set_many({**attributes, 'name': name, 'backend': claims.backend, **resolved})
        self.label = str(name)

    def _set_files(self, hashes: dict[str, str], **attributes: Any) -> None:
        """Set what depends on the files, and check everything."""
        sha256 = model_sha256(hashes, self.options)
        self.base.attributes.set_many({'committee': 0, 'files': hashes, 'sha256': sha256, **attributes})
        self._check()

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
    def committee(self) -> int:
        """Return the number of parameter sets of a committee; 0 where it is none."""
        return int(self.base.attributes.get('committee', 0))

    @property
    def energy_unit(self) -> str:
        """Return the unit in which the model gives energies."""
        return str(self.base.attributes.get('energy_unit'))

    @property
    def distance_unit(self) -> str:
        """Return the unit of the distances that the model expects."""
        return str(self.base.attributes.get('distance_unit'))

    @property
    def units_from(self) -> dict[str, str]:
        """Return who said the units ``energy`` and ``distance``; empty where that was not recorded."""
        return dict(self.base.attributes.get('units_from', {}))

    @property
    def cutoff(self) -> float | None:
        """Return the range of the model in angstrom, where the file says it."""
        cutoff = self.base.attributes.get('cutoff', None)
        return None if cutoff is None else float(cutoff)

    @property
    def options(self) -> dict[str, Any]:
        """Return the keys for the backend."""
        return dict(self.base.attributes.get('options'))

    @property
    def files(self) -> dict[str, str]:
        """Return the sha256 of each parameter file, by its path."""
        return dict(self.base.attributes.get('files'))

    @property
    def original_names(self) -> dict[str, str]:
        """Return the names that files had, by their path, where these were not plain."""
        return dict(self.base.attributes.get('original_names', {}))

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
        """Return whether somebody allowed unsafe loading of the files."""
        return bool(self.base.attributes.get('trusted', False))

    @property
    def trust_reason(self) -> str:
        """Return what is unsafe about loading the files; empty where nothing is."""
        return str(self.base.attributes.get('trust_reason', ''))

    @property
    def remarks(self) -> list[str]:
        """Return what was worth noting when the model was imported."""
        return list(self.base.attributes.get('remarks', []))

    def get_description(self) -> str:
        """Return a line for ``verdi node show`` and the like."""
        members = f', {self.ensemble_size} members' if self.ensemble_size > 1 else ''
        return f'{self.name} ({self.backend_name}{members}, sha256 {self.sha256[:12]})'

    def get_or_store(self) -> ModelData:
        """Return the stored node of the same model, or store this one.

        The same model means equal sha256, backend, options, elements, members, units and trust, and that the units are
        known from the same; name and source may differ. Where two processes store the same model at the same moment
        there are two nodes, but both calls, and all later ones, return the older of the two; the other stays unused.
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
        return tuple(self.base.attributes.get(key, default) for key, default in _IDENTITY.items())

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
            committee=self.committee,
            trusted=self.trusted,
            units_from=self.units_from,
            options=self.options,
        )

    def copy_list(self) -> list[tuple[str, str, str]]:
        """Return node, path in the repository and path in the work directory of each file: a ``local_copy_list``.

        :raises ValueError: if a path leads out of the folder, as it may in a node that came from somebody else
        """
        files = self.files
        for file in files:
            if not is_inside(file):
                raise ValueError(f'the path {show(file)} of {self.name} leads out of its folder: import the model anew')
        return [(self.uuid, f'{PARAMETERS_DIRECTORY}/{file}', f'{MODEL_DIRECTORY}/{file}') for file in files]

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
        check_attributes(attributes)
        check_text('source', self.source_text)
        root = PurePosixPath(PARAMETERS_DIRECTORY)
        there = [
            path.relative_to(root).as_posix()
            for path in self.base.repository.glob()
            if path.is_relative_to(root) and path.as_posix() != str(root) and not self._is_directory(path.as_posix())
        ]
        check_files(attributes, {file: self._hash_of(file) for file in there})
        return True

    def _is_directory(self, path: str) -> bool:
        return bool(self.base.repository.get_object(path).file_type.name == 'DIRECTORY')
