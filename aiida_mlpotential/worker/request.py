"""Whether what a job asks for can be had of its model: the same check before submission and in the worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .backends.catalogue import BACKENDS
from .quantities import TASK_QUANTITIES
from .schema import ModelSpec


def choose_precision(model: ModelSpec, parameters: Mapping[str, Any]) -> str:
    """Return the float type to compute in: what was asked for, or double where the backend has it."""
    precision = parameters['precision']
    if precision is None:
        precision = 'double' if 'double' in BACKENDS[model.backend].precisions else 'single'
    return str(precision)


def asked_properties(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the properties that a job needs: what was asked for, and the stress where cells are optimized."""
    asked = tuple(parameters['properties'])
    return (*asked, 'stress') if parameters.get('optimize_cell') and 'stress' not in asked else asked


def check_request(model: ModelSpec, parameters: Mapping[str, Any], task: str = 'single_point') -> str | None:
    """Return one sentence on what the model cannot give and what to do, or ``None`` if it can give all.

    :param parameters: all parameters of the job
    """
    entry, asked = BACKENDS[model.backend], set(asked_properties(parameters))
    precision = choose_precision(model, parameters)
    whose = f'the backend {model.backend} of {model.name}'
    missing = sorted(asked - entry.properties)
    if missing:
        return (
            f'parameters: properties = {list(asked_properties(parameters))}: {whose} has no {", ".join(missing)}; '
            f'it has {", ".join(sorted(entry.properties))}.'
        )
    if 'forces_std' in asked and model.ensemble_size == 1:
        return f'parameters: properties asks for forces_std, but {model.name} has one member: leave it out.'
    if precision == 'double' and 'double' not in entry.precisions:
        return f'parameters: precision = double, but {whose} computes in single precision only: leave it out.'
    if 'normal_modes' in TASK_QUANTITIES[task]:
        asked.add('hessian')
    if 'hessian' in asked and precision == 'single' and set(entry.precisions) == {'single', 'double'}:
        return (
            'parameters: precision = single, but the hessian is made of differences of forces and needs their last '
            'digits: set precision to double.'
        )
    return None
