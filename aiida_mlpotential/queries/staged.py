"""Copies of model files that lie on a computer, for all jobs there: which there are, and who uses them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from aiida import orm

from aiida_mlpotential.data.model import ModelData

from .processes import TERMINATED, process_type

#: Task of the calculations that make copies.
TASK = 'stage_model'
#: Extra of a job: UUID of the folder with the copy that it links.
LINKED_EXTRA = 'mlpotential_staged_model'
#: Extra of a folder with a copy: why no job may link it any more.
BROKEN_EXTRA = 'mlpotential_staged_broken'


@dataclasses.dataclass(frozen=True)
class StagedModel:
    """A copy of the files of a model on a computer.

    :ivar model: the node whose files were copied
    :ivar folder: the folder on the computer; the files are in its ``model``
    :ivar broken: why no job may link it any more, empty if any may
    """

    model: ModelData
    folder: orm.RemoteData
    broken: str = ''

    @property
    def computer(self) -> orm.Computer:
        """Return where the copy is."""
        computer = self.folder.computer
        assert computer is not None  # noqa: S101 - for the type checker; every RemoteData has one
        return computer


def list_staged(model: ModelData | None = None, computer: orm.Computer | None = None) -> list[StagedModel]:
    """Return the copies that the jobs of this user may find, the newest first, with those that turned out broken.

    What was removed with ``models unstage`` or ``verdi calcjob cleanworkdir`` is not among them.

    :param model: only copies of the same files under the same names, of whichever node
    :param computer: only copies there
    """
    return [
        staged for staged in _copies(model, computer) if model is None or dict(staged.model.files) == dict(model.files)
    ]


def find_staged(model: ModelData, computer: orm.Computer) -> orm.RemoteData | None:
    """Return the folder with the newest sound copy of a model on a computer, or ``None``."""
    sound = (staged.folder for staged in list_staged(model, computer) if not staged.broken)
    return next(sound, None)


def is_work_directory(folder: orm.RemoteData) -> bool:
    """Return whether a folder is where AiiDA puts the job that made it: nothing else may be removed.

    Nodes that were imported name any path.
    """
    creator, path = folder.creator, PurePosixPath(folder.get_remote_path())
    uuid = '' if creator is None else creator.uuid
    return path.parts[-3:] == (uuid[:2], uuid[2:4], uuid[4:]) and '..' not in path.parts


def mark_broken(folder: orm.RemoteData, why: str) -> None:
    """Note that no job may link a copy any more; it can still be removed."""
    folder.base.extras.set(BROKEN_EXTRA, why)


def linked_copy(job: orm.CalcJobNode) -> orm.RemoteData | None:
    """Return the folder with the copy of the model that a job links, or ``None`` if it got the files itself."""
    uuid = job.base.extras.get(LINKED_EXTRA, None)
    query = orm.QueryBuilder().append(orm.RemoteData, filters={'uuid': uuid or ''})
    found: list[orm.RemoteData] = query.all(flat=True)
    return found[0] if found else None


def jobs_linking(folder: orm.RemoteData, *, unfinished: bool = False) -> list[int]:
    """Return the PKs of the jobs that link a copy, the oldest first.

    :param unfinished: only those that have not ended: they fail if the copy goes
    """
    filters: dict[str, Any] = {f'extras.{LINKED_EXTRA}': folder.uuid}
    if unfinished:
        filters['attributes.process_state'] = {'!in': TERMINATED}
    query = orm.QueryBuilder().append(orm.CalcJobNode, filters=filters, project='id', tag='job')
    pks: list[int] = query.order_by({'job': 'id'}).all(flat=True)
    return pks


def _copies(model: ModelData | None, computer: orm.Computer | None) -> Iterator[StagedModel]:
    """Yield the copies that are complete and have not been removed, the newest first."""
    finished = {'process_type': process_type(TASK), 'attributes.exit_status': 0}
    query = orm.QueryBuilder()
    query.append(orm.CalcJobNode, filters=finished, tag='job')
    query.append(
        ModelData,
        with_outgoing='job',
        filters={} if model is None else {'attributes.sha256': model.sha256},
        tag='model',
        project='*',
    )
    query.append(orm.RemoteData, with_incoming='job', tag='folder', project='*')
    query.append(orm.User, with_node='folder', filters={'email': _email()})
    if computer is not None:
        query.append(orm.Computer, with_node='folder', filters={'id': computer.pk})
    query.order_by({'folder': [{'id': 'desc'}]})
    for node, folder in query.iterall():
        if not folder.is_cleaned:
            yield StagedModel(node, folder, folder.base.extras.get(BROKEN_EXTRA, ''))


def _email() -> str:
    """Return the address of the user, who has an account of his own on each computer."""
    user = orm.User.collection.get_default()
    return '' if user is None else str(user.email)
