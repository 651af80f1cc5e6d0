"""Protocols: named sets of inputs in YAML files, from which workflows make a builder."""

from __future__ import annotations

import copy
import importlib.resources
from collections.abc import Mapping
from typing import Any, ClassVar

import yaml
from aiida import orm
from aiida.engine import PortNamespace, ProcessBuilder
from aiida.engine.processes.builder import ProcessBuilderNamespace

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested dictionaries as one, in which the changes win; neither is modified.

    Nodes are taken as they are: a copy of one would be another node, without its provenance.
    """
    result = {key: _copied(value) for key, value in base.items()}
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if both else _copied(value)
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return value if isinstance(value, orm.Node) else copy.deepcopy(value)


class ProtocolMixin:
    """What workflows with protocols share; the file of a class is ``protocols/<PROTOCOL>.yaml``."""

    #: Name of the file without its suffix.
    PROTOCOL: ClassVar[str]

    @classmethod
    def _read_protocols(cls) -> dict[str, Any]:
        file = importlib.resources.files(__package__) / 'protocols' / f'{cls.PROTOCOL}.yaml'
        content: dict[str, Any] = yaml.safe_load(file.read_text(encoding='utf-8'))
        return content

    @classmethod
    def get_default_protocol(cls) -> str:
        """Return the name of the protocol that is taken when none is named."""
        return str(cls._read_protocols()['default_protocol'])

    @classmethod
    def get_available_protocols(cls) -> dict[str, str]:
        """Return the protocols with what each is for."""
        return {name: content['description'] for name, content in cls._read_protocols()['protocols'].items()}

    @classmethod
    def get_protocol_inputs(
        cls, protocol: str | None = None, overrides: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the inputs of a protocol as nested dictionaries.

        :param protocol: its name, by default :meth:`get_default_protocol`
        :param overrides: inputs that win over those of the protocol
        :raises ValueError: if there is no such protocol
        """
        content = cls._read_protocols()
        name = protocol or content['default_protocol']
        if name not in content['protocols']:
            raise ValueError(f'there is no protocol {name!r}: choose one of {", ".join(content["protocols"])}')
        inputs = {key: value for key, value in content['protocols'][name].items() if key != 'description'}
        return merge(merge(content['default_inputs'], inputs), overrides or {})


class TaskProtocolMixin(ProtocolMixin):
    """The builder of workflows around one calculation."""

    @classmethod
    def get_builder_from_protocol(
        cls,
        code: orm.AbstractCode | str,
        model: ModelData,
        structures: StructureSetData | orm.StructureData,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder with the inputs of a protocol.

        :param code: a code or its label
        :param model: the model
        :param structures: one structure, or a set of any number
        :param protocol: ``fast``, ``balanced`` or ``precise``; see :meth:`get_available_protocols`
        :param overrides: inputs that win over those of the protocol, such as ``{'calc': {'parameters': {...}}}``
        :param options: ``metadata.options`` of the calculation: walltime, queue, memory and the like
        :raises ValueError: if there is no such protocol, or an input that the workflow does not have
        """
        inputs = cls.get_protocol_inputs(protocol, overrides)
        if options:
            inputs = merge(inputs, {'calc': {'metadata': {'options': dict(options)}}})
        calc = inputs['calc']
        calc['code'] = orm.load_code(code) if isinstance(code, str) else code
        calc['model'] = model
        calc['structures' if isinstance(structures, StructureSetData) else 'structure'] = structures
        if model.to_spec().ensemble_size == 1 and not isinstance(calc.get('parameters'), orm.Node):
            calc['parameters'] = _without_spread(calc.get('parameters', {}))
        builder: ProcessBuilder = cls.get_builder()  # type: ignore[attr-defined]
        fill(builder, inputs)
        return builder


def fill(builder: ProcessBuilder, inputs: Mapping[str, Any]) -> None:
    """Set the inputs of a builder, however deep; plain values become nodes where the port wants one.

    :raises ValueError: if there is no such input
    """
    _fill(builder, inputs, builder.process_class.spec().inputs)


def _fill(namespace: ProcessBuilderNamespace, inputs: Mapping[str, Any], ports: PortNamespace) -> None:
    for name, value in inputs.items():
        if name not in ports and not ports.dynamic:
            raise ValueError(f'there is no input {name!r}: choose one of {", ".join(ports)}')
        port = ports.get(name)
        if isinstance(port, PortNamespace) and isinstance(value, Mapping):
            _fill(getattr(namespace, name), value, port)
        else:
            setattr(namespace, name, value if isinstance(value, orm.Node) else _as_wanted(value, port))


def _as_wanted(value: Any, port: Any) -> Any:
    """Return a plain value as a node where a port takes nothing else; options of a job stay as they are."""
    wanted = getattr(port, 'valid_type', None) or ()
    types = [item for item in (wanted if isinstance(wanted, tuple) else (wanted,)) if item is not type(None)]
    return orm.to_aiida_type(value) if types and all(issubclass(item, orm.Node) for item in types) else value


def _without_spread(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without what only an ensemble has."""
    properties = [name for name in parameters.get('properties', ()) if name != 'forces_std']
    return {**parameters, 'properties': properties} if properties else dict(parameters)
