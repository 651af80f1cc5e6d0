"""Inputs and outputs of the screening."""

from __future__ import annotations

from typing import Any

from aiida import orm

from aiida_mlpotential.calculations.validation import content
from aiida_mlpotential.data.merged import MergedResultsData
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.parameters import validate_parameters

from ..staging import declare_staging
from .slices import DEFAULT_SIZE
from .validation import is_positive, validate_screening


def _validate_parameters(node: orm.Dict | None, _: object) -> str | None:
    return validate_parameters(content(node))


def define_inputs(spec: Any) -> None:
    """Declare the inputs."""
    _define_what(spec)
    _define_tasks(spec)
    _define_numbers(spec)
    _define_running(spec)
    spec.inputs.validator = validate_screening


def _define_what(spec: Any) -> None:
    """Declare the structures, the models, and the codes that run them."""
    spec.input('structures', valid_type=StructureSetData, help='The structures: any number, as one node.')
    spec.input_namespace(
        'models', dynamic=True, valid_type=ModelData, help='One or several models, by labels of your choice.'
    )
    spec.input('code', valid_type=orm.AbstractCode, required=False, help='The code for all models without their own.')
    spec.input_namespace(
        'codes', dynamic=True, valid_type=orm.AbstractCode, required=False, help='Codes of single models, by label.'
    )


def _define_tasks(spec: Any) -> None:
    """Declare the parameters of the single points, and the optimization before them."""
    spec.input(
        'parameters',
        valid_type=orm.Dict,
        required=False,
        serializer=orm.to_aiida_type,
        validator=_validate_parameters,
        help='Parameters of the single points, as `mlpotential.single_point` takes them.',
    )
    spec.input_namespace('optimization', required=False, populate_defaults=False, help='Optimize all structures first.')
    spec.input(
        'optimization.parameters',
        valid_type=orm.Dict,
        serializer=orm.to_aiida_type,
        help='Parameters of the optimization, as `mlpotential.geometry_optimization` takes them; they may be empty.',
    )
    spec.input(
        'optimization.model',
        valid_type=orm.Str,
        required=False,
        serializer=orm.to_aiida_type,
        help='Label of the model that optimizes; by default the first in the alphabet.',
    )


def _define_numbers(spec: Any) -> None:
    """Declare sizes, thresholds and limits, all of them above 0."""
    numbers = {
        'slice_size': (orm.Int, f'Structures in a job at most. Default: {DEFAULT_SIZE}.'),
        'max_qbc': (
            orm.Float,
            'Flag structures whose spread over the square root of their atoms (eV) is larger; 0.23 kcal/mol in '
            'the active learning of ANI, DOI 10.1063/1.5023802.',
        ),
        'n_selected': (orm.Int, 'Choose so many structures, uncertain and diverse, for reference calculations.'),
        'max_iterations': (orm.Int, 'Runs of a slice at most, see the base workflows.'),
    }
    for name, (node_class, text) in numbers.items():
        spec.input(
            name,
            valid_type=node_class,
            required=False,
            serializer=orm.to_aiida_type,
            validator=is_positive,
            help=text,
        )


def _define_running(spec: Any) -> None:
    """Declare how and where the jobs run, which changes no results."""
    spec.input(
        'max_concurrent',
        valid_type=orm.Int,
        default=lambda: orm.Int(4),
        serializer=orm.to_aiida_type,
        validator=is_positive,
        help='Jobs that run or wait in the queue at once.',
    )
    spec.input(
        'options', valid_type=dict, non_db=True, default=dict, help='`metadata.options` of all jobs: time, queue, ...'
    )
    spec.input(
        'allow_cpu', valid_type=bool, non_db=True, default=True, help='Take the CPU where a GPU is missing or broken.'
    )
    spec.input(
        'reuse',
        valid_type=bool,
        non_db=True,
        default=True,
        help='Take slices of the same structures, model and parameters from the database where they are done, and go '
        'on with those that are not, as after a screening that was killed.',
    )
    declare_staging(spec)


def define_outputs(spec: Any) -> None:
    """Declare the outputs."""
    spec.output_namespace(
        'results',
        dynamic=True,
        valid_type=MergedResultsData,
        help='Results of the whole set by the label of the model.',
    )
    spec.output(
        'ranking',
        valid_type=orm.ArrayData,
        required=False,
        help='Relative energies within each formula, their spread, and which structures are uncertain.',
    )
    spec.output(
        'summary', valid_type=orm.Dict, required=False, help='Counts, lowest structures, failures, times and slices.'
    )
    spec.output(
        'output_structures', valid_type=StructureSetData, required=False, help='The optimized structures of the set.'
    )
    spec.output(
        'selected_structures',
        valid_type=StructureSetData,
        required=False,
        help='The structures for reference calculations; their labels tell their numbers in the set.',
    )
