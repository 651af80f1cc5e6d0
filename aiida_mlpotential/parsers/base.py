"""What all parsers share: reading the results file, storing the arrays, and finding the exit code."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ExitCode
from aiida.parsers import Parser

from aiida_mlpotential.data.results import ResultsData, ResultsError
from aiida_mlpotential.data.selection import frames_of_inputs
from aiida_mlpotential.data.structures import describe_frames
from aiida_mlpotential.worker import schema
from aiida_mlpotential.worker.errors import EXIT_CODES, LABELS, STATUS_LABELS, FrameStatus, WorkerError
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.parameters import fingerprint, parameters_hash, parameters_of

from .info import read_info
from .staged import explain
from .summaries import is_storable

#: So many failed structures are named in the output parameters; the results have all of them.
MAX_FAILURES = 20
#: A worker that could write can tell; where not even standard error has a word, there was no room, or no worker.
_SILENCE = 'it was never started, or the disk of the work directory has no room at all'
#: AiiDA's own exit codes, among them the verdicts of schedulers, are below those of the calculations.
_OWN_CODES = min(code.status for code in EXIT_CODES)
#: Keys of the results file that go to the output parameters as they are.
_COPIED = (
    'task',
    'units',
    'precision',
    'device',
    'num_threads',
    'batch_atoms',
    'temperatures',
    'versions',
    'worker_command',
    'timings',
    'peak_memory_mb',
    'notes',
)


class MlpotentialParser(Parser):
    """Turns results files into nodes; everything it reads has been retrieved."""

    CACHE_VERSION = schema.RESULTS_VERSION
    #: Class of the node with the results.
    RESULTS: ClassVar[type[ResultsData]] = ResultsData
    #: Arrays of the worker that go into other nodes.
    ELSEWHERE: ClassVar[tuple[str, ...]] = ()

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Store whatever there is, then say what went wrong, if anything did."""
        info = self._read_info()
        if isinstance(info, ExitCode):
            return self._unless_scheduler_spoke(info)
        try:
            results = self._read_results(info)
        except ResultsError as exception:
            self._output(info, None)
            return self._unless_scheduler_spoke(self._failure('ERROR_RESULTS_INVALID', str(exception)))
        exit_code = self._exit_code(info, results)
        if results is not None:
            self.out('results', results)
            try:
                for label, node in self.more_outputs(results):
                    self.out(label, node)
            except ResultsError as exception:
                exit_code = self._failure('ERROR_RESULTS_INVALID', str(exception))
        damaged = self._output(info, results)
        if damaged:
            detail = f'an array has NaN or infinity where the status is OK: there is no {", ".join(damaged)}'
            exit_code = self._failure('ERROR_RESULTS_INVALID', detail)
        return None if exit_code is None else self._unless_scheduler_spoke(exit_code)

    def more_outputs(self, results: ResultsData) -> Iterator[tuple[str, orm.Data]]:
        """Yield labels and unstored nodes of what a task makes beside the results.

        :raises ResultsError: if the files for the next one are damaged; those before it are kept
        """
        yield from ()

    def summarize(self, results: ResultsData) -> dict[str, Any]:
        """Return what the task adds to the output parameters; a subclass may say more."""
        return {}

    def _failure(self, label: str, detail: str) -> ExitCode:
        exit_code: ExitCode = getattr(self.exit_codes, label)
        return exit_code.format(detail=detail.rstrip('.'))

    def _unless_scheduler_spoke(self, exit_code: ExitCode) -> ExitCode:
        """Keep the verdict of the scheduler (out of memory or time, node failure), which knows the cause better."""
        status = self.node.exit_status
        if status and status < _OWN_CODES:  # else it is that of an earlier parsing of the same job
            return ExitCode(status, f'{self.node.exit_message} [{exit_code.message}]')
        return exit_code

    def _read_info(self) -> dict[str, Any] | ExitCode:
        """Return the content of the results file, or why there is none."""
        try:
            text = self.retrieved.base.repository.get_object_content(schema.RESULTS_FILE, mode='rb')
            info = read_info(text)
        except FileNotFoundError:
            return self._failure('ERROR_RESULTS_MISSING', self._last_words() or _SILENCE)
        except ValueError as exception:
            return self._failure('ERROR_RESULTS_INVALID', f'{schema.RESULTS_FILE}: {exception}')
        if (info.get('error') or {}).get('label') == 'ERROR_RESULTS_VERSION' and not info.get('counts'):
            return info  # the worker of another version computed nothing, and knows best what to do
        for key, known in (('format_version', schema.FORMAT_VERSION), ('results_version', schema.RESULTS_VERSION)):
            if info[key] > known:
                detail = f'{key} {info[key]}, this plugin reads up to {known}: update it'
                return self._failure('ERROR_RESULTS_VERSION', detail)
        return info

    def _last_words(self) -> str:
        """Return the last line that the worker or the shell wrote on standard error."""
        names = [schema.STDERR_FILE, self.node.get_option('scheduler_stderr')]
        for name in names:
            if name and name in self.retrieved.base.repository.list_object_names():
                content = self.retrieved.base.repository.get_object_content(name, mode='rb')
                lines = content.decode('utf-8', errors='replace').strip().splitlines()
                if lines:
                    return f'{name}: {lines[-1][:300]}'
        return ''

    def _read_results(self, info: dict[str, Any]) -> ResultsData | None:
        """Return the results node, unless the worker ended before it had made its files.

        :raises ResultsError: if the files are damaged, or those of another job
        """
        if schema.ARRAYS_DIRECTORY not in self.retrieved.base.repository.list_object_names():
            return None
        if 'counts' not in info and info['state'] in ('starting', 'failed'):
            return None
        job = self.read_job()
        if info.get('fingerprint') != fingerprint(job):
            raise ResultsError('the results are those of another job: their fingerprint is not that of this one')
        structures = self._structures_info()
        results = self.RESULTS.from_folder(
            self.retrieved, self.complete(info, job), structures_info=structures, without=self.ELSEWHERE
        )
        expected = structures['n_frames'], structures['n_atoms']
        if (len(results), int(results.offsets[-1])) != expected:
            raise ResultsError(f'the results are for {len(results)} structures, the job has {expected[0]}')
        results.base.attributes.set_many(self._origin(job))
        return results

    def read_job(self) -> schema.JobSpec:
        """Return the job that was sent.

        :raises ResultsError: if it is not there any more
        """
        try:
            return schema.JobSpec.from_json(self.node.base.repository.get_object_content(schema.JOB_FILE, mode='r'))
        except (FileNotFoundError, WorkerError) as exception:
            raise ResultsError(f'the job file of this calculation cannot be read: {exception}') from None

    def complete(self, info: Mapping[str, Any], job: schema.JobSpec) -> Mapping[str, Any]:
        """Return the content of the results file with what else the results node wants to know."""
        return info

    @property
    def single(self) -> bool:
        """Return whether the job had one structure as a node of its own."""
        return 'structure' in self.node.inputs

    @functools.cached_property
    def _inputs(self) -> dict[str, Any]:
        """Return the input nodes of the job by their names."""
        return {link.link_label: link.node for link in self.node.base.links.get_incoming(link_type=LinkType.INPUT_CALC)}

    def input_frames(self) -> Frames:
        """Return the structures that went into the job."""
        return self._input_frames

    @functools.cached_property
    def _input_frames(self) -> Frames:
        return frames_of_inputs(self._inputs)

    def _structures_info(self) -> dict[str, Any]:
        """Return number, elements and formulas of the structures."""
        whole = 'structures' in self._inputs and 'selection' not in self._inputs
        return self._inputs['structures'].info if whole else describe_frames(self.input_frames())

    def _origin(self, job: schema.JobSpec) -> dict[str, Any]:
        """Return the attributes by which queries find results of the same structures and parameters."""
        node = self._inputs['structure' if self.single else 'structures']
        selection = self._inputs.get('selection')
        return {
            'structures_uuid': node.uuid,
            'structures_sha256': None if self.single else node.sha256,
            'selection': None if selection is None else selection.get_dict(),
            'parameters_hash': parameters_hash(job.parameters, job.task),
            'results_version': job.results_version,
        }

    def _output(self, info: dict[str, Any], results: ResultsData | None) -> list[str]:
        """Store the output parameters; return the keys that have none because what they are made of is not finite."""
        model, damaged = info.get('model', {}), list[str]()
        content = {key: info[key] for key in _COPIED if key in info}
        content.update(
            state=info.get('state'),
            model_name=model.get('name'),
            model_sha256=model.get('sha256'),
            backend=model.get('backend'),
            model_trusted=bool(model.get('trusted')),
            ensemble_size=model.get('ensemble_size'),
            properties=sorted(set(info.get('units', {})) - set(self.ELSEWHERE)),
        )
        if results is not None:
            content.update(self._count(results), failures=self._failures(results))
            summary = self.summarize(results)
            damaged = [key for key, value in summary.items() if not is_storable(value)]
            content.update((key, value) for key, value in summary.items() if key not in damaged)
        self.out('output_parameters', orm.Dict(content))  # type: ignore[no-untyped-call]
        return damaged

    @staticmethod
    def _may_go_on(info: Mapping[str, Any]) -> bool:
        """Return whether there may be something to go on with even where no structure is finished: a checkpoint."""
        return info['state'] == 'stopped' or 'checkpoint_interval' in parameters_of(info.get('task', 'single_point'))

    @staticmethod
    def _count(results: ResultsData) -> dict[str, int]:
        status = results.status
        ok, pending = int(np.sum(status == FrameStatus.OK)), int(np.sum(status == FrameStatus.PENDING))
        total = len(status)
        return {'n_structures': total, 'n_ok': ok, 'n_failed': total - ok - pending, 'n_pending': pending}

    def _labels(self) -> tuple[str, ...]:
        return () if self.single else self.input_frames().labels

    def _failures(self, results: ResultsData) -> list[dict[str, Any]]:
        """Return the first failed structures with the reason."""
        status = results.status
        bad = np.flatnonzero((status != FrameStatus.OK) & (status != FrameStatus.PENDING))[:MAX_FAILURES]
        labels = self._labels() if len(bad) else ()
        messages = results.messages
        return [
            {
                'index': int(index),
                'label': labels[index] if labels else '',
                'status': FrameStatus(int(status[index])).name,
                'message': messages.get(int(index), FrameStatus(int(status[index])).help),
            }
            for index in bad
        ]

    def _exit_code(self, info: dict[str, Any], results: ResultsData | None) -> ExitCode | None:
        """Return the worst that happened: the job's own error, then an early end, then failed structures."""
        error = info.get('error')
        if error:
            label = error.get('label')
            known = label if label in LABELS else 'ERROR_WORKER_EXCEPTION'
            return self._failure(known, explain(self.node, known, str(error.get('message', ''))))
        if results is None:
            return self._failure('ERROR_WORKER_KILLED', self._last_words() or 'no message was left')
        counts = self._count(results)
        total = counts['n_structures']
        if counts['n_pending']:
            done = total - counts['n_pending']
            label = 'ERROR_INCOMPLETE' if done or self._may_go_on(info) else 'ERROR_WORKER_KILLED'
            if info['state'] == 'stopped':
                return self._failure(label, f'asked to stop after {done} of {total} structures')
            return self._failure(label, self._last_words() or f'{done} of {total} structures were done')
        if not counts['n_failed']:
            return None
        first = self._failures(results)[0]
        where = first['label'] or f'structure {first["index"]}'
        label = 'ERROR_SOME_STRUCTURES_FAILED' if counts['n_ok'] else 'ERROR_ALL_STRUCTURES_FAILED'
        label = _label_of_failures(results.status) or label
        return self._failure(label, f'{counts["n_failed"]} of {total}; {where}: {first["status"]}, {first["message"]}')


def _label_of_failures(status: np.ndarray[Any, Any]) -> str | None:
    """Return the exit code of the one way in which all failed structures failed, if it has one of its own."""
    failed = set(np.unique(status[status != FrameStatus.OK]).tolist())
    return STATUS_LABELS.get(FrameStatus(failed.pop())) if len(failed) == 1 else None
