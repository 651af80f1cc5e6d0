"""The builder of screenings: inputs of a protocol for a set of structures and its models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine import ProcessBuilder

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData

from ..protocol import ProtocolMixin, fill, merge

#: Inputs that ask for a spread, which a single model does not have.
_OF_ENSEMBLES = ('max_qbc', 'n_selected')


class ScreeningProtocolMixin(ProtocolMixin):
    """The builder of the screening; its protocols are in ``protocols/screening.yaml``."""

    PROTOCOL = 'screening'

    @classmethod
    def get_builder_from_protocol(
        cls,
        code: orm.AbstractCode | str | Mapping[str, orm.AbstractCode],
        models: ModelData | Mapping[str, ModelData],
        structures: StructureSetData,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder with the inputs of a protocol.

        The threshold of the protocol is left out where no model is an ensemble; one that was asked for is refused.

        :param code: a code or its label, or a code for each label of a model
        :param models: the models by label; a single one gets the label ``model``
        :param structures: a set of any number
        :param protocol: ``fast``, ``balanced`` or ``precise``; see ``get_available_protocols``
        :param overrides: inputs that win over those of the protocol, such as ``{'slice_size': 1000}``
        :param options: ``metadata.options`` of all jobs: walltime, queue, memory and the like
        :raises ValueError: if there is no such protocol, or an input that the workflow does not have
        """
        inputs = cls.get_protocol_inputs(protocol, overrides)
        labelled = {'model': models} if isinstance(models, ModelData) else dict(models)
        if all(model.to_spec().ensemble_size == 1 for model in labelled.values()):
            inputs = {key: inputs[key] for key in inputs if key not in _OF_ENSEMBLES or key in (overrides or {})}
        if options:
            inputs = merge(inputs, {'options': dict(options)})
        codes = {'codes': dict(code)} if isinstance(code, Mapping) else {'code': _load(code)}
        builder: ProcessBuilder = cls.get_builder()  # type: ignore[attr-defined]
        fill(builder, {**inputs, **codes, 'models': labelled, 'structures': structures})
        return builder


def _load(code: orm.AbstractCode | str) -> orm.AbstractCode:
    return orm.load_code(code) if isinstance(code, str) else code
