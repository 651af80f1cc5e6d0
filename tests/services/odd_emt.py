"""The EMT calculator for jobs in which a test needs time, or too much memory. Imported by jobs through PYTHONPATH."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from ase.calculators.emt import EMT


class OddEMT(EMT):
    """EMT that takes its time for a structure, and later more memory than was granted. The numbers are those of EMT.

    :param seconds: waiting time before each structure
    :param megabytes: memory that is taken and filled once `after` structures are computed
    """

    def __init__(self, seconds: float = 0.0, megabytes: int = 0, after: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._seconds, self._megabytes, self._after = seconds, megabytes, after
        self._calls = 0
        self._ballast: list[Any] = []

    def calculate(self, atoms: Any = None, properties: Any = ('energy',), system_changes: Any = ()) -> None:
        """Wait, compute, and take memory when it is time."""
        time.sleep(self._seconds)
        if self._megabytes and self._calls == self._after:
            self._ballast = [np.ones(2**17) for _ in range(self._megabytes)]  # 1 MB each
        super().calculate(atoms, properties, system_changes)
        self._calls += 1
