"""What is known of a model: what the user says, what its file says, and what the backend takes where neither does."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiida.orm.implementation import clean_value

from aiida_mlpotential.worker.backends import BACKENDS, get_backend
from aiida_mlpotential.worker.backends.base import FileFacts, ModelFileError
from aiida_mlpotential.worker.errors import WorkerError
from aiida_mlpotential.worker.units import DISTANCE_UNITS

#: A unit that the file or the backend is to say.
AUTO = 'Auto'
#: Who said which unit a model has.
ORIGINS = ('user', 'file', 'default')
#: ``units_from`` of nodes that were stored before it was recorded.
DEFAULT_UNITS_FROM = {'energy': 'default', 'distance': 'default'}

_MAX_REMARK = 500
_IMPORT_PATH = re.compile(r'[A-Za-z_]\w*(\.[A-Za-z_]\w*)+', re.ASCII)


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a parameter file may not say of itself.

    :ivar energy_unit: unit in which the model gives energies, a key of ``units.ENERGY_UNITS``; ``Auto``: what the file
        says, else the default of the backend
    :ivar distance_unit: unit of the distances that it expects, a key of ``units.DISTANCE_UNITS``, or ``Auto``
    :ivar source: where the parameters came from, such as ``PyPI: torchani==2.0``
    :ivar licence: licence of the parameters
    :ivar method: level of theory of the training data
    :ivar doi: the publication to cite
    """

    energy_unit: str = AUTO
    distance_unit: str = AUTO
    source: str = ''
    licence: str = ''
    method: str = ''
    doi: str = ''


DEFAULT_INFO = ModelInfo()


@dataclasses.dataclass(frozen=True)
class Claims:
    """What the user says of a model; ``None`` where that is left to the file."""

    backend: str
    elements: tuple[str, ...] | None
    ensemble_size: int | None
    options: Mapping[str, Any]
    info: ModelInfo
    trusted: bool

    @classmethod
    def make(
        cls,
        backend: str,
        elements: Sequence[str] | None,
        ensemble_size: int | None,
        options: Mapping[str, Any] | None,
        info: ModelInfo,
        trusted: bool,
    ) -> Claims:
        """Return them in one form.

        :raises ValueError: if the backend is unknown or the options are no JSON
        """
        if backend not in BACKENDS:
            raise ValueError(f'unknown backend {backend!r}; there are {", ".join(sorted(BACKENDS))}')
        if not isinstance(trusted, bool):
            raise ValueError(f'trusted must be True or False, not {trusted!r}')
        return cls(backend, parse_elements(elements), ensemble_size, canonical_options(options or {}), info, trusted)


def describe_calculator(
    calculator: str,
    kwargs: Mapping[str, Any] | None,
    elements: Sequence[str] | None,
    options: Mapping[str, Any] | None,
) -> tuple[Claims, FileFacts, str]:
    """Return the facts of an ASE calculator without a parameter file, and its name; see ``from_ase_calculator``.

    :raises ValueError: if there is none of that name, or it needs a file
    """
    chosen = {**(options or {}), 'kwargs': dict(kwargs or {})}
    entry = BACKENDS.get(calculator) if isinstance(calculator, str) else None
    family = None if entry is None else entry.family
    if family is not None:
        if not family.default_model:
            raise ValueError(f'{family.title} has no model in its package: give the parameter file ({family.files})')
        remark = f'the parameters are those in the package {family.distribution} on the computer of the job'
        facts = FileFacts(family.elements, remarks=(remark,))
        return Claims.make(calculator, elements, 1, chosen, DEFAULT_INFO, False), facts, family.title
    if not isinstance(calculator, str) or not _IMPORT_PATH.fullmatch(calculator):
        raise ValueError(f'{calculator!r} is no import path; give module and class, such as ase.calculators.emt.EMT')
    claims = Claims.make('ase', elements, 1, {**chosen, 'calculator': calculator}, DEFAULT_INFO, False)
    return claims, FileFacts(), calculator.rpartition('.')[2]


def parse_elements(elements: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return chemical symbols given one by one, or as a text such as ``H,C,O`` or ``H C O``."""
    if isinstance(elements, str):
        return tuple(symbol for symbol in re.split(r'[,;\s]+', elements) if symbol)
    return None if elements is None else tuple(elements)


def canonical_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as the database gives them back: tuples are lists, floats have 14 significant digits.

    :raises ValueError: if they are no finite JSON values
    """
    try:
        text = json.dumps(dict(options), sort_keys=True, allow_nan=False)
        result: dict[str, Any] = clean_value(json.loads(text))  # type: ignore[no-untyped-call]
    except (TypeError, ValueError, RecursionError) as exception:
        raise ValueError(f'the options of a model must be finite JSON values: {exception}') from None
    return result


def inspect_file(backend: str, path: Path, shown: Path | None = None) -> FileFacts:
    """Return what a parameter file says of itself, without running anything in it.

    :param shown: what messages call the file
    :raises ModelFileError: if the backend cannot use it
    """
    try:
        return get_backend(backend).inspect(path)
    except (ModelFileError, WorkerError) as exception:
        message = str(exception).replace(str(path), str(shown or path))
        raise ModelFileError(message) from exception
    except Exception as exception:  # a damaged or hostile file may raise anything in what reads it
        reason = f'{type(exception).__name__}: {exception}'.replace(str(path), str(shown or path))
        raise ModelFileError(
            f'{(shown or path).name!r} is no model of the backend {backend}, or damaged ({reason}): '
            'name another backend, or get it again from its source'
        ) from exception


def merge_members(facts: Sequence[FileFacts], names: Sequence[str]) -> FileFacts:
    """Return the facts of a committee: those on which its members agree.

    :param names: what messages call the members
    :raises ModelFileError: if a member has members itself, or differs in elements, units or options
    """
    first = facts[0]
    for item, name in zip(facts, names, strict=True):
        if item.ensemble_size > 1:
            raise ModelFileError(
                f'{name} is an ensemble of {item.ensemble_size} itself, and a committee is made of models with one '
                'member: import it alone'
            )
        for key in ('elements', 'energy_unit', 'distance_unit'):
            _agree(key.replace('_', ' '), (getattr(first, key), getattr(item, key)), (names[0], name))
        for key in sorted({*first.options, *item.options}):
            _agree(key, (first.options.get(key), item.options.get(key)), (names[0], name))
    cutoffs = {item.cutoff for item in facts}
    return dataclasses.replace(
        first,
        ensemble_size=len(facts),
        cutoff=first.cutoff if len(cutoffs) == 1 else None,
        needs_trust=next((item.needs_trust for item in facts if item.needs_trust), ''),
        remarks=tuple(dict.fromkeys(remark for item in facts for remark in item.remarks)),
        files=None,
    )


def _agree(what: str, values: tuple[Any, Any], names: tuple[str, str]) -> None:
    if values[0] != values[1]:
        one, other = (show_value(value) for value in values)
        raise ModelFileError(
            f'the members of a committee must have the same {what}: {names[0]} has {one}, {names[1]} has {other}'
        )


def show_value(value: Any) -> str:
    """Return a fact for a message or a table: symbols as words, other lists and objects as JSON."""
    if value is None:
        return 'none'
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, str) for item in value):
        return ' '.join(value)
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= 200 else f'{text[:197]}...'


def resolve(claims: Claims, facts: FileFacts) -> dict[str, Any]:
    """Return the attributes that follow from what the user and the file say: the user's word first, then the file's.

    Units that contradict the file are the user's, with a remark. Elements, members and options of which the file
    knows better are refused: results would be those of another molecule.

    :raises ModelFileError: if the two contradict each other, or the file needs trust that nobody gave it
    """
    entry = BACKENDS[claims.backend]
    remarks = list(facts.remarks)
    energy, energy_from = _unit('energy', claims.info.energy_unit, facts.energy_unit, entry.energy_unit, remarks)
    distance, distance_from = _unit(
        'distance', claims.info.distance_unit, facts.distance_unit, entry.distance_unit, remarks
    )
    reason = facts.needs_trust.strip().rstrip('.')
    if reason and not claims.trusted:
        raise ModelFileError(
            f'the model cannot be loaded without trust in whoever made it: {reason}; if you have that, say so with '
            '`--trust`, in Python with trusted=True'
        )
    if claims.trusted and not reason:
        remarks.append('trust was not needed, and is not recorded: the file is loaded without running what is in it')
    return {
        'elements': _elements(claims.elements, facts, remarks),
        'ensemble_size': _ensemble_size(claims.ensemble_size, facts.ensemble_size),
        'energy_unit': energy,
        'distance_unit': distance,
        'units_from': {'energy': energy_from, 'distance': distance_from},
        'cutoff': None if facts.cutoff is None else _cutoff(float(facts.cutoff) * DISTANCE_UNITS.get(distance, 1.0)),
        'options': _options(claims.options, canonical_options(facts.options)),
        'trusted': bool(reason),
        'trust_reason': _clean(reason),
        'remarks': clean_texts(remarks),
    }


def _cutoff(value: float) -> float:
    """Return a range as the database gives it back, with 14 significant digits."""
    return float(clean_value(value))  # type: ignore[no-untyped-call]


def _unit(kind: str, claimed: str, stated: str | None, default: str, remarks: list[str]) -> tuple[str, str]:
    """Return a unit and who said it."""
    if claimed == AUTO:
        return (default, 'default') if stated is None else (stated, 'file')
    if stated not in (None, claimed):
        remarks.append(f'the file has the {kind} unit {stated}, which {claimed} replaces, as you said')
    return claimed, 'user'


def _elements(claimed: tuple[str, ...] | None, facts: FileFacts, remarks: list[str]) -> list[str] | None:
    stated = facts.elements
    if not facts.elements_certain and claimed is not None:
        if stated is not None and set(claimed) != set(stated):
            remarks.append(f'the file looks like one for {show_value(stated)}; you said {show_value(claimed)}')
        return list(claimed)
    if claimed is not None and stated is not None and set(claimed) != set(stated):
        raise ModelFileError(
            f'the elements {show_value(claimed)} are not those of the file, {show_value(stated)}: leave them out'
        )
    chosen = claimed if stated is None else stated  # of equal ones the file knows the order
    return None if chosen is None else list(chosen)


def _ensemble_size(claimed: int | None, stated: int) -> int:
    if claimed is None:
        return stated
    if stated > 1 and claimed != stated:
        raise ModelFileError(f'the file has {stated} members, not {claimed}: leave ensemble_size out')
    return claimed


def _options(claimed: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in claimed.items():
        if key in stated and stated[key] != value:
            raise ModelFileError(
                f'the option {key} = {show_value(value)} is not what the file has, {show_value(stated[key])}: '
                'leave it out'
            )
    return {**stated, **claimed}


def clean_texts(texts: Iterable[str]) -> list[str]:
    """Return remarks without what a terminal would act on, each once."""
    return list(dict.fromkeys(filter(None, map(_clean, texts))))


def _clean(text: str) -> str:
    line = ' '.join(str(text).split()).rstrip('.')
    return ''.join(character if character.isprintable() else '?' for character in line)[:_MAX_REMARK]
