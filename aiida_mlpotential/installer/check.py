"""Whether a Code can be used: its interpreter evaluates a small model of a backend where and as its jobs run."""

from __future__ import annotations

import dataclasses
import json
import posixpath
import shlex
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_mlpotential.archive import worker_archive
from aiida_mlpotential.worker.schema import WORKER_FILE
from aiida_mlpotential.worker.selftest import RESULT_FILE

from .pip import OLD_CPU
from .remote import InstallerError, Outcome, Remote, Report, last_line, temporary_directory

if TYPE_CHECKING:
    from aiida.orm import InstalledCode

_BOOT = (
    'import sys; sys.path.insert(0, sys.argv.pop(1)); '
    'from aiida_mlpotential.worker.selftest import main; sys.exit(main())'
)

_GPUS = 'gpus.txt'

#: What it means when the interpreter is ended by a signal.
_SIGNALS = {
    signal.SIGILL: f'it died: {OLD_CPU}',
    signal.SIGSEGV: 'it crashed (segmentation fault): its libraries do not fit together, install the backend anew',
    signal.SIGBUS: 'it crashed (bus error): the disk may be full, or its libraries are damaged',
    signal.SIGKILL: 'it was killed, perhaps for want of memory: try on a machine with more',
}
_STATUSES = {
    126: 'it cannot be executed: check the path of the Code, and its permissions',
    127: 'there is no such interpreter: check the path of the Code, and the modules in its prepend text',
}


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """What came of a check.

    :ivar backend: name of the backend
    :ivar usable: whether jobs can use it
    :ivar message: one sentence: what it can, or what is wrong and what to do
    :ivar warnings: sentences about what is not as it might be
    :ivar missing: whether the library is not there at all, which for a Code of another backend is no fault
    :ivar facts: what the interpreter told of itself
    """

    backend: str
    usable: bool
    message: str
    warnings: tuple[str, ...] = ()
    missing: bool = False
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def check_code(
    code: InstalledCode, backend: str, device: str = '', report: Report | None = None, remote: Remote | None = None
) -> CheckResult:
    """Evaluate a small model with the interpreter of a Code, in the environment that its jobs have.

    :param device: build of torch that was asked for, such as ``cu130``; one without CUDA is an error then
    :raises InstallerError: if the computer cannot be reached, or the Code is of a kind that cannot be tried
    """
    if code.computer is None or not hasattr(code, 'filepath_executable'):
        raise InstallerError(f'{code.label} is no Code of an interpreter on a computer: only such can be checked.')
    if remote is None:
        with Remote(code.computer) as connected:
            return check_code(code, backend, device, report, connected)
    executable = str(code.filepath_executable)
    return check_interpreter(remote, executable, backend, device=device, prepend_text=code.prepend_text, report=report)


def check_interpreter(
    remote: Remote,
    python: str,
    backend: str,
    *,
    device: str = '',
    prepend_text: str = '',
    report: Report | None = None,
) -> CheckResult:
    """Evaluate a small model with an interpreter on a computer; the rest is as for :func:`check_code`."""
    with temporary_directory(remote) as directory, tempfile.TemporaryDirectory() as local:
        archive = Path(local) / WORKER_FILE
        archive.write_bytes(worker_archive())
        target = posixpath.join(directory, WORKER_FILE)
        remote.upload(archive, target)
        work = posixpath.join(directory, 'work')
        command = shlex.join([python, '-c', _BOOT, target, backend, work])
        # The prepended text may fail in part, as in a job, whose script goes on as well.
        commands = ['set +e', *([prepend_text] if prepend_text else []), f'mkdir -p {shlex.quote(work)}']
        commands += [f'nvidia-smi -L > {shlex.quote(work)}/{_GPUS} 2> /dev/null', command]
        outcome = remote.run_step(directory, commands, report)
        text = remote.read(posixpath.join(work, RESULT_FILE))
        gpus = remote.read(posixpath.join(work, _GPUS)) or ''
    has_gpu = any(line.startswith('GPU') for line in gpus.splitlines())
    if text is None:
        return CheckResult(backend, False, f'{python}: {_explain(outcome)}.')
    return _judge(python, json.loads(text), device, has_gpu)


def _explain(outcome: Outcome) -> str:
    """Return why an interpreter left no result, from how it ended."""
    status = outcome.status
    if status is None:
        return 'it was killed before it could say anything: try again'
    if status in _STATUSES:
        return _STATUSES[status]
    number = status - 128 if status > 128 else -status
    for known, text in _SIGNALS.items():
        if number == known:
            return text
    if 'No module named' in outcome.log and ('numpy' in outcome.log or 'ase' in outcome.log):
        return f'it needs numpy and ase ({last_line(outcome.log)}): install them with its pip'
    if 'SyntaxError' in outcome.log:
        return 'it is too old: make a Code of Python 3.10 or newer'
    return f'it failed with exit status {status} ({last_line(outcome.log) or "it said nothing"}): is it a Python?'


def _judge(python: str, facts: dict[str, Any], device: str, has_gpu: bool) -> CheckResult:
    backend, versions = facts['backend'], facts.get('versions', {})
    if not facts['usable']:
        message = str(facts.get('message', 'no reason was given')).rstrip('.')
        missing = facts.get('label') == 'ERROR_BACKEND_MISSING'
        return CheckResult(backend, False, f'{python}: {message}.', missing=missing, facts=facts)
    names = ', '.join(f'{name} {version}' for name, version in versions.items())
    without_cuda = 'torch' in versions and facts.get('cuda') is None
    if without_cuda and device.startswith('cu'):
        return CheckResult(
            backend,
            False,
            f'{python}: torch {versions["torch"]} has no CUDA, though {device} was asked for: install it from an index '
            f'that has the build +{device}.',
            facts=facts,
        )
    warnings = [str(note).rstrip('.') + '.' for note in facts.get('notes', [])]
    if without_cuda and has_gpu:
        warnings.append(
            f'there is a GPU, but torch {versions["torch"]} has no CUDA and computes on the CPU: install the backend '
            'again with --device cu130, or which version of CUDA the driver supports.'
        )
    elif device.startswith('cu') and not facts.get('gpus'):
        warnings.append('torch has CUDA and sees no GPU there, perhaps on a login node: it was tried on the CPU.')
    if facts.get('evaluated'):
        done = f'{facts["frames"]} structures on {facts["device"]}, forces agree with differences of energies'
    else:
        done = 'it can be imported; its package has no model to try'
    return CheckResult(backend, True, f'{done} ({names}).', tuple(warnings), facts=facts)
