"""What can be known to be wrong with a screening is said before it is submitted, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine import CalcJob
from aiida.plugins import CalculationFactory

from aiida_mlpotential.calculations.validation import content, validate_inputs
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.worker.parameters import validate_parameters

#: Parameters that may name single structures, which have other numbers in a slice.
_BY_STRUCTURE = ('constraints', 'spin_multiplicity', 'symmetry_number')
#: Beginning of the names of links that the screening makes.
_SEPARATOR = '__'
#: Names of other inputs of the functions that take the results of all models by their labels.
_RESERVED = ('metadata', 'settings', 'structures')


def is_positive(node: orm.Int | orm.Float | None, port: Any) -> str | None:
    """Return why a number is none to count with, or ``None``."""
    name = port.name
    return None if node is None or node.value > 0 else f'{name} is {node.value}: give a number above 0.'


def validate_screening(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Return what makes the inputs, taken together, impossible; ``None`` if nothing does."""
    models: Mapping[str, ModelData] = inputs.get('models') or {}
    if 'structures' not in inputs:
        return None  # the port itself complains
    if not models:
        return 'models: give at least one, such as models = {"ani": model}.'
    for label in models:
        if _SEPARATOR in label:
            return f'models: the label {label!r} has two underscores in a row: choose another one.'
        if label in _RESERVED:
            return f'models: the label {label!r} is a name that is taken: choose another one.'
    return _check_codes(inputs, models) or _check_models(inputs, models) or _check_optimization(inputs, models)


def _check_codes(inputs: Mapping[str, Any], models: Mapping[str, ModelData]) -> str | None:
    codes = inputs.get('codes') or {}
    unknown = sorted(set(codes) - set(models))
    if unknown:
        return f'codes: there is no model {unknown[0]!r}; the models are {", ".join(models)}.'
    missing = sorted(set(models) - set(codes))
    if missing and inputs.get('code') is None:
        return f'there is no code for the model {missing[0]!r}: give `code` for all, or codes.{missing[0]}.'
    return None


def _check_models(inputs: Mapping[str, Any], models: Mapping[str, ModelData]) -> str | None:
    """Say what every job would say of its model and parameters."""
    for model in models.values():
        message = _check_job('single_point', inputs, model, inputs.get('parameters'))
        if message:
            return message  # which names its port, and the model where it matters
    if inputs.get('n_selected') is not None and all(model.to_spec().ensemble_size == 1 for model in models.values()):
        return 'n_selected asks for uncertain structures, but no model is an ensemble: leave it out.'
    if inputs.get('max_qbc') is not None and all(model.to_spec().ensemble_size == 1 for model in models.values()):
        return 'max_qbc asks for a spread, but no model is an ensemble: leave it out.'
    return None


def _check_optimization(inputs: Mapping[str, Any], models: Mapping[str, ModelData]) -> str | None:
    optimization = inputs.get('optimization') or {}
    if not optimization:
        return None
    label = optimizing_model(inputs)
    if label not in models:
        return f'optimization.model: there is no model {label!r}; the models are {", ".join(models)}.'
    parameters = optimization.get('parameters')
    values = content(parameters)
    for name in _BY_STRUCTURE:
        if any('structures' in item for item in values.get(name, []) if isinstance(item, dict)):
            return f'optimization.parameters: {name} names single structures, which have other numbers in a slice.'
    message = validate_parameters(values, 'geometry_optimization') or _check_job(
        'geometry_optimization', inputs, models[label], parameters
    )
    return f'optimization.{message}' if message and message.startswith('parameters: ') else message


def _check_job(task: str, inputs: Mapping[str, Any], model: ModelData, parameters: orm.Dict | None) -> str | None:
    process: type[CalcJob] = CalculationFactory(f'mlpotential.{task}')  # type: ignore[assignment]
    job = {'model': model, 'structures': inputs['structures'], 'parameters': parameters}
    return validate_inputs(process, job, ('structure', 'structures'))


def optimizing_model(inputs: Mapping[str, Any]) -> str:
    """Return the label of the model that optimizes: the one that was named, or the first."""
    node = inputs['optimization'].get('model')
    return str(node.value) if node is not None else min(inputs['models'])
