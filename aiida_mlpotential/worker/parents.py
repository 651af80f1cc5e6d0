"""Where the files of earlier runs lie that a job may go on from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .schema import PARENT_DIRECTORY


def earlier_runs(directory: Path) -> Iterator[Path]:
    """Yield the directories with what was copied of earlier runs, the last run first.

    A run that was killed before it took up what it got, perhaps while it still waited in the queue, has it in its own
    ``parent``, which is copied as well.

    :param directory: the work directory
    """
    path = directory / PARENT_DIRECTORY
    while path.is_dir():
        yield path
        path = path / PARENT_DIRECTORY
