"""What the lanes of a screening left: results of slices, however lane, workflow and job ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from aiida import orm

from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.structures import StructureSetData


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What there is of a slice.

    :ivar results: PK, ``None`` without any
    :ivar structures: PK of the optimized structures, ``None`` without any
    :ivar parent: PK of the last work directory
    :ivar is_complete: whether every structure has its outcome, good or bad, and there is nothing that should be there
    """

    results: int | None = None
    structures: int | None = None
    parent: int | None = None
    is_complete: bool = False


def outcome_of(job: orm.CalcJobNode) -> Outcome:
    """Return what a job left."""
    outputs = job.outputs
    results: ResultsData | None = outputs.results if 'results' in outputs else None
    structures: StructureSetData | None = outputs.output_structures if 'output_structures' in outputs else None
    return Outcome(
        results=None if results is None else results.pk,
        structures=None if structures is None else structures.pk,
        parent=outputs.remote_folder.pk if 'remote_folder' in outputs else None,
        is_complete=results is not None and results.n_pending == 0 and (structures is not None or not _moves(job)),
    )


def _moves(job: orm.CalcJobNode) -> bool:
    """Return whether a job makes other structures: results alone, of files some of which were damaged, are not all."""
    return 'output_structures' in job.process_class.spec().outputs


def _age(node: orm.ProcessNode) -> int:
    return node.pk or 0


def _chains(lane: orm.WorkChainNode) -> list[orm.ProcessNode]:
    """Return the base workflows of a lane; what is none, is one itself."""
    return lane.called if lane.process_label == 'ScreeningLaneWorkChain' else [lane]


def collect(lanes: Iterable[orm.WorkChainNode]) -> dict[str, Outcome]:
    """Return the outcome of each slice that lanes began, by its name: of the last job that has results.

    It follows the calls and not the outputs, which a process that was killed has not attached.
    """
    found: dict[str, Outcome] = {}
    for lane in lanes:
        for chain in sorted(_chains(lane), key=_age):
            # A copy of the model that was made first is a job, too, but none of the slice.
            jobs = [node for node in chain.called if isinstance(node, orm.CalcJobNode) and 'structures' in node.inputs]
            for job in sorted(jobs, key=_age):
                outcome = outcome_of(job)
                if outcome.results is not None or (outcome.parent is not None and chain.label not in found):
                    found[chain.label] = outcome
    return found
