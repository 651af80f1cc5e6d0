"""Constraints as users write them: whether they make sense at all, and as rows of arrays for many frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..frames import BoolArray, FloatArray, IntArray
from ..parameters.base import is_integer_up_to, is_number
from .internals import KINDS, LEAST_ANGLE, WIDEST

#: One constraint: a dictionary with ``kind``, ``atoms`` and what else the kind knows.
Spec = Mapping[str, Any]

#: What a constraint may be, with the keys that it may have beside ``kind``, ``atoms`` and ``structures``.
ALLOWED_KEYS: dict[str, tuple[str, ...]] = {
    'atoms': (),
    'components': ('components',),
    'bond': ('value',),
    'angle': ('value',),
    'dihedral': ('value',),
}

_MAX_INDEX = 2**31 - 1
#: Bounds of the values to which internal coordinates may be driven: angstrom and degrees.
_BOUNDS: dict[str, tuple[float, float]] = {
    'bond': (0.1, 1000.0),
    'angle': (LEAST_ANGLE, 180.0 - LEAST_ANGLE),
    'dihedral': (-360.0, 360.0),
}


def validate_constraints(value: Any) -> str | None:
    """Return one sentence on the first constraint that makes no sense for any structure, or ``None``."""
    if not isinstance(value, (list, tuple)):
        return "it must be a list of constraints such as {'kind': 'bond', 'atoms': [0, 1]}"
    for number, spec in enumerate(value):
        complaint = _complaint(spec)
        if complaint:
            return f'constraint {number} {complaint}'
    return None


def validate_structures(specs: Sequence[Spec], n_frames: int) -> str | None:
    """Return one sentence on the first constraint that names a structure that is not there, or ``None``."""
    for number, spec in enumerate(specs):
        last = max(spec.get('structures') or [-1])
        if last >= n_frames:
            return f'constraint {number} names structure {last}, but there are only {n_frames}, counted from 0'
    return None


def _complaint(spec: Any) -> str | None:
    """Return what is wrong with one constraint, as the rest of a sentence."""
    if not isinstance(spec, Mapping):
        return "must be a dictionary such as {'kind': 'bond', 'atoms': [0, 1]}"
    kind = spec.get('kind')
    if not isinstance(kind, str) or kind not in ALLOWED_KEYS:
        return f'has the kind {kind!r}; it must be one of {", ".join(ALLOWED_KEYS)}'
    allowed = ('kind', 'atoms', *ALLOWED_KEYS[kind], 'structures')
    unknown = [key for key in spec if key not in allowed]
    if unknown:
        return f'({kind}) has the unknown key {unknown[0]!r}; allowed are {", ".join(allowed)}'
    atoms: Any = spec.get('atoms')
    if not _is_indices(atoms):
        return f'({kind}) needs `atoms`: a list of different atom numbers, counted from 0; not {atoms!r}'
    if kind in KINDS and len(atoms) != KINDS[kind].width:
        return f'({kind}) needs {KINDS[kind].width} atoms, not {len(atoms)}'
    if spec.get('structures') is not None and not _is_indices(spec['structures']):
        return f'({kind}) has `structures` = {spec["structures"]!r}; it must be a list of different numbers, from 0 on'
    if kind == 'components' and not _is_components(spec.get('components')):
        return f"({kind}) has `components` = {spec.get('components')!r}; it must be one to three of 'xyz', such as 'xz'"
    if spec.get('value') is not None and not is_number(spec['value'], *_BOUNDS[kind]):
        least, most = _BOUNDS[kind]
        unit = 'angstrom' if kind == 'bond' else 'degrees'
        advice = '; to keep atoms in a line, fix the atoms themselves' if kind == 'angle' else ''
        return (
            f'({kind}) has the value {spec["value"]!r}; it must be a number from {least:g} to {most:g} {unit}{advice}'
        )
    return None


def _is_indices(value: Any) -> bool:
    """Return whether a value is a list of at least one whole number, none negative, huge or twice."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(is_integer_up_to(item, _MAX_INDEX, least=0) for item in value) and len(set(value)) == len(value)


def _is_components(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and set(value) <= set('xyz') and len(set(value)) == len(value)


@dataclasses.dataclass(frozen=True)
class ConstraintRows:
    """The constraints of a pool of n frames with A atoms.

    :ivar free: which Cartesian components may change, ``(A, 3)``
    :ivar spec: the number of the constraint in the input, of each of the k constrained internal coordinates, ``(k,)``
    :ivar frame: the frame of each, ``(k,)``
    :ivar kind: the number of the kind of each in ``KINDS``, ``(k,)``
    :ivar atoms: the atoms of each, as indices into the pool; where there are fewer the first again, ``(k, 4)``
    :ivar target: the value to drive each to, angstrom or degrees; NaN where the initial one is kept, ``(k,)``
    """

    free: BoolArray
    spec: IntArray
    frame: IntArray
    kind: IntArray
    atoms: IntArray
    target: FloatArray


def missing_atoms(specs: Sequence[Spec], counts: IntArray) -> dict[int, str]:
    """Return for frames that lack an atom of a constraint why, by the number of the frame.

    :param counts: atoms of each frame of the job, ``(n,)``
    """
    found: dict[int, str] = {}
    indices = np.arange(len(counts))
    for number, spec in enumerate(specs):
        frames = _frames_of(spec, indices)
        last = max(spec['atoms'])
        for frame in frames[counts[frames] <= last]:
            n_atoms = counts[frame]
            text = f'constraint {number} ({spec["kind"]}) names atom {last}, but there are only {n_atoms}, from 0 on'
            found.setdefault(int(frame), text)
    return found


def expand(specs: Sequence[Spec], offsets: IntArray, indices: IntArray) -> ConstraintRows:
    """Return valid constraints as arrays, those of each frame one after the other.

    :param offsets: where the atoms of each frame of the pool begin, ``(n + 1,)``
    :param indices: the number of each frame of the pool in the job, ``(n,)``
    :raises ValueError: if a frame lacks an atom: leave frames out that :func:`missing_atoms` names
    """
    starts, counts = offsets[:-1], np.diff(offsets)
    free = np.ones((int(offsets[-1]), 3), dtype=bool)
    names = list(KINDS)
    spec_of, frame_of, kind_of, target_of = [], [], [], []
    atoms_of: list[IntArray] = []
    for number, spec in enumerate(specs):
        frames = _frames_of(spec, indices)
        atoms = np.asarray(spec['atoms'], dtype=np.int64)
        if np.any(counts[frames] <= atoms.max()):
            raise ValueError(f'constraint {number} names an atom that a structure does not have')
        if spec['kind'] not in KINDS:
            columns = ['xyz'.index(letter) for letter in spec.get('components', 'xyz')]
            free[(starts[frames, None] + atoms).reshape(-1, 1), columns] = False
            continue
        padded = np.concatenate([atoms, np.repeat(atoms[:1], WIDEST - len(atoms))])
        value = spec.get('value')
        spec_of.append(np.full(len(frames), number))
        frame_of.append(frames)
        kind_of.append(np.full(len(frames), names.index(spec['kind'])))
        target_of.append(np.full(len(frames), np.nan if value is None else float(value)))
        atoms_of.append(starts[frames, None] + padded)
    if not frame_of:
        nothing = np.zeros(0, dtype=np.int64)
        return ConstraintRows(free, nothing, nothing, nothing, np.zeros((0, WIDEST), dtype=np.int64), np.zeros(0))
    frame = np.concatenate(frame_of)
    order = np.argsort(frame, kind='stable')
    spec_array, kind, target = (np.concatenate(item)[order] for item in (spec_of, kind_of, target_of))
    return ConstraintRows(free, spec_array, frame[order], kind, np.concatenate(atoms_of)[order], target)


def _frames_of(spec: Spec, indices: IntArray) -> IntArray:
    """Return which frames of the pool a constraint is for, as places in the pool."""
    structures = spec.get('structures')
    if structures is None:
        return np.arange(len(indices))
    return np.flatnonzero(np.isin(indices, structures))
