"""The inputs of what is launched: models by name, structures as the nodes that fit, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.registry import PretrainedModel

from . import reports
from .files import read_structures, single_structure
from .models import install_model
from .models_show import resolve_model
from .progress import Steps

if TYPE_CHECKING:
    from aiida_mlpotential.data.model import ModelData
    from aiida_mlpotential.data.structures import StructureSetData

#: Command line options that become ``metadata.options`` of the calculation.
_SCHEDULER_OPTIONS = ('max_wallclock_seconds', 'queue_name', 'account')


def scheduler_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that are ``metadata.options`` of a calculation."""
    return {key: arguments[key] for key in _SCHEDULER_OPTIONS if arguments[key] is not None}


def find_model(identifier: str) -> ModelData:
    """Return a model by name, installing a published one where the profile has none, or by PK or UUID."""
    from aiida_mlpotential import library

    found = resolve_model(identifier)
    if not isinstance(found, PretrainedModel):
        return found
    return library.find_model(found.name) or install_model(found.name, Steps())


def label_models(models: Iterable[ModelData]) -> dict[str, ModelData]:
    """Return models by labels that links may have: their names, with the PK where two have the same.

    :raises click.BadParameter: if a model is there twice
    """
    found: dict[str, ModelData] = {}
    for model in models:
        if any(model.uuid == other.uuid for other in found.values()):
            raise click.BadParameter(f'{model.name} is there twice: leave one out.', param_hint='--model')
        label = re.sub(r'[\W_]+', '_', model.name, flags=re.ASCII).strip('_') or 'model'
        label = label if label[0].isalpha() else f'model_{label}'
        found[label if label not in found else f'{label}_{model.pk}'] = model
    return found


def make_inputs(
    file: Path, structures: StructureSetData, model: ModelData, parameters: dict[str, Any]
) -> dict[str, Any]:
    """Return the inputs of a calculation; one structure becomes a ``StructureData``, which other plugins know too."""
    inputs: dict[str, Any] = {'model': model}
    if len(structures) == 1:
        inputs['structure'] = single_structure(structures, file)
    else:
        inputs['structures'] = structures
    if parameters:
        inputs['parameters'] = parameters
    return inputs


def read_set(files: Sequence[Path], index: str, file_format: str | None) -> StructureSetData:
    """Return the structures of all files as one set: the node that the profile has of them, or a new one.

    Only of the same node does a screening find what an earlier one has computed.
    """
    from aiida_mlpotential.data.structures import StructureSetData

    sets = [read_structures(file, index, file_format) for file in files]
    if len(sets) == 1:
        return _known(sets[0])
    return _known(StructureSetData.from_frames(_join([item.get_frames() for item in sets])))


def _known(structures: StructureSetData) -> StructureSetData:
    """Return the stored set with the same content, if there is one."""
    from aiida import orm

    query = orm.QueryBuilder().append(type(structures), filters={'attributes.sha256': structures.sha256}, tag='set')
    found: StructureSetData | None = query.order_by({'set': {'id': 'asc'}}).first(flat=True)
    return structures if found is None else found


def _join(parts: Sequence[Frames]) -> Frames:
    """Return the frames of all parts, one part after the other; where some have labels, the others have empty ones."""
    counts = np.concatenate([part.counts for part in parts])
    labels = [label for part in parts for label in (part.labels or [''] * len(part))]
    return Frames(
        numbers=np.concatenate([part.numbers for part in parts]),
        positions=np.concatenate([part.positions for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        cells=np.concatenate([part.cells for part in parts]),
        pbc=np.concatenate([part.pbc for part in parts]),
        labels=tuple(labels) if any(labels) else (),
    )


def first_line(exception: Exception) -> str:
    """Return what is wrong with an input, without the path through the ports that AiiDA puts before it."""
    text = str(exception).strip()
    if text.startswith('Error occurred validating port'):
        text = text.partition("': ")[2] or text
    return reports.with_options(text.splitlines()[0]) if text else type(exception).__name__
