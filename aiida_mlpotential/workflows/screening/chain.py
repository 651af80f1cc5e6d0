"""The screening: slices of one set of structures for every model, merged, ranked and looked through."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import ExitCode, WorkChain, append_, if_, while_

from aiida_mlpotential.calculations.validation import content
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.statistics import format_causes
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.queries.progress import PLAN_EXTRA
from aiida_mlpotential.queries.slices import Origin, find_slices
from aiida_mlpotential.worker.errors import FrameStatus

from .. import exit_codes
from ..staging import StagingMixin, should_stage
from .collecting import Outcome, collect, outcome_of
from .diversity import select_structures
from .lane import ScreeningLaneWorkChain, workflow_of
from .merging import merge_results, merge_structures, part_name
from .protocol import ScreeningProtocolMixin
from .ranking import rank_structures
from .slices import DEFAULT_SIZE, Slice, deal, take_apart
from .specification import define_inputs, define_outputs
from .validation import optimizing_model

#: So often a slice is given to a lane: a first time, and once more if anything of it is missing.
MAX_ROUNDS = 2


def _slices(number: int) -> str:
    return f'{number} slice{"" if number == 1 else "s"}'


class ScreeningWorkChain(ScreeningProtocolMixin, StagingMixin, WorkChain):
    """Evaluate a set of structures of any size with one or several models.

    The set is taken apart into slices, each a job of its own that takes its part of the **same** node. Jobs that fail
    do not cost the others: what is there is merged, ranked and returned, and the exit code says what is missing.
    """

    @classmethod
    def define(cls, spec: Any) -> None:
        """Declare inputs, outline, outputs and exit codes."""
        super().define(spec)
        define_inputs(spec)
        define_outputs(spec)
        spec.outline(
            cls.setup,
            if_(cls.should_optimize)(
                cls.prepare_optimization,
                while_(cls.has_slices)(cls.stage_models, cls.run_lanes, cls.collect_lanes),
                cls.merge_optimized,
            ),
            cls.prepare_evaluation,
            while_(cls.has_slices)(cls.stage_models, cls.run_lanes, cls.collect_lanes),
            cls.merge,
            cls.rank,
            if_(cls.should_select)(cls.select),
            cls.finish,
        )
        exit_codes.declare_exit_codes(spec)
        spec.exit_code(810, 'ERROR_SLICES_MISSING', 'Some slices are not complete, the others are merged: {detail}')
        spec.exit_code(811, 'ERROR_NO_RESULTS', 'No slice has results: {detail}')

    def setup(self) -> None:
        """Take the set apart, and say how much there is to do."""
        structures: StructureSetData = self.inputs.structures
        size = self.inputs.slice_size.value if 'slice_size' in self.inputs else DEFAULT_SIZE
        self.ctx.slices = [list(item) for item in take_apart(len(structures), size)]
        self.ctx.structures = structures
        self.ctx.missing, self.ctx.unoptimized = [], {}
        rounds = len(self.inputs.models) + bool(self.should_optimize())
        self.ctx.plan = {'structures': rounds * len(structures), 'slices': rounds * len(self.ctx.slices)}
        self.ctx.plan.update(reused_structures=0, reused_slices=0, reused_failed=0)
        models, lanes = ', '.join(sorted(self.inputs.models)), self.inputs.max_concurrent.value
        slices = _slices(len(self.ctx.slices))
        self.report(f'{len(structures)} structures in {slices} with {models}, at most {lanes} jobs at once')

    def should_optimize(self) -> bool:
        """Return whether the structures are to be optimized first."""
        return bool(self.inputs.get('optimization'))

    def prepare_optimization(self) -> None:
        """Plan the slices of the optimization."""
        optimization = self.inputs.optimization
        self._prepare('geometry_optimization', [optimizing_model(self.inputs)], optimization.get('parameters'))

    def prepare_evaluation(self) -> None:
        """Plan the slices of the single points, with each model."""
        self._prepare('single_point', sorted(self.inputs.models), self.inputs.get('parameters'))

    def _prepare(self, task: str, labels: list[str], parameters: orm.Dict | None) -> None:
        """Plan the slices of a task; what the database has of them is not computed again."""
        self.ctx.task, self.ctx.parameters, self.ctx.round, self.ctx.lanes = task, parameters, 0, []
        self.ctx.outcomes, self.ctx.todo = {}, []
        for label in labels:
            known = self._known(label)
            for start, stop in self.ctx.slices:
                item = Slice(label, start, stop)
                outcome = known.get((start, stop), Outcome())
                if outcome.is_complete:
                    self.ctx.outcomes[item.name] = dataclasses.asdict(outcome)
                    self._count_reused(outcome)
                else:
                    if outcome.results is not None:  # kept should no lane get further
                        self.ctx.outcomes[item.name] = dataclasses.asdict(outcome)
                    self.ctx.todo.append(dataclasses.replace(item, parent=outcome.parent).to_dict())
        self.node.base.extras.set(PLAN_EXTRA, dict(self.ctx.plan))

    def _known(self, label: str) -> dict[tuple[int, int], Outcome]:
        """Return what earlier jobs left of the slices of a model."""
        if not self.inputs.reuse:
            return {}
        model, code = self.inputs.models[label], self._code(label)
        origin = Origin(self.ctx.structures, model, content(self.ctx.parameters), self.ctx.task)
        found = find_slices(origin, code.computer)
        known = {}
        for selection, item in found.items():
            if selection is not None:
                outcome = outcome_of(orm.load_node(item.job))
                complete = item.is_finished and outcome.is_complete
                outcome = dataclasses.replace(outcome, parent=item.remote_folder, is_complete=complete)
                known[selection.start, selection.stop] = outcome
        return known

    def _count_reused(self, outcome: Outcome) -> None:
        results: ResultsData = orm.load_node(outcome.results)  # type: ignore[assignment]
        self.ctx.plan['reused_structures'] += len(results)
        self.ctx.plan['reused_slices'] += 1
        self.ctx.plan['reused_failed'] += results.n_failed

    def _code(self, label: str) -> orm.AbstractCode:
        code: orm.AbstractCode = self.inputs.get('codes', {}).get(label) or self.inputs.code
        return code

    def has_slices(self) -> bool:
        """Return whether there is a slice that has not been tried often enough."""
        return bool(self.ctx.todo) and self.ctx.round < MAX_ROUNDS

    def stage_models(self) -> None:
        """Bring each model to its computer once, before several lanes would do so at the same time."""
        wanted = {}
        for label in sorted({item['model'] for item in self.ctx.todo}):
            model, code = self.inputs.models[label], self._code(label)
            computer = code.computer
            if computer is not None and should_stage(model, code, computer, self.inputs.get('stage_model')):
                wanted[model.uuid, computer.uuid] = (model, computer)
        for model, computer in wanted.values():
            self.to_context(staged=append_(self.submit_staging(model, computer)))

    def run_lanes(self) -> Any:
        """Give the slices to as many lanes as jobs may run at once."""
        self.ctx.round += 1
        self.ctx.lanes = []
        todo = [Slice(**item) for item in self.ctx.todo]
        labels = sorted({item.model for item in todo})
        shared: dict[str, Any] = {
            'structures': self.ctx.structures,
            'task': self.ctx.task,
            'options': dict(self.inputs.options),
            'allow_cpu': self.inputs.allow_cpu,
            'models': {label: self.inputs.models[label] for label in labels},
            'codes': {label: self._code(label) for label in labels},
        }
        for name, node in (('parameters', self.ctx.parameters), ('max_iterations', self.inputs.get('max_iterations'))):
            if node is not None:
                shared[name] = node
        if 'stage_model' in self.inputs:
            shared['stage_model'] = self.inputs.stage_model
        if not all(node.is_finished_ok for node in self.ctx.get('staged', [])):
            shared['stage_model'] = False  # else every slice would try again what failed once
        if len(todo) <= self.inputs.max_concurrent.value:  # all at once: there is nothing for lanes to put in a row
            for item in todo:
                workflow, inputs = workflow_of(item, shared)
                self.to_context(lanes=append_(self.submit(workflow, **inputs)))
            self.report(f'{self.ctx.task}: {_slices(len(todo))} at once, round {self.ctx.round}')
            return
        lanes = deal(todo, self.inputs.max_concurrent.value)
        for number, lane in enumerate(lanes):
            slices = orm.List([item.to_dict() for item in lane])
            label = f'{self.ctx.task}_{self.ctx.round}_{number:03d}'
            metadata = {'label': label, 'call_link_label': label}
            self.to_context(
                lanes=append_(self.submit(ScreeningLaneWorkChain, slices=slices, metadata=metadata, **shared))
            )
        self.report(f'{self.ctx.task}: {_slices(len(todo))} in {len(lanes)} lanes, round {self.ctx.round}')

    def collect_lanes(self) -> None:
        """Keep what the lanes left, and plan once more what is missing."""
        outcomes = collect(self.ctx.lanes)
        todo = []
        for item in (Slice(**values) for values in self.ctx.todo):
            outcome = outcomes.get(item.name, Outcome())
            if outcome.results is not None:
                self.ctx.outcomes[item.name] = dataclasses.asdict(outcome)
            if not outcome.is_complete:
                todo.append(dataclasses.replace(item, parent=outcome.parent or item.parent).to_dict())
        self.ctx.todo = todo
        if todo:
            names = ', '.join(Slice(**item).name for item in todo[:5])
            self.report(f'not complete: {_slices(len(todo))}, {names}{", ..." if len(todo) > 5 else ""}')

    def _parts(self, label: str, what: str) -> dict[str, Any]:
        """Return the results or structures that there are of a model, by the name of the part."""
        parts = {}
        for start, stop in self.ctx.slices:
            pk = self.ctx.outcomes.get(Slice(label, start, stop).name, {}).get(what)
            if pk is not None:
                parts[part_name(start)] = orm.load_node(pk)
        return parts

    def merge_optimized(self) -> ExitCode | None:
        """Make one set of the optimized structures, to go on with."""
        self._note_missing()
        parts = self._parts(optimizing_model(self.inputs), 'structures')
        if not parts:
            return self.exit_codes.ERROR_NO_RESULTS.format(detail='of the optimization')
        self.ctx.unoptimized = self._unoptimized()
        if self.ctx.unoptimized:
            number = len(self.ctx.unoptimized)
            self.report(f'{number} structures were not optimized to the end: they are evaluated and not ranked')
        self.ctx.structures = merge_structures(self.inputs.structures, orm.List(self.ctx.slices), **parts)
        self.out('output_structures', self.ctx.structures)
        return None

    def _unoptimized(self) -> dict[str, str]:
        """Return how the optimization of structures ended, by number, where it did not end well."""
        label, found = optimizing_model(self.inputs), dict[str, str]()
        parts, structures = self._parts(label, 'results'), self._parts(label, 'structures')
        for start, stop in self.ctx.slices:
            name = part_name(start)
            results: ResultsData | None = parts.get(name) if name in structures else None
            statuses = np.full(stop - start, FrameStatus.PENDING) if results is None else results.status
            wrong = np.flatnonzero(statuses != FrameStatus.OK).tolist()
            found.update((str(start + index), FrameStatus(int(statuses[index])).name) for index in wrong)
        return found

    def _note_missing(self) -> None:
        self.ctx.missing = [*self.ctx.missing, *(f'{self.ctx.task} {Slice(**item).name}' for item in self.ctx.todo)]

    def merge(self) -> ExitCode | None:
        """Make the results of each model those of the whole set."""
        self._note_missing()
        self.ctx.merged = {}
        for label in sorted(self.inputs.models):
            parts = self._parts(label, 'results')
            if parts:
                node = merge_results(self.ctx.structures, orm.List(self.ctx.slices), **parts)
                self.ctx.merged[label] = node
                self.out(f'results.{label}', node)
        if not self.ctx.merged:
            return self.exit_codes.ERROR_NO_RESULTS.format(detail=f'see `verdi process report {self.node.pk}`')
        return None

    def rank(self) -> None:
        """Rank the structures of each formula, flag the uncertain ones, and sum up."""
        max_qbc = self.inputs.max_qbc.value if 'max_qbc' in self.inputs else None
        slices = {**self.ctx.plan, 'missing_slices': self.ctx.missing}
        settings = orm.Dict({'max_qbc': max_qbc, 'slices': slices, 'unoptimized': self.ctx.unoptimized})
        found = rank_structures(self.ctx.structures, settings, **self.ctx.merged)
        self.ctx.ranking = found['ranking']
        self.out_many(found)

    def should_select(self) -> bool:
        """Return whether structures are to be chosen for reference calculations, and any has a spread to go by."""
        if 'n_selected' not in self.inputs:
            return False
        known = bool(np.isfinite(self.ctx.ranking.get_array('uncertainty')).any())
        if not known:
            self.report('no structure has a spread: none is selected')
        return known

    def select(self) -> None:
        """Choose the most uncertain and diverse structures."""
        node = select_structures(self.ctx.structures, self.ctx.ranking, self.inputs.n_selected)
        self.out('selected_structures', node)

    def finish(self) -> ExitCode | None:
        """Say what is missing or failed."""
        if self.ctx.missing:
            return self.exit_codes.ERROR_SLICES_MISSING.format(detail=', '.join(self.ctx.missing[:5]))
        total, unoptimized = len(self.ctx.structures), len(self.ctx.unoptimized)
        details = [f'{unoptimized} of {total} in the optimization'] if unoptimized else []
        for label, node in self.ctx.merged.items():
            if node.n_failed:
                causes = format_causes(node.base.attributes.get('status_counts'))
                details.append(f'{node.n_failed} of {total} with {label} ({causes})')
        if not details:
            return None
        all_failed = all(node.n_ok == 0 for node in self.ctx.merged.values())
        name = 'ERROR_ALL_STRUCTURES_FAILED' if all_failed else 'ERROR_SOME_STRUCTURES_FAILED'
        code: ExitCode = getattr(self.exit_codes, name)
        return code.format(detail=', '.join(details))
