"""The contract between plugin and worker: file names, quantities with unit and shape, and the job description."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from .errors import WorkerError

#: Raised whenever the same inputs would give other results: it is part of AiiDA's caching key (``CACHE_VERSION``).
RESULTS_VERSION = 2
#: Raised whenever the layout of the results files changes; a parser refuses a newer one.
FORMAT_VERSION = 1

# File names in the work directory of a job.
JOB_FILE = 'job.json'
FRAMES_FILE = 'structures.npz'
WORKER_FILE = 'worker.pyz'
MODEL_DIRECTORY = 'model'
RESULTS_FILE = 'results.json'
ARRAYS_DIRECTORY = 'arrays'
#: Says of which job the arrays beside it are; only an equal job goes on with them.
FINGERPRINT_FILE = 'fingerprint.txt'
#: Where the files of an earlier run come to lie: never where this job's own results would be taken for them.
PARENT_DIRECTORY = 'parent'
#: How each structure stands: among the arrays, and beside a copy of them once more, as it was before they were copied.
STATUS_FILE = 'status.npy'
#: What is under way, for a later run to go on from.
CHECKPOINT_DIRECTORY = 'checkpoint'
TRAJECTORY_DIRECTORY = 'trajectory'
#: What is known of the symmetry of the structures, where the task wants to know.
SYMMETRY_FILE = 'symmetry.npz'
#: A file of this name in the work directory asks the worker to end in order.
STOP_FILE = 'stop'
#: Says that a worker is at work in the directory.
LOCK_FILE = 'worker.lock'
SUMMARY_FILE = 'mlpotential.txt'
STDOUT_FILE = 'worker.out'
STDERR_FILE = 'worker.err'


def member_directory(index: int) -> str:
    """Return where the files of a member of a committee are, in the work directory."""
    return f'{MODEL_DIRECTORY}/member-{index:03d}'


#: At most so many messages of failed frames are kept in the results file; ``status`` has them all.
MAX_MESSAGES = 1000


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The model of a job: what the worker needs to know to load and check it."""

    name: str
    backend: str
    sha256: str
    #: Path of each parameter file, relative to the work directory, with its sha256.
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: Chemical symbols in the order of the model's own species; ``None`` when any element may be asked for.
    elements: tuple[str, ...] | None = None
    ensemble_size: int = 1
    energy_unit: str = 'eV'
    distance_unit: str = 'angstrom'
    #: Number of parameter sets of a committee, whose files are ``model/member-<index>/...``; 0 where it is none.
    committee: int = 0
    #: Whether the files may run what is in them while they are loaded; a person decided that.
    trusted: bool = False
    #: Where each unit came from: ``user``, ``file`` or ``default``.
    units_from: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: Backend-specific keys, such as the ANI family or the import path of an ASE calculator.
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class JobSpec:
    """A job: the content of ``job.json``."""

    task: str
    model: ModelSpec
    parameters: Mapping[str, Any]
    #: sha256 of the structures file, part of the fingerprint by which a restart knows that it is the same job.
    frames_sha256: str
    #: sha256 of the symmetry file, empty where the task wants none.
    symmetry_sha256: str = ''
    plugin_version: str = ''
    results_version: int = RESULTS_VERSION

    def to_json(self) -> str:
        """Return the text of ``job.json``."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        """Read ``job.json``; a text that is no job raises a :class:`WorkerError` that names what is wrong."""
        try:
            data = json.loads(text)
            model = data.pop('model')
            if model['elements'] is not None:
                model['elements'] = tuple(model['elements'])
            return cls(model=ModelSpec(**model), **data)
        except (ValueError, TypeError, KeyError, AttributeError) as exception:
            raise WorkerError('ERROR_JOB_INVALID', f'{JOB_FILE}: {type(exception).__name__}: {exception}') from None
