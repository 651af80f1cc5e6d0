"""Run one job in its work directory: check the inputs, load the model, run the task, and say how it went."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .backends import BACKENDS, get_backend, load_backend
from .backends.base import Backend, Settings
from .backends.options import validate_options
from .checkpoint import CheckpointFile
from .checks import Rules, check_frames, explain
from .devices import describe, is_device_failure
from .errors import FrameStatus, OutOfMemory, WorkerError
from .frames import Frames, FramesError, sha256_of
from .lock import WorkLock
from .memory import limit_memory, peak_memory_mb
from .neighbors import preload
from .parameters import fingerprint, validate_parameters, with_defaults
from .progress import Progress
from .quantities import QUANTITIES
from .request import check_request, choose_precision
from .schema import (
    ARRAYS_DIRECTORY,
    FORMAT_VERSION,
    FRAMES_FILE,
    MAX_MESSAGES,
    PARENT_DIRECTORY,
    RESULTS_FILE,
    RESULTS_VERSION,
    STATUS_FILE,
    SUMMARY_FILE,
    SYMMETRY_FILE,
    JobSpec,
    ModelSpec,
)
from .stopping import StopRequest
from .storage import ResultsFile, ResultsStore, Sizes, disk_errors
from .summary import write_summary
from .tasks import get_task
from .tasks.base import Context, Messages, Task
from .tasks.evaluation import Evaluator
from .torn import torn_frames

#: Seconds between two moments at which results are forced onto the disk.
SYNC_INTERVAL = 30.0
#: Statuses that another machine may mend: a restart tries these frames again.
_RETRIED = (FrameStatus.OUT_OF_MEMORY, FrameStatus.BACKEND_FAILED)


def run_job(read_job: Callable[[], JobSpec], directory: Path, stopping: Callable[[], bool] = lambda: False) -> bool:
    """Run a job and write ``results.json`` whatever happens.

    Where another worker is at work in the directory, as when a job was submitted twice, this one waits for it, and does
    what the other left to do.

    :param stopping: says that a signal came, and the job should end after the batch at hand
    :return: whether the job came to its end; single frames may have failed all the same
    """
    with WorkLock(directory, stopping, lambda text: print(text, flush=True)) as lock:
        if not lock.acquire():
            print('asked to stop before the other worker had ended', flush=True)
            return False
        runner = Runner(directory, stopping, lambda: lock.is_lost)
        try:
            job = read_job()
            if lock.has_waited and _is_finished(directory, job):  # write nothing: the files are perhaps being fetched
                print(f'the other worker finished this job; see {RESULTS_FILE}', flush=True)
                return True
            runner.run(job)
        except Exception as exception:  # the last resort: everything must end in the results file
            runner.record_error(exception)
            return False
        return not lock.is_lost


def _is_finished(directory: Path, job: JobSpec) -> bool:
    """Return whether an earlier worker finished this very job in this very directory, with nothing to try again."""
    try:
        content = json.loads((directory / RESULTS_FILE).read_text())
        status = np.load(directory / ARRAYS_DIRECTORY / STATUS_FILE, allow_pickle=False)
        same = content['state'] == 'finished' and content['fingerprint'] == fingerprint(job)
        return bool(same and not np.isin(status, (FrameStatus.PENDING, *_RETRIED)).any())
    except (OSError, ValueError, KeyError, TypeError, EOFError):  # a crash of the node may leave empty files
        return False


class Runner:
    """One job; holds what is known of it for the results file.

    :param is_lost: says that another worker took the directory over: what is known of the job is for that one to write
    """

    def __init__(
        self, directory: Path, stopping: Callable[[], bool], is_lost: Callable[[], bool] = lambda: False
    ) -> None:
        self._directory, self._is_lost = directory, is_lost
        self._stopping = StopRequest(directory, lambda: is_lost() or stopping())
        self._file = ResultsFile(directory)
        self._begin = time.monotonic()
        self._last_sync = self._begin
        self._store: ResultsStore | None = None
        self._messages = Messages()
        self.content: dict[str, Any] = {
            'format_version': FORMAT_VERSION,
            'results_version': RESULTS_VERSION,
            'state': 'running',
            'error': None,
            'worker_command': shlex.join([sys.executable, *sys.argv]),
            'timings': {},
            'notes': [],
            'messages': {},
        }

    def run(self, job: JobSpec) -> None:
        """Do everything, in order; an error ends the job."""
        task, parameters = self._check_job(job)
        self._file.reserve({**self.content, 'state': 'starting'})
        frames, symmetry = self._load_frames(job), self._load_symmetry(job)
        self._check_model_files(job)
        backend = self._load_backend(job, parameters)
        if backend.device == 'cpu':
            preload()
            limit_memory(parameters['memory_limit'])
        names = task.quantities(parameters, backend.n_members > 1)
        sizes = Sizes(backend.n_members, len(parameters.get('temperatures', ())), backend.precision == 'single')
        store = ResultsStore(self._directory, frames.offsets, names, sizes)
        interval = parameters.get('checkpoint_interval', SYNC_INTERVAL)
        checkpoints = CheckpointFile(self._directory, self.content['fingerprint'], interval)
        self._open_store(store, task, checkpoints, frames)
        self.content['notes'] += model_notes(job.model)
        self._describe(backend, names, parameters)
        self._file.reserve(self.content)
        context = Context(
            frames=frames,
            backend=backend,
            evaluator=Evaluator(backend, self.content['notes']),
            store=store,
            parameters=parameters,
            messages=self._messages,
            notes=self.content['notes'],
            progress=Progress(len(frames), int(np.sum(store.status != FrameStatus.PENDING))),
            stopping=self._stopping,
            checkpoint=self._checkpoint,
            checkpoints=checkpoints,
            directory=self._directory,
            symmetry=symmetry,
        )
        self._check_frames(context, Rules.of(job.model.elements or backend.elements, job.model.options, parameters))
        begin = time.monotonic()
        task().run(context)
        self.content['timings']['evaluate'] = time.monotonic() - begin
        self._finish(context)

    def _check_job(self, job: JobSpec) -> tuple[type[Task], dict[str, Any]]:
        """Return the task and all its parameters, and note what job this is."""
        if job.results_version != RESULTS_VERSION:
            raise WorkerError(
                'ERROR_RESULTS_VERSION',
                f'the job asks for results version {job.results_version}, this worker writes {RESULTS_VERSION}: '
                'install the same version of aiida-mlpotential on both sides or use the uploaded worker',
            )
        task = get_task(job.task)
        message = validate_parameters(job.parameters, job.task)
        if message:
            raise WorkerError('ERROR_JOB_INVALID', message)
        get_backend(job.model.backend)  # says so if there is none of that name
        parameters = with_defaults(job.parameters, job.task)
        parameters['precision'] = choose_precision(job.model, parameters)
        self.content.update(task=job.task, fingerprint=fingerprint(job), precision=parameters['precision'])
        if 'temperatures' in parameters:
            self.content['temperatures'] = parameters['temperatures']
        self.content['model'] = {
            'name': job.model.name,
            'backend': job.model.backend,
            'sha256': job.model.sha256,
            'ensemble_size': job.model.ensemble_size,
            'trusted': job.model.trusted,
            'energy_unit': job.model.energy_unit,
            'distance_unit': job.model.distance_unit,
            'units_from': dict(job.model.units_from),
        }
        return task, parameters

    def record_error(self, exception: BaseException) -> None:
        """Write why the job ended."""
        if isinstance(exception, WorkerError):
            error: dict[str, Any] = exception.to_dict()
        elif isinstance(exception, (MemoryError, OutOfMemory)) or "can't allocate memory" in str(exception):
            error = {'label': 'ERROR_OUT_OF_MEMORY', 'message': str(exception).split('\n')[0] or 'while loading'}
        elif is_device_failure(exception):
            error = {'label': 'ERROR_DEVICE_FAILED', 'message': describe(exception)}
        else:
            error = {'label': 'ERROR_WORKER_EXCEPTION', 'message': f'{type(exception).__name__}: {exception}'}
        error['traceback'] = ''.join(traceback.format_exception(exception))[-8000:]
        print(f'{error["label"]}: {error["message"]}\n{error["traceback"]}', file=sys.stderr, flush=True)
        self.content.update(state='failed', error=error)
        if self._store is not None:
            self.content['counts'] = _counts(self._store)
        self.content['messages'] = self._messages.to_json()
        self.content['timings']['total'] = time.monotonic() - self._begin
        if not self._is_lost():
            self._file.write(self.content)

    def _load_frames(self, job: JobSpec) -> Frames:
        path = self._directory / FRAMES_FILE
        try:
            if sha256_of(path) != job.frames_sha256:
                raise WorkerError(
                    'ERROR_STRUCTURES_INVALID', f'{FRAMES_FILE} is not the file that was sent: send it again'
                )
            return Frames.read(path)
        except FileNotFoundError:
            raise WorkerError('ERROR_STRUCTURES_INVALID', f'{FRAMES_FILE} is missing in the work directory') from None
        except FramesError as exception:
            raise WorkerError('ERROR_STRUCTURES_INVALID', str(exception)) from exception

    def _load_symmetry(self, job: JobSpec) -> dict[str, Any] | None:
        """Return the arrays of the symmetry file, if the job has one."""
        if not job.symmetry_sha256:
            return None
        path = self._directory / SYMMETRY_FILE
        if not path.is_file() or sha256_of(path) != job.symmetry_sha256:
            message = f'{SYMMETRY_FILE} is not the file that was sent: send it again'
            raise WorkerError('ERROR_STRUCTURES_INVALID', message)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def _check_model_files(self, job: JobSpec) -> None:
        for name, expected in job.model.files.items():
            path = self._directory / name
            if not path.is_file():
                raise WorkerError('ERROR_MODEL_MISSING', f'{name} is not in the work directory')
            found = sha256_of(path)
            if found != expected:
                raise WorkerError(
                    'ERROR_MODEL_HASH',
                    f'{name} has sha256 {found[:16]}…, expected {expected[:16]}…: it was cut short or changed',
                )

    def _load_backend(self, job: JobSpec, parameters: Mapping[str, Any]) -> Backend:
        begin = time.monotonic()
        message = validate_options(job.model.backend, job.model.options)
        if message:
            raise WorkerError('ERROR_MODEL_UNSUPPORTED', message)
        message = check_request(job.model, parameters, job.task)
        if message:
            raise WorkerError('ERROR_PROPERTY_UNAVAILABLE', message)
        names = [field.name for field in dataclasses.fields(Settings)]
        backend = load_backend(job.model, self._directory, Settings(**{name: parameters[name] for name in names}))
        if 'forces_std' in parameters['properties'] and backend.n_members == 1:
            raise WorkerError('ERROR_PROPERTY_UNAVAILABLE', 'forces_std needs an ensemble; this model has one member')
        self.content['timings']['load'] = time.monotonic() - begin
        return backend

    def _open_store(self, store: ResultsStore, task: type[Task], checkpoints: CheckpointFile, frames: Frames) -> None:
        """Open the results; go on with those of an earlier run of the same job."""
        store.open(self.content['fingerprint'])
        self._store = store
        torn = torn_frames(store, frames)
        if len(torn):
            store.mark(torn, np.full(len(torn), FrameStatus.PENDING, dtype=np.int8))
            self.content['notes'].append(f'values of {len(torn)} structures of an earlier run never reached the disk')
        retried = np.flatnonzero(np.isin(store.status, (*_RETRIED, *task.retried)))
        store.mark(retried, np.full(len(retried), FrameStatus.PENDING, dtype=np.int8))
        if len(torn) or len(retried):
            store.sync()  # before new values take the place of those that did not count any more
        done = int(np.sum(store.status != FrameStatus.PENDING))
        if done:
            self.content['notes'].append(f'went on with the results of {done} structures of an earlier run')
        elif (self._directory / PARENT_DIRECTORY).exists() and not len(retried) and checkpoints.load() is None:
            self.content['notes'].append('the parent folder has no results of this very job: began anew')

    def _describe(self, backend: Backend, names: tuple[str, ...], parameters: Mapping[str, Any]) -> None:
        self.content['model']['ensemble_size'] = backend.n_members
        self.content['model'].update(backend.details())
        self.content['notes'] += backend.notes
        self.content.update(
            precision=backend.precision,
            device=backend.device,
            num_threads=backend.num_threads or parameters['num_threads'],
            batch_atoms=parameters['batch_atoms'] or backend.batch_atoms(),
            units={name: QUANTITIES[name].unit for name in names},
            versions=versions(backend.libraries),
        )

    def _check_frames(self, context: Context, rules: Rules) -> None:
        """Give the frames that the model cannot evaluate their status and message."""
        frames = context.frames
        status = check_frames(frames, rules)
        bad = np.flatnonzero(status != FrameStatus.PENDING)
        for index in bad[:MAX_MESSAGES]:
            context.messages.add(index, explain(frames, int(index), int(status[index]), rules))
        new = bad[context.store.status[bad] == FrameStatus.PENDING]
        if len(new):
            context.store.mark(new, status[new])
            context.progress.advance(len(new))

    def _checkpoint(self) -> None:
        now = time.monotonic()
        if self._store is not None and now - self._last_sync >= SYNC_INTERVAL:
            self._store.sync()
            self._last_sync = now

    def _finish(self, context: Context) -> None:
        context.store.sync()
        context.store.close()
        if self._is_lost():
            print('another worker took this directory over, as this one had given no sign of life: it ends', flush=True)
            return
        counts = _counts(context.store)
        if counts['pending']:
            self.content['notes'].append(self._stopping.reason or 'ended before all structures were done')
        self.content.update(
            state='finished' if not counts['pending'] else 'stopped',
            counts=counts,
            peak_memory_mb=round(peak_memory_mb()),
            messages=self._messages.to_json(),
        )
        self.content['timings']['total'] = time.monotonic() - self._begin
        self._file.write(self.content)
        text = write_summary(context.frames, context.store, self.content)
        with disk_errors(SUMMARY_FILE):
            (self._directory / SUMMARY_FILE).write_text(text, encoding='utf-8', errors='backslashreplace')
        print(f'{self.content["state"]}: {counts["ok"]} of {counts["total"]} structures evaluated; see {RESULTS_FILE}')


def model_notes(model: ModelSpec) -> list[str]:
    """Return what whoever reads the results should know of the model: assumed units, and files that were trusted."""
    notes = []
    own = BACKENDS[model.backend].module == 'ase'  # whose units are eV and angstrom by definition
    for quantity, unit in (('energy', model.energy_unit), ('distance', model.distance_unit)):
        if model.units_from.get(quantity) == 'default' and not own:
            notes.append(
                f'the {quantity} unit of {model.name}, {unit}, was assumed: neither its file nor its importer said it'
            )
    if model.trusted:
        notes.append(f'the files of {model.name} were trusted: code in them may have run')
    return notes


def versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of Python and of the libraries that made the numbers."""
    found = {'python': platform.python_version()}
    for name in ('numpy', 'ase', *libraries):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # of some there are variants
            found[name] = importlib.metadata.version(name)
    return found


def _counts(store: ResultsStore) -> dict[str, int]:
    total, ok = len(store.status), int(np.sum(store.status == FrameStatus.OK))
    pending = int(np.sum(store.status == FrameStatus.PENDING))
    return {'total': total, 'ok': ok, 'failed': total - ok - pending, 'pending': pending}
