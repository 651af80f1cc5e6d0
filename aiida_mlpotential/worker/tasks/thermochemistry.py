"""Thermochemistry: vibrational analysis, and the ideal gas that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..errors import HAS_RESULTS, FrameStatus, WorkerError
from ..frames import Frames, IntArray
from ..ideal_gas import check_molecules, thermochemistry_of, too_low
from ..parameters.thermochemistry import check_structures
from ..thermochemistry import Settings
from .base import Context
from .evaluation import Arrays
from .vibrations import Vibrations

#: What only an ensemble has, when ``member_frequencies`` is not switched off.
_OF_MEMBERS = ('member_gibbs_energies', 'gibbs_energy_std')
_REFUSALS = {
    FrameStatus.NOT_A_MOLECULE: 'periodic, but thermochemistry is that of an ideal gas of molecules: remove its pbc',
    FrameStatus.NO_SYMMETRY_NUMBER: 'its point group was not found: give `symmetry_number`',
}
#: At most so many structures, and modes of each, are named in a note; ``frequencies`` has them all.
_NAMED = 5


class Thermochemistry(Vibrations):
    """Find the normal modes of every molecule, and its thermochemistry as an ideal gas."""

    name: ClassVar[str] = 'thermochemistry'

    @classmethod
    def own(cls, parameters: Mapping[str, Any], ensemble: bool) -> tuple[str, ...]:
        """Return the names of the arrays of vibrations and of the ideal gas."""
        names = super().own(parameters, ensemble)
        members = ensemble and parameters['member_frequencies']
        return names if members else tuple(name for name in names if name not in _OF_MEMBERS)

    def run(self, context: Context) -> None:
        """Analyse all pending molecules; crystals, and those without a symmetry number, fail before the first step."""
        message = check_structures(context.parameters, context.frames.pbc)
        if message:
            raise WorkerError('ERROR_JOB_INVALID', message)
        self._symmetry_numbers = _symmetry_numbers(context)
        status = check_molecules(context.frames, self._symmetry_numbers)
        waiting = context.store.status == FrameStatus.PENDING
        for reason, text in _REFUSALS.items():
            context.fail(np.flatnonzero(waiting & (status == reason)), reason, text)
        super().run(context)
        context.notes += [*_remarks(context), *_spin_remarks(context)]

    def derive(self, context: Context, indices: IntArray, frames: Frames, arrays: Arrays) -> Arrays:
        """Return the arrays of the ideal gas."""
        spins = np.broadcast_to(np.asarray(context.parameters['spin_multiplicity']), len(context.frames))
        numbers = self._symmetry_numbers[indices]
        return thermochemistry_of(frames, arrays, Settings.of(context.parameters), numbers, spins[indices])


def _symmetry_numbers(context: Context) -> IntArray:
    """Return the symmetry number of every frame of the job, 0 where it is unknown, ``(n,)``."""
    value = context.parameters['symmetry_number']
    if value is None:
        value = (context.symmetry or {}).get('symmetry_numbers', 0)
    return np.array(np.broadcast_to(np.asarray(value, dtype=np.int64), len(context.frames)))


def _remarks(context: Context) -> list[str]:
    """Return notes on modes that do not count, or not as they are, also on those of an earlier run."""
    store, cutoff = context.store, float(context.parameters['low_frequency_cutoff'])
    members = 'member_gibbs_energies' in store.names
    left_out, shared = [], []
    for index in np.flatnonzero(np.isin(store.status, list(HAS_RESULTS))).tolist():
        n_rigid = int(store.read('n_rigid', index))
        wavenumbers = store.read('frequencies', index)[n_rigid:]
        counted = (wavenumbers > 0) & (wavenumbers >= cutoff)
        if not counted.all():
            values = [f'{abs(value):.1f}' + 'i' * bool(value < 0) for value in wavenumbers[~counted]]
            left_out.append(f'{context.frames.label(index)} ({_first(values)})')
        if members:
            low = too_low(store.read('member_frequencies', index)[:, n_rigid:][:, counted], cutoff)
            if low.any():
                values = [f'{value:.1f}' for value in wavenumbers[counted][low]]
                shared.append(f'{context.frames.label(index)} ({_first(values)})')
    notes = []
    if left_out:
        notes.append(f'modes in cm^-1 that are left out of the sums, in {_counted(left_out)}: {_first(left_out)}')
    if shared:
        notes.append(
            'modes in cm^-1 that are imaginary or too low for some members, and add nothing to the spread of the Gibbs '
            f'energy, in {_counted(shared)}: {_first(shared)}'
        )
    return notes


def _spin_remarks(context: Context) -> list[str]:
    """Return a note on molecules that cannot have their multiplicity: with an odd number of electrons it is even."""
    frames = context.frames
    electrons = np.bincount(frames.frame_of_atom, frames.numbers, len(frames)).astype(np.int64)
    wrong = (electrons + np.asarray(context.parameters['spin_multiplicity'])) % 2 == 0
    wrong &= np.isin(context.store.status, list(HAS_RESULTS))
    if not wrong.any():
        return []
    labels = [frames.label(index) for index in np.flatnonzero(wrong).tolist()]
    return [
        f'spin_multiplicity does not go with the number of electrons of the neutral molecule, in {_counted(labels)}: '
        f'{_first(labels)}'
    ]


def _first(texts: list[str]) -> str:
    return ', '.join(texts[:_NAMED]) + ', ...' * (len(texts) > _NAMED)


def _counted(texts: list[str]) -> str:
    return f'{len(texts)} structure{"s" * (len(texts) > 1)}'
