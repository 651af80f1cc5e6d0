"""Thermochemistry: vibrational analysis, and the ideal gas that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..errors import FrameStatus, WorkerError
from ..frames import Frames, IntArray
from ..ideal_gas import MEMBER_FLOOR, Molecules, check_molecules, thermochemistry_of
from ..parameters.thermochemistry import check_structures
from ..thermochemistry import Settings
from .base import Context
from .evaluation import Arrays
from .vibrations import Vibrations

#: What only an ensemble has, when `member_frequencies` is not switched off.
_OF_MEMBERS = ('member_gibbs_energies', 'gibbs_energy_std')
_REFUSALS = {
    FrameStatus.NOT_A_MOLECULE: 'periodic, but thermochemistry is that of an ideal gas of molecules: remove its pbc',
    FrameStatus.NO_SYMMETRY_NUMBER: 'its point group was not found: give `symmetry_number`',
}
#: The notes name at most so many structures; ``n_excluded`` and ``frequencies`` tell it of all.
_NAMED = 20


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
        """Analyse all pending molecules; those without symmetry number, and crystals, fail before any is evaluated."""
        message = check_structures(context.parameters, context.frames.pbc)
        if message:
            raise WorkerError('ERROR_JOB_INVALID', message)
        self._symmetry_numbers = _symmetry_numbers(context)
        self._named = 0
        status = check_molecules(context.frames, self._symmetry_numbers)
        waiting = context.store.status == FrameStatus.PENDING
        for reason, text in _REFUSALS.items():
            context.fail(np.flatnonzero(waiting & (status == reason)), reason, text)
        super().run(context)
        if self._named > _NAMED:
            context.notes.append(
                f'{self._named - _NAMED} further structures have modes that are left out of the sums or raised for a '
                'member: see `n_excluded`, `n_imaginary` and `member_frequencies`'
            )

    def derive(self, context: Context, indices: IntArray, frames: Frames, arrays: Arrays) -> Arrays:
        """Return the arrays of the ideal gas, and note which modes are not in its sums."""
        parameters, settings = context.parameters, Settings.of(context.parameters)
        for text in _remarks(context.frames, indices, arrays, settings):
            self._named += 1
            if self._named <= _NAMED:
                context.notes.append(text)
        spins = np.broadcast_to(np.asarray(parameters['spin_multiplicity']), len(context.frames))
        numbers = self._symmetry_numbers[indices]
        further = super().derive(context, indices, frames, arrays)
        return {**further, **thermochemistry_of(frames, arrays, settings, numbers, spins[indices])}


def _symmetry_numbers(context: Context) -> IntArray:
    """Return the symmetry number of every frame of the job, 0 where it is unknown, ``(n,)``."""
    value = context.parameters['symmetry_number']
    if value is None:
        known = context.symmetry or {}
        value = known.get('symmetry_numbers', 0)
    return np.array(np.broadcast_to(np.asarray(value, dtype=np.int64), len(context.frames)))


def _remarks(frames: Frames, indices: IntArray, arrays: Arrays, settings: Settings) -> list[str]:
    """Return a sentence for each structure of a batch that has modes which do not count with their own wavenumber.

    :param frames: all of the job
    :param indices: those of the batch
    """
    cutoff = settings.low_frequency_cutoff
    molecules = Molecules.of(frames.select(indices), arrays, 1)
    left_out = ~molecules.counted(cutoff) & np.isfinite(molecules.wavenumbers)
    raised = molecules.lifted(cutoff).any(axis=0)
    texts = []
    for row in np.unique(molecules.owners[left_out]):
        wavenumbers = molecules.wavenumbers[left_out & (molecules.owners == row)]
        values = ', '.join(f'{abs(value):.1f}' + ('i' if value < 0 else '') for value in wavenumbers)
        texts.append(f'{frames.label(int(indices[row]))}: left out of the sums: {values} cm^-1')
    for row in np.unique(molecules.owners[molecules.counted(cutoff)][raised]):
        texts.append(
            f'{frames.label(int(indices[row]))}: for some members a mode that counts is imaginary or low, and was '
            f'raised to {max(cutoff, MEMBER_FLOOR):g} cm^-1'
        )
    return texts
