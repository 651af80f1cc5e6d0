"""Find structures whose status is on disk while their values are not: they are computed again.

A status is written after the values that it makes count. A crash of the machine may all the same leave the one on disk
without the others, since the file system writes its pages in any order, and so may a copy that is made while a worker
still writes, such as that of a node that the scheduler believes dead.
"""

from __future__ import annotations

import numpy as np

from .errors import FrameStatus
from .frames import BoolArray, Frames, IntArray
from .storage import ResultsStore

#: Arrays without values where not every member of the ensemble has its own Hessian.
MAY_BE_MISSING = ('member_frequencies', 'frequency_std', 'member_gibbs_energies', 'gibbs_energy_std')


def torn_frames(store: ResultsStore, frames: Frames) -> IntArray:
    """Return the numbers of the structures that count as evaluated and lack some of their values.

    What was never written is NaN, or -1 in arrays of counts, and no finished structure has that: except the stress of
    one that is not a crystal.

    :param store: open results
    """
    missing: BoolArray = np.zeros(len(frames), dtype=bool)
    for name in store.names:
        if name == 'stress':
            missing |= store.missing(name) & frames.pbc.all(axis=1)
        elif name not in MAY_BE_MISSING:
            missing |= store.missing(name)
    return np.flatnonzero(missing & (store.status == FrameStatus.OK))
