"""Get a pre-parameterised model as a stored node."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aiida import orm

from aiida_mlpotential.data.model import ModelData, ModelInfo
from aiida_mlpotential.worker.registry import PRETRAINED, PretrainedModel

from .settings import MODELS_VARIABLE, LibraryError
from .sources import CacheSource, Report, Source, SourceError, default_sources

#: The networks give energies, and expect distances, in these units.
_ANI_ENERGY_UNIT = 'Hartree'
_ANI_DISTANCE_UNIT = 'angstrom'


def _silent(_: str) -> None:
    """Report nothing."""


def list_models() -> tuple[PretrainedModel, ...]:
    """Return what is known of every pre-parameterised model."""
    return tuple(PRETRAINED.values())


def resolve_name(name: str) -> PretrainedModel:
    """Return the model of a name, in which case, hyphens and underscores do not matter.

    :raises LibraryError: if there is none
    """
    known = {_plain(key): model for key, model in PRETRAINED.items()}
    model = known.get(_plain(name))
    if model is None:
        close = difflib.get_close_matches(_plain(name), known, n=1)
        hint = f'did you mean {known[close[0]].name}? ' if close else ''
        raise LibraryError(f'there is no model {name!r}; {hint}known are {", ".join(PRETRAINED)}')
    return model


def _plain(name: str) -> str:
    return name.lower().replace('-', '').replace('_', '').strip()


def find_model(name: str) -> ModelData | None:
    """Return the node of a pre-parameterised model in the current profile, the oldest if there are several.

    :raises LibraryError: if there is no model of the name
    """
    model = resolve_name(name)
    filters = {'attributes.sha256': model.sha256, 'attributes.backend': 'torchani'}
    builder = orm.QueryBuilder().append(ModelData, filters=filters, tag='model').order_by({'model': 'id'})
    nodes: list[ModelData] = builder.all(flat=True)
    return next((node for node in nodes if _is_published(node, model)), None)


def _is_published(node: ModelData, model: PretrainedModel) -> bool:
    """Return whether a node with the parameters of a model is that model: somebody may have said other units."""
    expected = model.elements, model.ensemble_size, _ANI_ENERGY_UNIT, _ANI_DISTANCE_UNIT
    return (node.elements, node.ensemble_size, node.energy_unit, node.distance_unit) == expected


def get_model(name: str, sources: Sequence[Source] | None = None, report: Report | None = None) -> ModelData:
    """Return a pre-parameterised model as a stored node, getting its parameters first if the profile has none.

    :param name: such as ``ANI-1ccx``
    :param sources: where to look, by default :func:`default_sources`
    :param report: takes lines of progress, such as ``print``
    :raises LibraryError: if the name is unknown, or no source has the model; the message has every source's reason
    """
    model = resolve_name(name)
    node = find_model(name)
    if node is not None:
        return node
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / model.file
        origin = fetch_parameters(model, path, sources, report)
        node = ModelData.from_file(
            path,
            backend='torchani',
            name=model.name,
            elements=model.elements,
            ensemble_size=model.ensemble_size,
            info=ModelInfo(
                energy_unit=_ANI_ENERGY_UNIT,
                distance_unit=_ANI_DISTANCE_UNIT,
                source=origin,
                licence=model.licence,
                method=model.method,
                doi=model.doi,
            ),
        )
        return node.get_or_store()


def fetch_parameters(
    model: PretrainedModel, target: Path, sources: Sequence[Source] | None = None, report: Report | None = None
) -> str:
    """Write the canonical parameter file of a model, which needs no AiiDA profile, and return where it came from.

    :param model: an entry of the registry
    :param target: file to write
    :param sources: where to look, in order
    :param report: takes lines of progress
    :raises LibraryError: if no source has the model
    """
    say = report or _silent
    chosen = default_sources() if sources is None else tuple(sources)
    reasons = []
    for source in chosen:
        try:
            origin = source.fetch(model, target, say)
        except SourceError as exception:
            reasons.append(f'{source.name}: {exception}')
            target.unlink(missing_ok=True)
            if source.cacheable:  # it took its time, and another one is tried
                say(reasons[-1])
            continue
        cached = isinstance(source, CacheSource) and origin != source.name
        say(f'Found {model.name} ({f"{source.name}; from {origin}" if cached else origin})')
        if source.cacheable:
            for cache in chosen:
                if isinstance(cache, CacheSource):
                    cache.keep(model, target, origin, say)
        return origin
    raise LibraryError(
        f'{model.name} could not be found: {"; ".join(reasons) or "there are no sources"}. '
        f'Put {model.state_dict} (or {model.file}) in a directory and set {MODELS_VARIABLE} to it.'
    )
