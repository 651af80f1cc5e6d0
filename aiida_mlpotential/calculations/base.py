"""What all calculation jobs share: inputs, their checks, and the files that go to the computer."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
from aiida import orm
from aiida.common import datastructures
from aiida.common.folders import Folder
from aiida.engine import CalcJob, CalcJobProcessSpec

from aiida_mlpotential import __version__
from aiida_mlpotential.archive import worker_archive
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.structures import StructureSetData, to_frames
from aiida_mlpotential.worker import schema
from aiida_mlpotential.worker.checks import Rules, check_frames, explain
from aiida_mlpotential.worker.errors import EXIT_CODES, FrameStatus
from aiida_mlpotential.worker.frames import sha256_of
from aiida_mlpotential.worker.parameters import validate_parameters, with_defaults
from aiida_mlpotential.worker.request import check_request

#: How the worker comes to the computer; see ``metadata.options.worker``.
WORKERS = ('upload', 'installed')


def _content(node: orm.Dict | None) -> dict[str, Any]:
    """Return what a node holds, or nothing: AiiDA lets None through for an optional input."""
    return {} if node is None else dict(node.get_dict())  # type: ignore[no-untyped-call]


def _validate_parameters(node: orm.Dict | None, _: Any) -> str | None:
    return validate_parameters(_content(node))


def _validate_worker(value: str, _: Any) -> str | None:
    return None if value in WORKERS else f'metadata.options.worker is {value!r}; allowed are {", ".join(WORKERS)}.'


def _validate_structure(node: orm.StructureData | None, _: Any) -> str | None:
    if node is not None and (node.is_alloy or node.has_vacancies):
        return 'structure: it has sites with mixed or partial occupation; make every site one atom first.'
    return None


def validate_inputs(inputs: dict[str, Any], ports: Any) -> str | None:
    """Return what makes the inputs, taken together, impossible to compute; ``None`` if nothing does."""
    model: ModelData | None = inputs.get('model')
    if model is None:  # the port itself complains, or is not part of a workflow that wraps this process
        return None
    structure, structures = inputs.get('structure'), inputs.get('structures')
    if structure is None and structures is None and not {'structure', 'structures'} & set(ports):
        return None  # a workflow that wraps this process gives them itself
    if (structure is None) == (structures is None):
        return 'give either `structure` (one StructureData) or `structures` (a StructureSetData), and not both.'
    parameters = with_defaults(_content(inputs.get('parameters')))
    checks = (
        check_request(model.to_spec(), parameters),
        _validate_parent(inputs),
        _validate_periodic(structure, structures, parameters),
    )
    for message in checks:
        if message:
            return message
    if structure is not None:
        return _validate_single(structure, model, parameters)
    assert isinstance(structures, StructureSetData)  # noqa: S101 - for the type checker; the port guarantees it
    return _validate_structures(structures, model, parameters)


def _validate_parent(inputs: dict[str, Any]) -> str | None:
    parent, code = inputs.get('parent_folder'), inputs.get('code')
    if parent is None or code is None:
        return None
    computer = inputs.get('metadata', {}).get('computer') or code.computer  # a portable code has none of its own
    if computer is None or parent.computer.pk == computer.pk:
        return None
    return (
        f'parent_folder lies on the computer {parent.computer.label}, the job would run on {computer.label}: '
        'a job can only be continued where it ran.'
    )


def _validate_periodic(
    structure: orm.StructureData | None, structures: StructureSetData | None, parameters: dict[str, Any]
) -> str | None:
    if 'stress' not in parameters['properties']:
        return None
    periodic = structure is not None and all(structure.pbc)
    if structures is not None and structures.periodic:
        periodic = bool(np.any(np.all(structures.get_frames().pbc, axis=1)))
    if periodic:
        return None
    return 'parameters: properties asks for the stress, but no structure is periodic in three directions: leave it out.'


def _validate_single(structure: orm.StructureData, model: ModelData, parameters: dict[str, Any]) -> str | None:
    """Say at once what the worker would say of a single structure."""
    frames = to_frames(structure)
    rules = Rules.of(model.elements, model.options, parameters)
    status = int(check_frames(frames, rules)[0])
    if status == FrameStatus.PENDING:
        return None
    return f'structure: {explain(frames, 0, status, rules)}.'


def _validate_structures(structures: StructureSetData, model: ModelData, parameters: dict[str, Any]) -> str | None:
    """Refuse a set of which not one structure can be evaluated; a few bad ones fail on their own, later."""
    rules = dataclasses.replace(Rules.of(model.elements, model.options, parameters), minimum_distance=0.0)
    known = rules.elements is None or set(structures.elements) <= set(rules.elements)
    if known and rules.atom_order is None:
        return None
    status = check_frames(structures.get_frames(), rules)
    if np.any(status == FrameStatus.PENDING):
        return None
    first = explain(structures.get_frames(), 0, int(status[0]), rules)
    return f'structures: {model.name} can evaluate none of them; the first: {first}.'


class MlpotentialCalculation(CalcJob):
    """Base of all calculation jobs; a subclass names its task and adds the outputs of its own."""

    #: Tied to the results, not to the code: a test fails when the worker changes and nobody decided about this number.
    CACHE_VERSION = schema.RESULTS_VERSION
    #: Name of the task in the worker.
    TASK: str

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Declare inputs, outputs and exit codes."""
        super().define(spec)
        spec.input('model', valid_type=ModelData, help='The model: functional form and parameters.')
        spec.input(
            'structure',
            valid_type=orm.StructureData,
            required=False,
            validator=_validate_structure,
            help='One structure; for more use `structures`.',
        )
        spec.input(
            'structures', valid_type=StructureSetData, required=False, help='Any number of structures, as one node.'
        )
        spec.input(
            'parameters',
            valid_type=orm.Dict,
            required=False,
            serializer=orm.to_aiida_type,
            validator=_validate_parameters,
            help='What to compute, and how: see the table of parameters in the documentation.',
        )
        spec.input(
            'parent_folder',
            valid_type=orm.RemoteData,
            required=False,
            help='Work directory of an earlier run of the same job: its results are kept, only the rest is computed.',
        )
        spec.inputs.validator = validate_inputs
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
            validator=_validate_worker,
            help='`upload`: send the worker with the job; the code is a Python with the backend library. '
            '`installed`: the code is the script aiida-mlpotential-worker on the computer.',
        )
        spec.output('results', valid_type=ResultsData, required=False, help='Results of all structures, as arrays.')
        spec.output('output_parameters', valid_type=orm.Dict, help='Summary: numbers to query, settings, versions.')
        spec.default_output_node = 'output_parameters'
        for code in EXIT_CODES:
            spec.exit_code(code.status, code.label, message=code.message, invalidates_cache=code.invalidates_cache)

    def prepare_for_submission(self, folder: Folder) -> datastructures.CalcInfo:
        """Write the job file, and list what to copy."""
        model: ModelData = self.inputs.model
        calcinfo = datastructures.CalcInfo()
        calcinfo.local_copy_list = model.copy_list()
        structures: StructureSetData | None = self.inputs.get('structures')
        if structures is not None:
            frames_sha256 = structures.sha256
            calcinfo.local_copy_list.append((structures.uuid, schema.FRAMES_FILE, schema.FRAMES_FILE))
        else:
            content = io.BytesIO()
            to_frames(self.inputs.structure).write(content)
            frames_sha256 = sha256_of(content.getvalue())
            folder.create_file_from_filelike(io.BytesIO(content.getvalue()), schema.FRAMES_FILE, mode='wb')
        job = schema.JobSpec(
            task=self.TASK,
            model=model.to_spec(),
            parameters=_content(self.inputs.get('parameters')),
            frames_sha256=frames_sha256,
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
        calcinfo.remote_copy_list = self._resume_list(folder)
        calcinfo.retrieve_list = [
            schema.RESULTS_FILE,
            schema.SUMMARY_FILE,
            schema.STDOUT_FILE,
            schema.STDERR_FILE,
            schema.ARRAYS_DIRECTORY,
        ]
        return calcinfo

    def _resume_list(self, folder: Folder) -> list[tuple[str, str, str]]:
        """Return what to copy from the work directory of an earlier run; the worker checks that it fits."""
        parent: orm.RemoteData | None = self.inputs.get('parent_folder')
        if parent is None:
            return []
        folder.get_subfolder(schema.PARENT_DIRECTORY, create=True)  # over SSH nobody else makes it
        path = parent.get_remote_path()
        name = schema.ARRAYS_DIRECTORY
        return [(parent.computer.uuid, f'{path}/{name}', f'{schema.PARENT_DIRECTORY}/{name}')]  # type: ignore[union-attr]
