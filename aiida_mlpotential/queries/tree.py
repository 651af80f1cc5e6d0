"""The calculations that a process called, directly or through others, read level by level in a few queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

from aiida import orm

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.selection import Selection
from aiida_mlpotential.data.structures import StructureSetData

from . import staged
from .processes import TERMINATED, task_of


@dataclasses.dataclass(frozen=True)
class CalledJob:
    """A calculation of this plugin as the database knows it.

    :ivar state: AiiDA's state of the process
    :ivar job_state: what AiiDA does with the job, such as ``uploading`` or ``withscheduler``
    :ivar scheduler_state: what the scheduler last said of it
    :ivar caller_ended: whether the process that called it has ended; True for one that nothing called
    :ivar origin: PKs of the model and the structures, and the part of them
    :ivar size: number of structures
    :ivar done: those that have an outcome in its results, good or bad
    :ivar failed: those with a bad one
    """

    pk: int
    task: str
    state: str
    job_state: str | None
    scheduler_state: str | None
    paused: bool
    caller_ended: bool
    model: str
    origin: tuple[Hashable, ...]
    size: int
    done: int
    failed: int

    @property
    def identity(self) -> Hashable:
        """Return what it has in common with other tries to compute the same."""
        return self.task, self.origin


def called_jobs(pk: int) -> list[CalledJob]:
    """Return the calculations of this plugin below a process, itself included."""
    jobs: list[CalledJob] = []
    depth = 0
    while True:
        query = _level(pk, depth)
        if not query.count():
            return jobs
        jobs += _read_level(pk, depth)
        depth += 1


def _tag(depth: int) -> str:
    return f'process_{depth}'


def _level(root: int, depth: int, node_class: type[orm.ProcessNode] = orm.ProcessNode) -> orm.QueryBuilder:
    """Return a query for the PKs of processes that are so many calls below one: joins, as lists of PKs have limits."""
    query = orm.QueryBuilder()
    for number in range(depth + 1):
        kind = node_class if number == depth else orm.ProcessNode
        which: dict[str, Any] = {'with_incoming': _tag(number - 1)} if number else {'filters': {'id': root}}
        query.append(kind, tag=_tag(number), project='id' if number == depth else None, **which)
    return query


def _read_level(root: int, depth: int) -> list[CalledJob]:
    query = _level(root, depth, orm.CalcJobNode)
    attributes = ('process_state', 'state', 'scheduler_state', 'paused')
    query.add_projection(_tag(depth), ['id', 'process_type', *(f'attributes.{name}' for name in attributes)])
    if depth:
        query.add_projection(_tag(depth - 1), 'attributes.process_state')
    none = (None, staged.TASK)  # a copy of a model has no structures to count
    rows = [row for row in query.dict() if task_of(row[_tag(depth)]['process_type']) not in none]
    if not rows:
        return []
    models = _inputs(root, depth, ModelData, 'model', 'attributes.name')
    sets = _inputs(root, depth, StructureSetData, 'structures', 'attributes.n_frames')
    singles = _inputs(root, depth, orm.StructureData, 'structure', 'uuid')
    selections = _inputs(root, depth, orm.Dict, 'selection', 'attributes')
    results = _results(root, depth)
    jobs = []
    for row in rows:
        job = row[_tag(depth)]
        pk = job['id']
        model, name = models.get(pk, (0, ''))
        structures, n_frames = sets.get(pk, singles.get(pk, (0, 0)))
        selection = Selection.from_dict(selections[pk][1]) if pk in selections else None
        total, pending, failed = results.get(pk, (0, 0, 0))
        jobs.append(
            CalledJob(
                pk=pk,
                task=str(task_of(job['process_type'])),
                state=job['attributes.process_state'] or 'created',
                job_state=job['attributes.state'],
                scheduler_state=job['attributes.scheduler_state'],
                paused=bool(job['attributes.paused']),
                caller_ended=not depth or row[_tag(depth - 1)]['attributes.process_state'] in TERMINATED,
                model=name,
                origin=(model, structures, selection),
                size=len(selection) if selection else n_frames if pk in sets else 1,
                done=total - pending,
                failed=failed,
            )
        )
    return jobs


def _inputs(root: int, depth: int, node_class: type[orm.Data], name: str, key: str) -> dict[int, tuple[int, Any]]:
    """Return PK and a projection of an input of each calculation that has it, by calculation."""
    query = _level(root, depth, orm.CalcJobNode)
    query.append(node_class, with_outgoing=_tag(depth), edge_filters={'label': name}, project=['id', key])
    return {job: (node, value) for job, node, value in query.all()}


def _results(root: int, depth: int) -> dict[int, tuple[int, int, int]]:
    """Return how many structures there are, are pending and have failed in the results of each calculation."""
    query = _level(root, depth, orm.CalcJobNode)
    counts = [f'attributes.{name}' for name in ('n_frames', 'n_pending', 'n_failed')]
    query.append(ResultsData, with_incoming=_tag(depth), edge_filters={'label': 'results'}, project=counts)
    return {job: tuple(numbers) for job, *numbers in query.all()}
