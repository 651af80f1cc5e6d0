"""The Codes of environments that were made here: created, found again, and retired."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from .environment import Environment
from .recipes import Recipe
from .remote import InstallerError

if TYPE_CHECKING:
    from aiida.orm import Computer, InstalledCode

PLUGIN = 'mlpotential.single_point'
#: Extra of each Code made here, with what is known about its environment.
EXTRA = 'mlpotential_environment'


def default_label(backend: str) -> str:
    """Return the label of the Code of a backend."""
    return f'mlpotential-{backend}'


def check_label(computer: Computer, label: str) -> None:
    """Raise an :class:`InstallerError` if a computer has a Code of a label already."""
    from aiida import orm

    if '@' in label:
        raise InstallerError(f'{label!r} names a computer: give the label alone, and the computer with --computer.')
    query = orm.QueryBuilder().append(orm.Computer, filters={'uuid': computer.uuid}, tag='computer')
    if query.append(orm.Code, filters={'label': label}, with_computer='computer').count():
        raise InstallerError(
            f'there is a Code {label}@{computer.label} already: name another one with --code, or uninstall that one.'
        )


def create_code(environment: Environment, recipe: Recipe, label: str, facts: dict[str, Any]) -> InstalledCode:
    """Return a new stored Code of the interpreter of an environment.

    :param facts: what the check of the interpreter found
    """
    from aiida import orm

    names = ', '.join(f'{name} {version}' for name, version in facts.get('versions', {}).items())
    device = environment.manifest.get('device') or 'default'
    code = orm.InstalledCode(
        label=label,
        description=f'{recipe.backend} for machine-learning potentials: {names}; build for {device}.',
        computer=environment.remote.computer,
        filepath_executable=environment.python,
        default_calc_job_plugin=PLUGIN,
        with_mpi=False,
    ).store()
    code.base.extras.set(
        EXTRA,
        {
            'backend': recipe.backend,
            'version': recipe.version,
            'path': environment.path,
            'device': environment.manifest.get('device', ''),
            'label': label,
        },
    )
    record_check(code, True)
    return code


def record_check(code: InstalledCode, usable: bool) -> None:
    """Note on a Code that was made here when it was checked, and with what result."""
    facts = environment_of(code)
    if facts:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='minutes')
        code.base.extras.set(EXTRA, {**facts, 'usable': usable, 'checked': now})


def environment_of(code: InstalledCode) -> dict[str, Any]:
    """Return what is known about the environment of a Code; nothing, if it was not made here."""
    facts = code.base.extras.get(EXTRA, None)
    return dict(facts) if isinstance(facts, dict) else {}


def find_codes(backend: str | None = None, computer: Computer | None = None) -> list[InstalledCode]:
    """Return the Codes that were made here and not retired since, the oldest first; a user may have hidden them."""
    from aiida import orm

    query = orm.QueryBuilder()
    query.append(orm.Computer, filters={} if computer is None else {'uuid': computer.uuid}, tag='computer')
    query.append(orm.InstalledCode, filters={'extras': {'has_key': EXTRA}}, with_computer='computer', tag='code')
    query.order_by({'code': {'id': 'asc'}})
    facts = [(code, environment_of(code)) for code in query.all(flat=True)]
    return [code for code, known in facts if not known.get('removed') and backend in (None, known.get('backend'))]


def retire_code(code: InstalledCode) -> str:
    """Delete a Code, or hide it where calculations depend on it, with its label free for another one.

    :return: what was done, for the user
    """
    from aiida.tools import delete_nodes

    name = code.full_label
    if code.base.links.get_outgoing().first() is None and code.pk is not None:
        delete_nodes([code.pk], dry_run=False)
        return f'deleted the Code {name}'
    code.is_hidden = True
    code.label = f'{code.label}-uninstalled-{code.pk}'
    code.base.extras.set(EXTRA, {**environment_of(code), 'usable': False, 'removed': True})
    return f'hid the Code {name}, which calculations used, as {code.full_label}'
