"""What must be true of a model before it is stored: each check names what is wrong and what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from aiida.common.exceptions import ValidationError

from aiida_mlpotential.worker.backends import BACKENDS
from aiida_mlpotential.worker.backends.base import ModelFileError
from aiida_mlpotential.worker.backends.options import validate_options
from aiida_mlpotential.worker.schema import MODEL_DIRECTORY, member_directory
from aiida_mlpotential.worker.units import DISTANCE_UNITS, ENERGY_UNITS

from .model_files import check_names, model_sha256
from .model_info import ORIGINS

_SHA256 = re.compile(r'[0-9a-f]{64}')
#: The label of a node has no room for more.
_MAX_NAME = 255
_MAX_TEXT = 2000


def refuse(message: str) -> NoReturn:
    """Raise AiiDA's error for a node that cannot be stored."""
    raise ValidationError(message)


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Check all but the files.

    :raises ValidationError: naming the first attribute that is not valid
    """
    missing = [key for key in ('name', 'backend', 'sha256', 'files', 'options') if key not in attributes]
    if missing:
        refuse(f'the model has no {missing[0]}: make it with ModelData.from_file or from_ase_calculator')
    name = attributes['name']
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
        refuse(f'the name of the model must be a text of one line, {_MAX_NAME} characters at most, not {name!r}')
    if attributes['backend'] not in BACKENDS:
        refuse(f'unknown backend {attributes["backend"]!r}; there are {", ".join(sorted(BACKENDS))}')
    message = validate_options(attributes['backend'], attributes['options'])
    if message:
        refuse(message)
    for key in ('licence', 'method', 'doi', 'trust_reason'):
        check_text(key, attributes.get(key, ''))
    _check_units(attributes)
    _check_members(attributes)
    _check_elements(attributes.get('elements'))
    _check_rest(attributes)


def check_text(key: str, value: Any) -> None:
    """Refuse a fact that is no text of one line: it is shown in a terminal.

    :raises ValidationError: naming the key
    """
    if not isinstance(value, str) or not value.isprintable() or len(value) > _MAX_TEXT:
        refuse(f'{key} must be a text of one line, {_MAX_TEXT} characters at most, not {str(value)[:50]!r}')


def _check_units(attributes: Mapping[str, Any]) -> None:
    for key, units in (('energy_unit', ENERGY_UNITS), ('distance_unit', DISTANCE_UNITS)):
        if attributes.get(key) not in units:
            refuse(f'{key} = {attributes.get(key)!r} is not known; allowed are {", ".join(units)}')
    origins = attributes.get('units_from')
    if origins is None:  # stored before this was recorded
        return
    if not isinstance(origins, dict) or set(origins) != {'energy', 'distance'}:
        refuse(f'units_from must have the keys energy and distance, not {origins!r}')
    for key, origin in origins.items():
        if origin not in ORIGINS:
            refuse(f'units_from: {key} = {origin!r} is not known; allowed are {", ".join(ORIGINS)}')


def _check_members(attributes: Mapping[str, Any]) -> None:
    size, committee = attributes.get('ensemble_size'), attributes.get('committee', 0)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        refuse(f'ensemble_size must be an integer, 1 or larger, not {size!r}')
    if not isinstance(committee, int) or isinstance(committee, bool) or committee < 0 or committee == 1:
        refuse(f'committee must be 0, or an integer, 2 or larger, not {committee!r}')
    if not committee:
        return
    if size != committee:
        refuse(f'a committee of {committee} parameter sets has {committee} members, not {size}')
    there = {path.partition('/')[0] for path in attributes['files']}
    expected = [member_directory(index).removeprefix(f'{MODEL_DIRECTORY}/') for index in range(committee)]
    if there != set(expected):
        refuse(f'a committee of {committee} has its files in {expected[0]} to {expected[-1]}, not in {sorted(there)}')


def _check_elements(elements: Any) -> None:
    from ase.data import atomic_numbers

    if elements is None:
        return
    if not elements:
        refuse('elements must not be empty: leave it out for a model that takes any element')
    for symbol in elements:
        if symbol == 'X' or symbol not in atomic_numbers:
            refuse(f'{symbol!r} in elements is no chemical symbol')
    if len(set(elements)) != len(elements):
        refuse(f'elements has a symbol twice: {", ".join(elements)}')


def _check_rest(attributes: Mapping[str, Any]) -> None:
    trusted = attributes.get('trusted', False)
    if not isinstance(trusted, bool):
        refuse(f'trusted must be true or false, not {trusted!r}')
    if attributes.get('trust_reason') and not trusted:
        refuse('the model needs trust that nobody gave it: import it with trusted=True')
    cutoff = attributes.get('cutoff')
    number = isinstance(cutoff, (int, float)) and not isinstance(cutoff, bool)
    if cutoff is not None and not (number and math.isfinite(cutoff) and cutoff > 0):
        refuse(f'cutoff must be a positive number of angstrom, not {cutoff!r}')
    remarks = attributes.get('remarks', [])
    if not isinstance(remarks, list):
        refuse(f'remarks must be a list of texts, not {remarks!r}')
    for remark in remarks:
        check_text('a remark', remark)
    names = attributes.get('original_names', {})
    if not isinstance(names, dict) or not set(names) <= set(attributes['files']):
        refuse('original_names must give the names that files of the model had')


def check_files(attributes: Mapping[str, Any], found: Mapping[str, str]) -> None:
    """Check the files of a node against its attributes.

    :param found: sha256 of each file in the repository, by its path
    :raises ValidationError: naming the first file that is not right
    """
    files, sha256 = attributes['files'], attributes['sha256']
    if not files and BACKENDS[attributes['backend']].module != 'ase':
        refuse(f'a model of the backend {attributes["backend"]} needs a parameter file')
    if set(found) != set(files):
        refuse(f'files {sorted(found)} do not match the attribute files {sorted(files)}')
    try:
        check_names(files)
    except ModelFileError as exception:
        refuse(str(exception))
    for file, expected in files.items():
        if not isinstance(expected, str) or not _SHA256.fullmatch(expected):
            refuse(f'the sha256 of {file!r} must be 64 hexadecimal digits, not {expected!r}')
        if found[file] != expected:
            refuse(f'the file {file!r} has sha256 {found[file]}, expected {expected}')
    if sha256 != model_sha256(files, attributes['options']):
        refuse(f'the sha256 of the model, {sha256!r}, is not that of its content')
