"""The sets of structures that this process read last: many jobs take parts of one set, each would read all of it."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable

import numpy as np

from aiida_mlpotential.worker.frames import Frames

#: So many sets are kept: enough for a screening and the structures that it optimizes.
MAX_SETS = 2

_recent: collections.OrderedDict[str, Frames] = collections.OrderedDict()
_lock = threading.Lock()


def read_once(sha256: str, read: Callable[[], Frames]) -> Frames:
    """Return the structures of a file, read only if it is none of the last ones; nobody can change their arrays.

    :param sha256: hash of the file
    :param read: reads it
    """
    with _lock:
        if sha256 not in _recent:
            frames = read()
            for field in dataclasses.fields(frames):
                array = getattr(frames, field.name)
                if isinstance(array, np.ndarray):
                    array.setflags(write=False)
            _recent[sha256] = frames
            while len(_recent) > MAX_SETS:
                _recent.popitem(last=False)
        _recent.move_to_end(sha256)
        return _recent[sha256]
