"""The computer and the Code on which calculations run: found, or made once."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from aiida.orm import Computer, InstalledCode

COMPUTER_LABEL = 'localhost'
CODE_LABEL = 'mlpotential'
PLUGIN = 'mlpotential.single_point'

#: What the Python of a Code must be able to import, and what the remedy installs.
MODULES = ('numpy', 'ase', 'torch', 'torchani')
INSTALL = 'pip install torchani ase numpy'


class CodeError(click.ClickException):
    """No computer or Code that can be used, with the remedy."""


def get_or_make_computer(label: str, workdir: Path | None = None, poll_interval: float = 1.0) -> tuple[Computer, bool]:
    """Return the computer with a label, and whether it had to be made.

    Only ``localhost`` is made: any other label that does not exist is taken for a mistake.

    :param workdir: where its jobs run, if it has to be made; by default a folder in AiiDA's configuration directory
    :param poll_interval: seconds between two looks at a running job, if it has to be made
    """
    from aiida import orm
    from aiida.common.exceptions import NotExistent
    from aiida.manage import get_config, get_manager

    made = False
    try:
        computer = orm.load_computer(label)
    except NotExistent:
        if label != COMPUTER_LABEL:
            raise CodeError(
                f'there is no computer {label!r}: set it up with `verdi computer setup`, or leave out --computer.'
            ) from None
        profile = get_manager().get_profile()
        scratch = Path(get_config().dirpath) / 'scratch' / (profile.name if profile else 'default')
        computer = orm.Computer(
            label=label,
            hostname='localhost',
            description='This machine, set up by aiida-mlpotential.',
            transport_type='core.local',
            scheduler_type='core.direct',
            workdir=str(workdir or scratch),
        ).store()
        computer.set_minimum_job_poll_interval(poll_interval)
        computer.set_default_mpiprocs_per_machine(1)
        made = True
    if not computer.is_configured:
        if computer.transport_type != 'core.local':
            raise CodeError(
                f'the computer {label!r} is not configured: run '
                f'`verdi computer configure {computer.transport_type} {label}` first.'
            )
        computer.configure(safe_interval=0)
    return computer, made


def get_or_make_code(computer: Computer, label: str, python: str | None = None) -> tuple[InstalledCode, bool]:
    """Return the Code with a label on a computer, and whether it had to be made.

    :param python: the Python interpreter of the Code; by default whichever an existing Code has, else the one that runs
    :raises CodeError: if there is one already, with another interpreter
    """
    from aiida import orm

    query = orm.QueryBuilder()
    query.append(orm.Computer, filters={'uuid': computer.uuid}, tag='computer')
    query.append(orm.InstalledCode, filters={'label': label}, with_computer='computer', tag='code')
    query.order_by({'code': {'id': 'desc'}})
    existing: list[InstalledCode] = query.all(flat=True)
    for code in existing:
        if python is None or str(code.filepath_executable) == python:
            return code, False
    if existing:
        raise CodeError(
            f'the Code {existing[0].full_label} has the interpreter {existing[0].filepath_executable}, not {python}: '
            'name another one with --code.'
        )
    code = orm.InstalledCode(
        label=label,
        description='Python interpreter for machine-learning potentials.',
        computer=computer,
        filepath_executable=python or sys.executable,
        default_calc_job_plugin=PLUGIN,
        with_mpi=False,
    ).store()
    return code, True


def check_interpreter(code: InstalledCode) -> tuple[bool, str]:
    """Run the interpreter of a Code once, where and as its jobs run, and let it import the backend.

    :return: whether it could, and one sentence: the versions, or what is missing and how to install it
    """
    python = shlex.quote(str(code.filepath_executable))
    script = (
        f'import importlib; names = {MODULES!r}; '
        "print(', '.join(f'{name} {importlib.import_module(name).__version__}' for name in names))"
    )
    lines = [code.computer.get_prepend_text(), code.prepend_text, f'{python} -c {shlex.quote(script)}']
    command = '\n'.join(line for line in lines if line)
    try:
        with code.computer.get_transport() as transport:
            status, stdout, stderr = transport.exec_command_wait(command)
    except Exception as exception:  # each transport plugin raises its own types
        return False, f'the computer {code.computer.label} cannot be reached: {exception}'
    if status == 0:
        return True, stdout.strip().splitlines()[-1]
    cause = (stderr.strip().splitlines() or [f'exit status {status}'])[-1]
    return False, (
        f'{code.filepath_executable} cannot import the TorchANI backend ({cause}): '
        f'install it with `{python} -m {INSTALL}`, or name another interpreter with --python.'
    )


def find_code(code: InstalledCode | None, backend: str) -> InstalledCode:
    """Return the given Code, or else the one to use for a model of a backend.

    That is the one that the installer made for the backend; else ``mlpotential@localhost`` if it exists and no
    backend has it to itself; else the only Code of the plugin.

    :raises CodeError: if there is none, or more than one to choose from, or the given one is of an environment that
        was made for another backend
    """
    from aiida import orm

    from aiida_mlpotential.installer.codes import environment_of, find_codes
    from aiida_mlpotential.installer.recipes import RECIPES

    if code is not None:
        made_for = environment_of(code).get('backend', backend)
        if made_for != backend and backend in RECIPES:  # a calculator of ASE may be in any environment
            raise CodeError(
                f'the Code {code.full_label} was installed for the backend {made_for}, but the model needs {backend}: '
                f'leave out --code, or run `aiida-mlpotential backends install {backend}`.'
            )
        return code
    query = orm.QueryBuilder().append(orm.InstalledCode, filters={'attributes.input_plugin': PLUGIN})
    found: list[InstalledCode] = query.all(flat=True)
    others = [item for item in found if not item.is_hidden and not environment_of(item)]
    preferred = [item for item in others if item.full_label == f'{CODE_LABEL}@{COMPUTER_LABEL}']
    choices = [item for item in find_codes(backend) if not item.is_hidden]
    if not choices:
        choices = preferred[-1:] or others
    if len(choices) == 1:
        return choices[0]
    if not choices:
        remedies = ['make one with `aiida-mlpotential setup`'] if backend in ('torchani', 'ase') else []
        remedies += [f'run `aiida-mlpotential backends install {backend}`'] if backend in RECIPES else []
        raise CodeError(f'the profile has no Code for the backend {backend}: {", or ".join(remedies)}.')
    labels = ', '.join(sorted({item.full_label for item in choices}))
    raise CodeError(f'there are several Codes for the backend {backend} ({labels}): choose one with --code.')
