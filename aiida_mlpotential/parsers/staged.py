"""What a job that failed says of the copy of the model that it linked."""

from __future__ import annotations

import shlex

from aiida import orm

from aiida_mlpotential.queries.staged import linked_copy

#: Errors of the files of the model for which a bad copy is the cause.
COPY_LABELS = frozenset({'ERROR_MODEL_MISSING', 'ERROR_MODEL_HASH'})


def explain(job: orm.CalcJobNode, label: str, message: str) -> str:
    """Return the message of an error, with the copy and the remedy where the model was linked and its files are bad.

    :param label: of the exit code
    :param message: from the worker
    """
    copy = linked_copy(job) if label in COPY_LABELS else None
    if copy is None or copy.computer is None:
        return message
    command = f'aiida-mlpotential models unstage {job.inputs.model.pk} --computer {shlex.quote(copy.computer.label)}'
    return (
        f'{message.rstrip(".")}; it is the staged copy in {copy.get_remote_path()} on {copy.computer.label}: '
        f'remove it with `{command}`, and later jobs get the files anew'
    )
