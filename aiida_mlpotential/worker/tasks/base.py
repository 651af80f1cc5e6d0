"""The contract of a task: what it stores, and how it turns frames and a backend into results."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..errors import FrameStatus
from ..frames import Frames, IntArray
from ..progress import Progress
from ..schema import MAX_MESSAGES, PROPERTIES, QUANTITIES
from ..storage import ResultsStore


class Messages(dict[int, str]):
    """Why frames failed, by index; of very many failures only the first are kept."""

    def to_json(self) -> dict[str, str]:
        """Return them as they are written to the results file, by index."""
        return {str(index): self[index] for index in sorted(self)}

    def add(self, index: int, text: str) -> None:
        """Keep a message if there is room."""
        if len(self) < MAX_MESSAGES:
            self[int(index)] = text


@dataclasses.dataclass
class Context:
    """All that a task works with."""

    frames: Frames
    backend: Backend
    store: ResultsStore
    parameters: Mapping[str, Any]
    messages: Messages
    notes: list[str]
    progress: Progress
    #: True once the job was asked to stop; the task then ends after the batch at hand.
    stopping: Callable[[], bool]
    #: Called after each batch; makes what was written durable now and then.
    checkpoint: Callable[[], None]

    def fail(self, indices: IntArray, status: FrameStatus, message: str) -> None:
        """Give frames a status other than OK."""
        self.store.mark(np.asarray(indices), np.full(len(indices), status, dtype=np.int8))
        for index in indices:
            self.messages.add(index, message)
        self.progress.advance(len(indices))


class Task(abc.ABC):
    """What a job does."""

    @classmethod
    def quantities(cls, properties: tuple[str, ...], ensemble: bool) -> tuple[str, ...]:
        """Return the names of the arrays to store for the requested properties."""
        requested = {PROPERTIES[name] for name in properties}
        return tuple(
            name
            for name, quantity in QUANTITIES.items()
            if quantity.kind == 'always' or name in requested or (quantity.kind == 'ensemble' and ensemble)
        )

    @abc.abstractmethod
    def run(self, context: Context) -> None:
        """Do it for all frames whose status is ``PENDING``."""
