"""Vibrational analysis: Hessians of all frames in one stream of full batches, and the normal modes of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..frames import Frames, IntArray
from ..quantities import TASK_QUANTITIES
from .base import Context, Task
from .evaluation import Arrays

#: What only an ensemble has, when `member_frequencies` is not switched off.
_OF_MEMBERS = ('member_frequencies', 'frequency_std')


class Vibrations(Task):
    """Find the normal modes of every frame."""

    name: ClassVar[str] = 'vibrations'

    @classmethod
    def own(cls, parameters: Mapping[str, Any], ensemble: bool) -> tuple[str, ...]:
        """Return the names of the modes' arrays, and the Hessian that they are of."""
        names = ('hessian', *TASK_QUANTITIES[cls.name])
        members = ensemble and parameters['member_frequencies']
        return names if members else tuple(name for name in names if name not in _OF_MEMBERS)

    def run(self, context: Context) -> None:
        """Analyse all pending frames."""
        raise NotImplementedError

    def derive(self, context: Context, indices: IntArray, frames: Frames, arrays: Arrays) -> Arrays:
        """Return further arrays of frames whose modes are known, to be stored with them.

        :param indices: the frames, ``(b,)``, of any sizes
        :param frames: these frames
        :param arrays: all that is known of them by name, in the shapes of ``QUANTITIES``: ``energies``,
            ``member_energies``, ``frequencies``, ``n_rigid``, ``member_frequencies``, ...
        """
        return {}
