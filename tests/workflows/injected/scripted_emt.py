"""The EMT calculator in a worker to which something happens: a test writes beforehand what, for each run in turn."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from ase.calculators.emt import EMT


class ScriptedEMT(EMT):
    """EMT that follows a script; the numbers are those of EMT.

    :param script: a file whose first line is for the next worker that computes something, and is taken out by it:
        ``kill N`` and ``term N`` send a signal before the structure number N of this run, ``raise N TEXT`` raises,
        ``go`` does nothing
    """

    def __init__(self, script: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._script, self._calls = Path(script), 0
        self._words: list[str] = []

    def calculate(self, atoms: Any = None, properties: Any = ('energy',), system_changes: Any = ()) -> None:
        """Do what the script says, then compute."""
        if not self._calls:
            lines = self._script.read_text().splitlines()
            self._words = lines[0].split(maxsplit=2)
            self._script.write_text('\n'.join(lines[1:]))
        self._calls += 1
        if self._words[0] != 'go' and self._calls >= int(self._words[1]):
            self._act()
        super().calculate(atoms, properties, system_changes)

    def _act(self) -> None:
        if self._words[0] == 'raise':
            raise RuntimeError(self._words[2])
        os.kill(os.getpid(), {'kill': signal.SIGKILL, 'term': signal.SIGTERM}[self._words[0]])
