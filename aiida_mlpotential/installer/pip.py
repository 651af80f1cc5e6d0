"""Calls of pip as shell commands, and what went wrong in one sentence."""

from __future__ import annotations

import dataclasses
import re
import shlex

from .recipes import TORCH_INDEX, Step, for_device
from .remote import Outcome

#: Settings of pip's own files that say how to reach an index, not which.
_CONNECTION = ('cert', 'client-cert', 'proxy', 'trusted-host', 'timeout')

_SIGKILL, _SIGILL = 137, 132

OLD_CPU = (
    'the processor of this computer lacks instructions that the library was built for ("Illegal instruction"; most '
    'builds need AVX, some AVX2): use a newer machine or partition, or a build for this one'
)


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where pip may take things from.

    :ivar device: build of torch, ``''`` for whichever pip finds
    :ivar index: address of the only index to use
    :ivar wheels: directory on the computer, the only place to use: no network is needed then
    """

    device: str = ''
    index: str = ''
    wheels: str = ''


def pip_command(python: str, step: Step, sources: Sources) -> list[str]:
    """Return the lines of shell that run one step; they fail if it does."""
    options = ['--no-input', '--disable-pip-version-check', '--no-cache-dir', '--progress-bar', 'off']
    if step.binary:
        options += ['--only-binary', ':all:']
    if not step.dependencies:
        options += ['--no-deps']
    if step.any_python:
        options += ['--ignore-requires-python']
    pip = f'{shlex.quote(python)} -m pip'
    lines: list[str] = []
    if sources.wheels:
        options += ['--no-index', '--find-links', sources.wheels]
        lines = _forget_sources()
        if not step.binary:
            # Where pip builds, it gets the tools to build with from nowhere else: those in the environment are used.
            options += ['--no-build-isolation']
    elif sources.index:
        options += ['--index-url', sources.index]
        lines = [_keep_connection(pip), *_forget_sources()]
    device = sources.device if step.has_torch else ''
    command = shlex.join([*shlex.split(pip), 'install', *options, *for_device(step.requirements, device)])
    if device and not (sources.wheels or sources.index):
        # The index of torch is asked only where the build is nowhere else, such as in a mirror of one's own: a
        # machine that cannot reach it would otherwise wait for each of its requirements.
        other = shlex.join(['--extra-index-url', f'{TORCH_INDEX}/{device}'])
        command = f'{command} || {command} {other}'
    return [*lines, command]


def _forget_sources() -> list[str]:
    return [
        'unset PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_NO_INDEX PIP_CONSTRAINT',
        'export PIP_CONFIG_FILE=/dev/null',
    ]


def _keep_connection(pip: str) -> str:
    """Return shell that turns the settings of a connection into variables, before the files are left out.

    They are taken from the list of all: `pip config get` does not see every file before pip 24.
    """
    return (
        f'settings=$({pip} config list 2>/dev/null); for key in {" ".join(_CONNECTION)}; do '
        'value=$(printf "%s\\n" "$settings" | sed -n "s/^global\\.$key=\'\\(.*\\)\'\\$/\\1/p"); '
        '[ -z "$value" ] || export "PIP_$(echo "$key" | tr a-z- A-Z_)=$value"; done; true'
    )


def read_failure(outcome: Outcome, free_megabytes: int | None) -> str:
    """Return why a step failed, and what to do, in one sentence."""
    log = outcome.log
    full = re.search(r'No space left on device|Disk quota exceeded', log)
    if full or (free_megabytes is not None and free_megabytes < 10):
        return (
            f'the disk is full ({full[0] if full else f"{free_megabytes} MB left"}): '
            'make room, or choose another --directory.'
        )
    if outcome.status is None or outcome.status == _SIGKILL:
        return 'pip was killed, perhaps for want of memory: try again, or on a machine with more.'
    if outcome.status == _SIGILL:
        return f'{OLD_CPU}.'
    if 'ensurepip is not available' in log:
        return 'its Python has no ensurepip: install the package python3-venv, or name another one with --python.'
    missing = re.findall(r'ERROR: No matching distribution found for (.+)', log)
    if re.search(r'Failed to establish a new connection|Temporary failure in name resolution|ConnectTimeout', log):
        return (
            'the package index cannot be reached from there: give a mirror with --index, or a directory of wheels '
            'with --wheels.'
        )
    if missing:
        return (
            f'there is no {missing[-1].strip()} for this Python and platform where pip looks: '
            'check the requirement, or give another source with --index or --wheels.'
        )
    if re.search(r"Cannot find command '?git", log):
        return 'git is needed and not there: load its module in the prepend text, or give a local --requirement.'
    errors = [line[6:].strip() for line in log.splitlines() if line.lower().startswith('error:') and line[6:].strip()]
    cause = errors[-1] if errors else f'exit status {outcome.status}'
    return f'{cause.rstrip(".")}; its log is above.'
