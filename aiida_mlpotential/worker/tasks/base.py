"""The contract of a task: what it stores, and how it turns frames and a backend into results."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..backends.base import Backend
from ..checkpoint import CheckpointFile
from ..errors import FrameStatus
from ..frames import Frames, IntArray
from ..progress import Progress
from ..quantities import QUANTITIES, TASK_QUANTITIES, names_for
from ..request import asked_properties
from ..schema import MAX_MESSAGES
from ..storage import ResultsStore
from .evaluation import Evaluator


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
    """All that a task works with.

    :ivar parameters: all parameters of the task, complete
    :ivar evaluator: the backend, in batches that fit
    :ivar stopping: True once the job was asked to stop; the task then ends after the batch at hand
    :ivar checkpoint: called after each batch; makes what was written durable now and then
    :ivar checkpoints: the state of what is under way
    :ivar directory: the work directory
    :ivar symmetry: the arrays of the symmetry file, where there is one
    """

    frames: Frames
    backend: Backend
    evaluator: Evaluator
    store: ResultsStore
    parameters: Mapping[str, Any]
    messages: Messages
    notes: list[str]
    progress: Progress
    stopping: Callable[[], bool]
    checkpoint: Callable[[], None]
    checkpoints: CheckpointFile
    directory: Path
    symmetry: Mapping[str, npt.NDArray[Any]] | None = None

    @property
    def budget(self) -> int:
        """Return how many atoms a batch may have."""
        return int(self.parameters['batch_atoms'] or self.backend.batch_atoms())

    def fail(self, indices: IntArray, status: FrameStatus, message: str) -> None:
        """Give frames a status other than OK."""
        self.store.mark(np.asarray(indices), np.full(len(indices), status, dtype=np.int8))
        for index in indices:
            self.messages.add(index, message)
        self.progress.advance(len(indices))


class Task(abc.ABC):
    """What a job does."""

    #: Key of ``TASKS`` and ``TASK_QUANTITIES``.
    name: ClassVar[str]
    #: Statuses that another run may mend, beside those that another machine may: a restart tries these frames again.
    retried: ClassVar[tuple[FrameStatus, ...]] = ()

    @classmethod
    def quantities(cls, parameters: Mapping[str, Any], ensemble: bool) -> tuple[str, ...]:
        """Return the names of the arrays to store, in the order of ``QUANTITIES``.

        :param ensemble: whether the model has two members or more
        """
        names = {*names_for(asked_properties(parameters), ensemble), *cls.own(parameters, ensemble)}
        return tuple(name for name in QUANTITIES if name in names)

    @classmethod
    def own(cls, parameters: Mapping[str, Any], ensemble: bool) -> tuple[str, ...]:
        """Return the names of the arrays beside what may be requested of any task."""
        return TASK_QUANTITIES[cls.name]

    @abc.abstractmethod
    def run(self, context: Context) -> None:
        """Do it for all frames whose status is ``PENDING``."""
