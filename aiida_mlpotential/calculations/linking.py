"""How the files of the model come into the work directory: as a link to a copy on the computer, or with the job.

The copy is no input of the job: the same files are the same model, wherever they lie, so that caching and the links of
provenance do not depend on it. Which copy it was stands in an extra of the job and in its ``calcinfo.json``.
"""

from __future__ import annotations

from aiida import orm
from aiida.common import datastructures

from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.queries.staged import LINKED_EXTRA, find_staged
from aiida_mlpotential.worker.schema import MODEL_DIRECTORY


def can_link(code: orm.AbstractCode) -> bool:
    """Return whether what runs a code sees the files to which a link in the work directory points.

    A container in general sees the work directory and nothing else.
    """
    return not isinstance(code, orm.ContainerizedCode)


def send_model(
    calcinfo: datastructures.CalcInfo, job: orm.CalcJobNode, model: ModelData, code: orm.AbstractCode
) -> None:
    """Let a job link the copy of its model if there is one on its computer, else take the files along.

    :param calcinfo: is told what to link or copy
    :param job: is told which copy it is, as an extra
    """
    files = model.copy_list()
    computer = job.computer
    copy = find_staged(model, computer) if files and computer is not None and can_link(code) else None
    if copy is None or computer is None:
        calcinfo.local_copy_list = files
        job.base.extras.set(LINKED_EXTRA, None)  # an earlier attempt to send the job may have found one
        return
    target = f'{copy.get_remote_path()}/{MODEL_DIRECTORY}'
    calcinfo.remote_symlink_list = [(computer.uuid, target, MODEL_DIRECTORY)]
    job.base.extras.set(LINKED_EXTRA, copy.uuid)
