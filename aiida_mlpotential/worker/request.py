"""Whether what a job asks for can be had of its model: the same check before submission and in the worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .backends.catalogue import BACKENDS
from .schema import ModelSpec


def check_request(model: ModelSpec, parameters: Mapping[str, Any]) -> str | None:
    """Return one sentence on what the model cannot give and what to do, or ``None`` if it can give all.

    :param parameters: all parameters of the job
    """
    entry, asked = BACKENDS[model.backend], set(parameters['properties'])
    whose = f'the backend {model.backend} of {model.name}'
    missing = sorted(asked - entry.properties)
    if missing:
        return (
            f'parameters: properties = {parameters["properties"]}: {whose} has no {", ".join(missing)}; '
            f'it has {", ".join(sorted(entry.properties))}.'
        )
    if 'forces_std' in asked and model.ensemble_size == 1:
        return f'parameters: properties asks for forces_std, but {model.name} has one member: leave it out.'
    if parameters['precision'] == 'double' and 'double' not in entry.precisions:
        return f'parameters: precision = double, but {whose} computes in single precision only: leave it out.'
    if 'hessian' in asked and parameters['precision'] == 'single' and set(entry.precisions) == {'single', 'double'}:
        return (
            'parameters: properties asks for the hessian, which is made of differences of forces and needs their last '
            'digits: set precision to double.'
        )
    return None
