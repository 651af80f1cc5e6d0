"""A committee: several parameter sets of one backend, as one potential with members."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import WorkerError
from ..frames import FloatArray, Frames
from ..schema import ModelSpec, member_directory
from ..statistics import sample_std
from .base import Backend, Evaluation, Settings

#: What the members are asked for themselves, and what is the mean over them.
_AVERAGED = ('forces', 'stress', 'atomic_energies', 'charges')
#: What comes of the forces of all members.
_OF_MEMBERS = frozenset({'forces_std', 'member_forces'})


class Committee(Backend):
    """Members of one backend, evaluated one after the other; results are means over them.

    Every member counts the same, as in the ensembles that are one file. The spread is the sample standard deviation.
    """

    name: ClassVar[str] = 'committee'

    def __init__(self, members: Sequence[Backend]) -> None:
        first = members[0]
        self._members = tuple(members)
        self.n_members = len(members)
        self.properties = first.properties | {'forces_std'}
        self.libraries = first.libraries
        self.fixed_atom_order = first.fixed_atom_order
        self.elements = first.elements
        self.device, self.num_threads, self.precision = first.device, first.num_threads, first.precision
        self.notes = tuple(dict.fromkeys(note for member in members for note in member.notes))

    @classmethod
    def load(cls, spec: ModelSpec, directory: Path, settings: Settings) -> Committee:
        """Load the members by the backend of the model."""
        from . import get_backend

        return cls.load_members(get_backend(spec.backend), spec, directory, settings)

    @classmethod
    def load_members(cls, backend: type[Backend], spec: ModelSpec, directory: Path, settings: Settings) -> Committee:
        """Load each parameter set as a model of its own."""
        members = [backend.load(member, directory, settings) for member in split(spec)]
        large = next((index for index, member in enumerate(members) if member.n_members > 1), None)
        if large is not None:
            raise WorkerError(
                'ERROR_MODEL_UNSUPPORTED',
                f'member {large} of the committee {spec.name} has {members[large].n_members} members itself: '
                'a committee is made of models with one member each',
            )
        return cls(members)

    def evaluate(self, frames: Frames, request: frozenset[str]) -> Evaluation:
        """Evaluate a batch by every member."""
        own = request - _OF_MEMBERS | ({'forces'} if request & _OF_MEMBERS else frozenset())
        results = [member.evaluate(frames, own) for member in self._members]
        energies = np.stack([result.energies for result in results])
        means = {name: _mean([getattr(result, name) for result in results]) for name in _AVERAGED if name in own}
        if request & _OF_MEMBERS:
            forces = np.stack([_there(result.forces) for result in results])
            found = {'forces_std': sample_std(forces), 'member_forces': forces}
            means |= {name: values for name, values in found.items() if name in request}
        if 'forces' not in request:
            means.pop('forces', None)
        return Evaluation(energies.mean(axis=0), member_energies=energies, **means)

    def hessians(self, frames: Frames) -> FloatArray | None:
        """Return the mean of the members' Hessians, or ``None`` where a member has none of itself."""
        found = self.member_hessians(frames)
        return None if found is None else np.asarray(found.mean(axis=0))

    def member_hessians(self, frames: Frames) -> FloatArray | None:
        """Return the Hessians of all members."""
        found = []
        for member in self._members:
            hessians = member.hessians(frames)
            if hessians is None:
                return None
            found.append(hessians)
        return np.stack(found)

    def batch_atoms(self) -> int:
        """Return what a member takes at once: they are evaluated one after the other."""
        return self._members[0].batch_atoms()

    def batch_key(self, frames: Frames) -> npt.NDArray[Any] | None:
        """Return the order that suits the members."""
        return self._members[0].batch_key(frames)

    def details(self) -> Mapping[str, Any]:
        """Return the details on which the members agree."""
        first, *others = (member.details() for member in self._members)
        agreed = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
        return {**agreed, 'committee': self.n_members}


def split(spec: ModelSpec) -> list[ModelSpec]:
    """Return each parameter set of a committee as a model of its own.

    :raises WorkerError: if a member has no files
    """
    members = []
    for index in range(spec.committee):
        prefix = member_directory(index)
        files = {name: sha256 for name, sha256 in spec.files.items() if name.startswith(f'{prefix}/')}
        if not files:
            raise WorkerError('ERROR_MODEL_MISSING', f'the committee {spec.name} has no files in {prefix}')
        members.append(
            dataclasses.replace(spec, name=f'{spec.name}[{index}]', files=files, committee=0, ensemble_size=1)
        )
    return members


def _mean(values: Sequence[FloatArray | None]) -> FloatArray:
    return np.asarray(np.mean([_there(value) for value in values], axis=0))


def _there(value: FloatArray | None) -> FloatArray:
    if value is None:
        raise WorkerError('ERROR_PROPERTY_UNAVAILABLE', 'a member of the committee left out a requested property')
    return value
