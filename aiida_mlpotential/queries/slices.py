"""Parts of a set of structures that were computed before: finished ones to use again, others to go on with.

A screening that was killed and is started again asks this first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.selection import Selection
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.parameters import parameters_hash
from aiida_mlpotential.worker.schema import RESULTS_VERSION

from .processes import TERMINATED, process_type

#: Outcomes of a structure that may change: on another machine, with more memory, or by going on from where it ended.
_MAY_CHANGE = frozenset(
    status.name
    for status in (
        FrameStatus.PENDING,
        FrameStatus.OUT_OF_MEMORY,
        FrameStatus.BACKEND_FAILED,
        FrameStatus.NOT_CONVERGED,
    )
)


@dataclasses.dataclass(frozen=True)
class Origin:
    """What results must have been made of to be equal: set of structures, model, task and the parameters that count.

    :ivar structures: the node of the whole set; one with equal content is as good
    :ivar model: the stored node
    :ivar parameters: as a job takes them; what is missing has its default, what changes no results does not matter
    """

    structures: StructureSetData
    model: ModelData
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    task: str = 'single_point'


@dataclasses.dataclass(frozen=True)
class FoundSlice:
    """The best that the database has of one part of a set.

    :ivar selection: which structures; ``None`` for all of the set
    :ivar job: PK of the calculation
    :ivar results: PK of its results, ``None`` if it was killed before there were any
    :ivar remote_folder: PK of its work directory, ``None`` if it left none, or it has been cleaned
    :ivar counts: number of structures by the name of their status; nothing without results
    """

    selection: Selection | None
    job: int
    results: int | None = None
    remote_folder: int | None = None
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Return whether no structure can have another outcome by computing it again or going on with it."""
        return self.results is not None and not _MAY_CHANGE.intersection(self.counts)

    def get_results(self) -> ResultsData:
        """Return the node of the results.

        :raises ValueError: if there are none
        """
        if self.results is None:
            raise ValueError(f'calculation {self.job} has no results: go on from its work directory')
        return orm.load_node(self.results)  # type: ignore[return-value]

    def get_remote_folder(self) -> orm.RemoteData | None:
        """Return the work directory to go on from (``parent_folder``), or ``None``."""
        return None if self.remote_folder is None else orm.load_node(self.remote_folder)  # type: ignore[return-value]


def find_slices(origin: Origin, computer: orm.Computer | None = None) -> dict[Selection | None, FoundSlice]:
    """Return the best that the database has of every part of a set of structures.

    A finished slice is preferred to an unfinished one, and a newer one to an older one. Calculations that have not
    ended yet count for nothing: what they are about to finish would be computed twice.

    One that was killed or ended with an exception may have a worker all the same, where the scheduler was not told. To
    go on from its directory is safe: the next job works on a copy in a directory of its own, so that the two never
    write the same file. Of that copy the worker believes only what was finished before it was made, of which it has the
    status (``worker/storage.py``), drops structures of which values are missing (``worker/torn.py``), and takes a
    checkpoint, which is always replaced as a whole, only if it is complete and that of the very same job.

    :param computer: only work directories on it are named; by default all are
    """
    found: dict[Selection | None, FoundSlice] = {}
    for slice_ in _candidates(origin, computer):
        best = found.get(slice_.selection)
        if best is None or (slice_.is_finished and not best.is_finished):
            found[slice_.selection] = slice_
    return found


def _candidates(origin: Origin, computer: orm.Computer | None) -> Iterator[FoundSlice]:
    """Yield what every calculation of the same origin left, the newest first."""
    results, folders = _results(origin), _remote_folders(origin, computer)
    selections, parameters = _inputs(origin, 'selection'), _inputs(origin, 'parameters')
    wanted = parameters_hash(origin.parameters, origin.task)
    for pk in _jobs(origin).order_by({'job': [{'id': 'desc'}]}).all(flat=True):
        selection = Selection.from_dict(selections[pk]) if pk in selections else None
        if pk in results:
            node, counts = results[pk]
            yield FoundSlice(selection, pk, node, folders.get(pk), counts)
        elif pk in folders and parameters_hash(parameters.get(pk, {}), origin.task) == wanted:
            yield FoundSlice(selection, pk, None, folders[pk])


def _jobs(origin: Origin) -> orm.QueryBuilder:
    """Return a query for the PKs of all calculations of the set and the model that have ended, tagged ``job``."""
    query = orm.QueryBuilder()
    query.append(StructureSetData, filters={'attributes.sha256': origin.structures.sha256}, tag='structures')
    filters = {'attributes.process_state': {'in': TERMINATED}, 'process_type': process_type(origin.task)}
    edge = {'label': 'structures'}
    query.append(
        orm.CalcJobNode, with_incoming='structures', edge_filters=edge, filters=filters, project='id', tag='job'
    )
    query.append(ModelData, with_outgoing='job', edge_filters={'label': 'model'}, filters={'id': origin.model.pk})
    return query


def _inputs(origin: Origin, name: str) -> dict[int, dict[str, Any]]:
    """Return the content of an input of those calculations that have it, by calculation."""
    query = _jobs(origin)
    query.append(orm.Dict, with_outgoing='job', edge_filters={'label': name}, project='attributes')
    return dict(query.all())


def _results(origin: Origin) -> dict[int, tuple[int, dict[str, int]]]:
    """Return PK and counts by status of the results that are those that the origin would have, by calculation."""
    filters = {
        'attributes.structures_sha256': origin.structures.sha256,
        'attributes.parameters_hash': parameters_hash(origin.parameters, origin.task),
        'attributes.results_version': RESULTS_VERSION,
    }
    query = _jobs(origin)
    query.append(
        ResultsData,
        with_incoming='job',
        edge_filters={'label': 'results'},
        filters=filters,
        project=['id', 'attributes.status_counts'],
    )
    return {job: (node, counts) for job, node, counts in query.all()}


def _remote_folders(origin: Origin, computer: orm.Computer | None) -> dict[int, int]:
    """Return the PK of the work directory of each calculation that left one, by calculation."""
    query = _jobs(origin)
    query.append(orm.RemoteData, with_incoming='job', edge_filters={'label': 'remote_folder'}, tag='folder')
    query.add_projection('folder', ['id', f'extras.{orm.RemoteData.KEY_EXTRA_CLEANED}'])
    if computer is not None:
        query.append(orm.Computer, with_node='folder', filters={'id': computer.pk})
    return {job: folder for job, folder, cleaned in query.all() if not cleaned}
