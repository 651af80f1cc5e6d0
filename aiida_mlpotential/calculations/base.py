"""What all calculation jobs share: inputs, their checks, and the files that go to the computer."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy.typing as npt
from aiida import orm
from aiida.common import datastructures
from aiida.common.folders import Folder
from aiida.engine import CalcJob, CalcJobProcessSpec, ProcessSpec

from aiida_mlpotential import __version__
from aiida_mlpotential.archive import worker_archive
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.selection import frames_of_inputs
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker import schema
from aiida_mlpotential.worker.errors import EXIT_CODES, WorkerError
from aiida_mlpotential.worker.frames import Frames, sha256_of, write_npz
from aiida_mlpotential.worker.parameters import fingerprint, parameters_of, validate_parameters, with_defaults

from .linking import send_model
from .validation import (
    Request,
    content,
    validate_inputs,
    validate_selection_node,
    validate_structure,
    validate_worker,
)


def define_subject(spec: ProcessSpec) -> None:
    """Declare what a process is about: a model, and one structure or many."""
    spec.input('model', valid_type=ModelData, help='The model: functional form and parameters.')
    spec.input(
        'structure',
        valid_type=orm.StructureData,
        required=False,
        validator=validate_structure,
        help='One structure; for more use `structures`.',
    )
    spec.input('structures', valid_type=StructureSetData, required=False, help='Any number of structures, as one node.')


class MlpotentialCalculation(CalcJob):
    """Base of all calculation jobs; a subclass names its task and adds the outputs of its own."""

    #: Tied to the results, not to the code: a test fails when the worker changes and nobody decided about this number.
    CACHE_VERSION = schema.RESULTS_VERSION
    #: Name of the task in the worker.
    TASK: ClassVar[str]

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Declare inputs, outputs and exit codes."""
        super().define(spec)
        define_subject(spec)
        spec.input(
            'selection',
            valid_type=orm.Dict,
            required=False,
            serializer=orm.to_aiida_type,
            validator=validate_selection_node,
            help="Which of `structures` the job takes, counted from 0: {'start': 0, 'stop': 1000} or "
            "{'indices': [3, 17]}. Without it: all. Everything else counts within what is selected.",
        )
        spec.input(
            'parameters',
            valid_type=orm.Dict,
            required=False,
            serializer=orm.to_aiida_type,
            validator=cls._validate_parameters,
            help='What to compute, and how: see the table of parameters in the documentation.',
        )
        spec.input(
            'parent_folder',
            valid_type=orm.RemoteData,
            required=False,
            help='Work directory of an earlier run of the same job: its results are kept, only the rest is computed.',
        )
        spec.inputs.validator = cls._validate_inputs
        options: Any = spec.inputs['metadata']
        options = options['options']
        options['resources'].default = lambda: {'num_machines': 1, 'num_mpiprocs_per_machine': 1}
        options['resources'].required = False
        options['withmpi'].default = False
        options['input_filename'].default = schema.JOB_FILE
        options['output_filename'].default = schema.SUMMARY_FILE
        spec.input(
            'metadata.options.worker',
            valid_type=str,
            default='upload',
            validator=validate_worker,
            help='`upload`: send the worker with the job; the code is a Python with the backend library. '
            '`installed`: the code is the script aiida-mlpotential-worker on the computer.',
        )
        spec.output('results', valid_type=ResultsData, required=False, help='Results of all structures, as arrays.')
        spec.output('output_parameters', valid_type=orm.Dict, help='Summary: numbers to query, settings, versions.')
        spec.default_output_node = 'output_parameters'
        for code in EXIT_CODES:
            spec.exit_code(code.status, code.label, message=code.message, invalidates_cache=code.invalidates_cache)

    @classmethod
    def _validate_parameters(cls, node: orm.Dict | None, _: Any) -> str | None:
        return validate_parameters(content(node), cls.TASK)

    @classmethod
    def _validate_inputs(cls, inputs: dict[str, Any], ports: Any) -> str | None:
        return validate_inputs(cls, inputs, ports)

    @classmethod
    def check_task(cls, request: Request) -> str | None:
        """Return one sentence on why the job as a whole cannot be done, or ``None``."""
        return None

    @classmethod
    def frame_problems(cls, request: Request) -> dict[int, str]:
        """Return one sentence on why single structures cannot be done, by their number.

        A job is refused if there is no structure without a problem; else those that have one fail on their own.
        """
        return {}

    @classmethod
    def symmetry_arrays(cls, frames: Frames, parameters: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]] | None:
        """Return what the worker wants to know of the symmetry of the structures, or ``None`` where it does not.

        :param parameters: all parameters of the task, complete
        """
        return None

    def prepare_for_submission(self, folder: Folder) -> datastructures.CalcInfo:
        """Write the job file, and list what to copy."""
        model: ModelData = self.inputs.model
        calcinfo = datastructures.CalcInfo()
        send_model(calcinfo, self.node, model, self.inputs.code)
        frames_sha256 = self._send_structures(folder, calcinfo)
        parameters = content(self.inputs.get('parameters'))
        job = schema.JobSpec(
            task=self.TASK,
            model=model.to_spec(),
            parameters=parameters,
            frames_sha256=frames_sha256,
            symmetry_sha256=self._write_symmetry(folder, with_defaults(parameters, self.TASK)),
            plugin_version=__version__,
        )
        folder.create_file_from_filelike(io.StringIO(job.to_json()), schema.JOB_FILE, mode='w', encoding='utf-8')

        codeinfo = datastructures.CodeInfo()
        codeinfo.code_uuid = self.inputs.code.uuid
        codeinfo.cmdline_params = [schema.JOB_FILE]
        codeinfo.stdout_name = schema.STDOUT_FILE
        codeinfo.stderr_name = schema.STDERR_FILE
        if self.inputs.metadata.options.worker == 'upload':
            folder.create_file_from_filelike(io.BytesIO(worker_archive()), schema.WORKER_FILE, mode='wb')
            codeinfo.cmdline_params.insert(0, schema.WORKER_FILE)
        calcinfo.codes_info = [codeinfo]
        calcinfo.remote_copy_list = self._resume_list(folder, job)
        calcinfo.retrieve_list = [
            schema.RESULTS_FILE,
            schema.SUMMARY_FILE,
            schema.STDOUT_FILE,
            schema.STDERR_FILE,
            schema.ARRAYS_DIRECTORY,
        ]
        if job.parameters.get('trajectory'):
            calcinfo.retrieve_list.append(schema.TRAJECTORY_DIRECTORY)
        return calcinfo

    def _send_structures(self, folder: Folder, calcinfo: datastructures.CalcInfo) -> str:
        """Let the structures travel with the job; return the sha256 of their file.

        What the node of the structures has is not stored once more with the job.
        """
        structures: StructureSetData | None = self.inputs.get('structures')
        if structures is not None and self.inputs.get('selection') is None:
            copied = (structures.uuid, schema.FRAMES_FILE, schema.FRAMES_FILE)
            calcinfo.local_copy_list = [*(calcinfo.local_copy_list or []), copied]
            return structures.sha256
        stream = io.BytesIO()
        frames_of_inputs(self.inputs).write(stream)
        folder.create_file_from_filelike(io.BytesIO(stream.getvalue()), schema.FRAMES_FILE, mode='wb')
        if structures is not None:
            calcinfo.provenance_exclude_list = [schema.FRAMES_FILE]
        return sha256_of(stream.getvalue())

    def _write_symmetry(self, folder: Folder, parameters: Mapping[str, Any]) -> str:
        """Write the symmetry file if the task wants one; return its sha256, empty if it does not."""
        arrays = self.symmetry_arrays(frames_of_inputs(self.inputs), parameters)
        if arrays is None:
            return ''
        stream = io.BytesIO()
        write_npz(stream, arrays)
        folder.create_file_from_filelike(io.BytesIO(stream.getvalue()), schema.SYMMETRY_FILE, mode='wb')
        return sha256_of(stream.getvalue())

    def _resume_list(self, folder: Folder, job: schema.JobSpec) -> list[tuple[str, str, str]]:
        """Return what to copy from the work directory of an earlier run; the worker checks that it fits.

        AiiDA leaves out what is not there, such as the trajectory of a run that was killed before its first step.
        """
        parent: orm.RemoteData | None = self.inputs.get('parent_folder')
        if parent is None:
            return []
        folder.get_subfolder(schema.PARENT_DIRECTORY, create=True)  # over SSH nobody else makes it
        if _is_of_another_job(parent, job):
            self.report(f'parent_folder<{parent.pk}> is that of another job: nothing of it is used')
            return []
        # That AiiDA gave a job up does not mean that its worker is gone. Nobody writes in two directories, but one that
        # is copied may change meanwhile: by the status as it was before, the worker tells what was finished by then.
        status = (f'{schema.ARRAYS_DIRECTORY}/{schema.STATUS_FILE}', schema.STATUS_FILE)
        names = [schema.ARRAYS_DIRECTORY]
        if 'checkpoint_interval' in parameters_of(self.TASK):
            names.append(schema.CHECKPOINT_DIRECTORY)
        if job.parameters.get('trajectory'):
            names.append(schema.TRAJECTORY_DIRECTORY)
        # What the earlier run itself got and did not take up, because it was killed or cancelled before, comes along.
        names.append(schema.PARENT_DIRECTORY)
        path, computer = parent.get_remote_path(), parent.computer
        assert computer is not None  # noqa: S101 - for the type checker; every RemoteData has one
        copied = [status, *((name, name) for name in names)]
        return [(computer.uuid, f'{path}/{source}', f'{schema.PARENT_DIRECTORY}/{name}') for source, name in copied]


def _is_of_another_job(parent: orm.RemoteData, job: schema.JobSpec) -> bool:
    """Return whether a work directory is known to be that of a job with other results: then none of it is copied.

    Of a directory that no job of this plugin made, as one that was found by its path, only the worker can tell.
    """
    creator = parent.creator
    if creator is None:
        return False
    try:
        earlier = schema.JobSpec.from_json(creator.base.repository.get_object_content(schema.JOB_FILE, mode='r'))
        return fingerprint(earlier) != fingerprint(job)
    except (FileNotFoundError, WorkerError, KeyError):
        return True
