"""Namespaces of inputs that take what they have and nothing else."""

from __future__ import annotations

from aiida import orm
from aiida.engine import PortNamespace


def close_namespaces(ports: PortNamespace) -> None:
    """Let exposed namespaces refuse inputs of unknown names, at any depth.

    AiiDA leaves a namespace open to any node when the inputs of another process are exposed in it, so that a misspelt
    input would be ignored, or end the workflow with an exception half way. Namespaces that are meant to be open have a
    type of their own, such as models.
    """
    if ports.valid_type is orm.Data:
        ports.dynamic = False
    for port in ports.values():
        if isinstance(port, PortNamespace):
            close_namespaces(port)
