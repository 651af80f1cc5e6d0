"""The EMT calculator with a gate: a test decides where in a job it stops, and sees afterwards what was computed."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from ase.calculators.emt import EMT

#: Bytes of a line: a sha256 and the end of the line.
_LINE = 65


class GatedEMT(EMT):
    """EMT that stops before a structure while the gate is closed, and notes every structure that it computes.

    The numbers are those of EMT.

    :param gate: a folder; while it has a file ``closed`` that holds a number, no process computes more structures than
        that, and with ``all`` and a number all processes together; each line of its file ``computed`` is a structure
    """

    def __init__(self, gate: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._closed, self._computed = Path(gate) / 'closed', Path(gate) / 'computed'
        self._calls = 0

    def calculate(self, atoms: Any = None, properties: Any = ('energy',), system_changes: Any = ()) -> None:
        """Wait for the gate, compute, and take a note."""
        while self._is_closed():
            time.sleep(0.02)
        super().calculate(atoms, properties, system_changes)
        self._calls += 1
        line = hashlib.sha256(atoms.positions.tobytes()).hexdigest() + '\n'
        handle = os.open(self._computed, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(handle, line.encode())
        os.close(handle)

    def _is_closed(self) -> bool:
        try:
            words = self._closed.read_text().split()
        except FileNotFoundError:
            return False
        if words[0] == 'all':
            return self._computed.exists() and self._computed.stat().st_size >= int(words[1]) * _LINE
        return self._calls >= int(words[0])
