"""``model.json`` of an exported model: what the parameter files do not say themselves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from aiida.common.exceptions import ValidationError

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.model_checks import check_attributes, check_text
from aiida_mlpotential.data.model_files import check_names
from aiida_mlpotential.worker.backends.base import ModelFileError

MANIFEST_FILE = 'model.json'
FORMAT = 'aiida-mlpotential model'
VERSION = 1
#: Most bytes of the file.
MAX_MANIFEST = 1 << 20

_OPTIONAL = frozenset({'cutoff', 'source', 'original_names'})


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The facts of a model; whether somebody trusts its maker is none of them.

    :ivar files: sha256 of each parameter file by its path
    """

    name: str
    backend: str
    sha256: str
    elements: list[str] | None
    ensemble_size: int
    committee: int
    energy_unit: str
    distance_unit: str
    units_from: dict[str, str]
    options: dict[str, Any]
    files: dict[str, str]
    licence: str
    method: str
    doi: str
    source: str = ''
    cutoff: float | None = None
    original_names: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, node: ModelData) -> Manifest:
        """Return the facts of a node."""
        attributes = node.base.attributes.all
        known = {field.name: attributes[field.name] for field in dataclasses.fields(cls) if field.name in attributes}
        given = {'committee': 0, 'units_from': {'energy': 'default', 'distance': 'default'}, **known}
        return cls(**{**given, 'source': node.source_text})

    def to_json(self) -> str:
        """Return the text of the file."""
        data = {'format': FORMAT, 'version': VERSION, **dataclasses.asdict(self)}
        return json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + '\n'

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Read the file, of which nothing is believed.

        :raises ModelFileError: naming what is not valid
        """
        if len(content) > MAX_MANIFEST:
            _refuse(f'it is larger than {MAX_MANIFEST} bytes')
        try:
            data = json.loads(content.decode('utf-8'), parse_constant=_refuse_constant, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as exception:
            if isinstance(exception, ModelFileError):
                raise
            _refuse(f'it is no JSON: {exception}')
        if not isinstance(data, dict) or data.pop('format', None) != FORMAT:
            _refuse('it is not that of an exported model')
        version = data.pop('version', None)
        if version != VERSION:
            _refuse(f'version {version!r} is not known, only {VERSION} is: update aiida-mlpotential')
        fields = {field.name for field in dataclasses.fields(cls)}
        unknown, missing = sorted(set(data) - fields), sorted(fields - set(data) - _OPTIONAL)
        if unknown or missing:
            _refuse(f'{unknown[0]!r} is not known' if unknown else f'{missing[0]!r} is missing')
        for key, check in _CHECKS.items():
            if key in data and not check(data[key]):
                _refuse(f'{key} is of the wrong kind')
        try:
            check_names(data['files'])
            check_attributes(data)
            check_text('source', data.get('source', ''))
        except (ValidationError, ModelFileError) as exception:
            _refuse(str(exception))
        return cls(**data)


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_symbols(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(item, str) for item in value))


#: What a value must be before it is looked at more closely.
_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    **{
        key: lambda value: isinstance(value, str)
        for key in ('name', 'backend', 'sha256', 'energy_unit', 'distance_unit', 'licence', 'method', 'doi', 'source')
    },
    'elements': _is_symbols,
    'units_from': _is_texts,
    'options': lambda value: isinstance(value, dict),
    'files': lambda value: _is_texts(value) and bool(value),
    'original_names': _is_texts,
}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        _refuse('it has a key twice')
    return result


def _refuse_constant(name: str) -> NoReturn:
    _refuse(f'{name} is no number')


def _refuse(message: str) -> NoReturn:
    raise ModelFileError(f'{MANIFEST_FILE} is not valid: {message}')
