"""How far a process is, with all that it called: slices of structures, each with what came of it so far.

Only the database is read. While a calculation is on a computer it knows the state of the job and nothing else, so that
the structures of a slice count as done when its calculation has ended.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import Iterable, Mapping
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcJobState
from aiida.common.exceptions import NotExistent
from aiida.schedulers.datastructures import JobState

from .processes import TERMINATED
from .tree import CalledJob, called_jobs

#: Extra by which a workflow says what it is going to do: ``structures`` and ``slices``, the numbers in total (a
#: structure counts once for each model), and what it took from the database: ``reused_structures``, ``reused_slices``,
#: and ``reused_failed``, the failed structures among them.
PLAN_EXTRA = 'mlpotential_plan'

_ON_COMPUTER = (CalcJobState.STASHING.value, CalcJobState.RETRIEVING.value, CalcJobState.PARSING.value)


class Phase(enum.Enum):
    """Where a slice is."""

    QUEUED = 'queued'
    RUNNING = 'running'
    PAUSED = 'paused'
    DONE = 'done'
    FAILED = 'failed'


@dataclasses.dataclass(frozen=True)
class SliceProgress:
    """One part of the work, and the calculations that were made for it, one after the other.

    :ivar task: what is computed
    :ivar model: name of the model
    :ivar size: number of structures
    :ivar done: structures that have an outcome, good or bad
    :ivar failed: those of them with a bad one
    :ivar jobs: PKs of the calculations, the newest last
    """

    task: str
    model: str
    size: int
    done: int
    failed: int
    phase: Phase
    jobs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Progress:
    """A process and its slices at one moment.

    :ivar state: AiiDA's state of the process
    :ivar paused: whether it waits for `verdi process play`
    :ivar plan: see :data:`PLAN_EXTRA`; empty for a process without one
    :ivar seconds: how long the process has existed, or did until it ended
    """

    pk: int
    label: str
    state: str
    exit_status: int | None
    exit_message: str
    paused: bool
    slices: tuple[SliceProgress, ...]
    plan: Mapping[str, int]
    seconds: float

    @property
    def is_terminated(self) -> bool:
        """Return whether nothing more will happen."""
        return self.state in TERMINATED

    @property
    def is_successful(self) -> bool:
        """Return whether the process ended, and ended well."""
        return self.is_terminated and self.exit_status == 0

    @property
    def total(self) -> int:
        """Return the number of structures to compute; one counts once for each model and task."""
        known = sum(item.size for item in self.slices) + self.plan.get('reused_structures', 0)
        return max(known, self.plan.get('structures', 0))

    @property
    def done(self) -> int:
        """Return the number of structures that have an outcome."""
        return sum(item.done for item in self.slices) + self.plan.get('reused_structures', 0)

    @property
    def failed(self) -> int:
        """Return the number of structures that have a bad outcome."""
        return sum(item.failed for item in self.slices) + self.plan.get('reused_failed', 0)

    @property
    def n_slices(self) -> int:
        """Return the number of slices, begun or not."""
        return max(len(self.slices) + self.plan.get('reused_slices', 0), self.plan.get('slices', 0))

    def count(self, phase: Phase) -> int:
        """Return the number of slices in a phase; a planned one that has no calculation yet is queued."""
        number = sum(item.phase is phase for item in self.slices)
        reused = self.plan.get('reused_slices', 0)
        if phase is Phase.DONE:
            return number + reused
        if phase is Phase.QUEUED and not self.is_terminated:
            return number + self.n_slices - len(self.slices) - reused
        return number

    @property
    def rate(self) -> float | None:
        """Return structures per second, of those that were computed and not taken from the database; or ``None``."""
        done = sum(item.done for item in self.slices)
        return done / self.seconds if done and self.seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Return the time that the rest takes at the rate so far, or ``None`` if nothing tells."""
        rate = self.rate
        return None if rate is None or self.is_terminated else (self.total - self.done) / rate


def progress_of(pk: int) -> Progress:
    """Return how far a process is.

    :raises NotExistent: if there is no such process
    """
    query = orm.QueryBuilder()
    attributes = ('process_label', 'process_state', 'exit_status', 'exit_message', 'paused')
    projections = ['ctime', 'mtime', f'extras.{PLAN_EXTRA}', *(f'attributes.{name}' for name in attributes)]
    query.append(orm.ProcessNode, filters={'id': pk}, project=projections)
    found = query.first()
    if found is None:
        raise NotExistent(f'there is no process {pk}')
    begin, end, plan, label, state, exit_status, exit_message, paused = found
    if state not in TERMINATED:
        end = datetime.datetime.now(tz=begin.tzinfo)
    slices = tuple(_slice(jobs) for jobs in _group(called_jobs(pk)))
    return Progress(
        pk=pk,
        label=label or '',
        state=state or 'created',
        exit_status=exit_status,
        exit_message=exit_message or '',
        paused=bool(paused),
        slices=slices,
        plan=dict(plan or {}),
        seconds=max(0.0, (end - begin).total_seconds()),
    )


def _group(jobs: Iterable[CalledJob]) -> list[list[CalledJob]]:
    """Return the calculations that were made for each slice: a restart or another try is no slice of its own."""
    groups: dict[Any, list[CalledJob]] = {}
    for job in sorted(jobs, key=lambda job: job.pk):
        groups.setdefault(job.identity, []).append(job)
    return list(groups.values())


def _slice(jobs: list[CalledJob]) -> SliceProgress:
    last = jobs[-1]
    best = max(jobs, key=lambda job: (job.done, job.pk))  # a later one goes on from what an earlier one has done
    return SliceProgress(
        task=last.task,
        model=last.model,
        size=last.size,
        done=best.done,
        failed=best.failed,
        phase=_phase(last, best),
        jobs=tuple(job.pk for job in jobs),
    )


def _phase(last: CalledJob, best: CalledJob) -> Phase:
    if last.state not in TERMINATED:
        if last.paused:
            return Phase.PAUSED
        is_running = last.scheduler_state == JobState.RUNNING.value or last.job_state in _ON_COMPUTER
        return Phase.RUNNING if is_running else Phase.QUEUED
    if best.done >= best.size:
        return Phase.DONE
    return Phase.FAILED if last.caller_ended else Phase.QUEUED
