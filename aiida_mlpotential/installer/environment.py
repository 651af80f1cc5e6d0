"""A virtual environment on a computer: made step by step, complete or not there at all, and removed when it is ours."""

from __future__ import annotations

import dataclasses
import json
import posixpath
import shlex
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .pip import Sources, pip_command, read_failure
from .recipes import Python, Recipe, Step
from .remote import MARK, InstallerError, Outcome, Remote, Report, undisturbed

#: In each environment that was made here, and in none that was not: only with it a directory is ever removed.
MANIFEST = 'aiida-mlpotential.json'
MADE_BY = 'aiida-mlpotential backends install'
#: Where environments are made, unless told otherwise, below the home directory.
DIRECTORY = '.aiida-mlpotential/environments'
#: In an environment until it is complete: what pip unpacks, so that it need not fit into /tmp, and what was sent.
_UNPACKED, _FILES = 'unpacked', 'files'

#: Interpreters to look for, the preferred one first.
_PYTHONS = ('python3.12', 'python3.11', 'python3.13', 'python3.10', 'python3', 'python')

_PROBE = (
    'import importlib.util as u, json, sys; '
    f'print("{MARK}" + json.dumps([sys.argv[1], list(sys.version_info[:2]), sys.platform, '
    '[n for n in ("venv", "ensurepip") if u.find_spec(n) is None]]))'
)


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """A Python on the computer."""

    path: str
    version: Python
    platform: str
    missing: tuple[str, ...] = ()

    @property
    def remedy(self) -> str:
        """Return what to do about what is missing."""
        return (
            f'{self.path} has no {" and no ".join(self.missing)}: install its package '
            f'(Debian, Ubuntu: `apt install python{self.version}-venv`), or name another one with --python'
        )


def find_python(remote: Remote, recipe: Recipe, python: str | None = None) -> Interpreter:
    """Return the first interpreter on the computer that can make the environment of a recipe.

    :param python: the one to take; by default those are tried that are found by their usual names
    :raises InstallerError: that says what was found, and what would do
    """
    candidates = ' '.join(shlex.quote(name) for name in ([python] if python else _PYTHONS))
    script = (
        f'for name in {candidates}; do path=$(command -v "$name") && '
        f'"$path" -c {shlex.quote(_PROBE)} "$path" 2>/dev/null < /dev/null; done; true'
    )
    _, output, _ = remote.run('\n'.join(line for line in (remote.computer.get_prepend_text(), script) if line))
    found = []
    for line in output.splitlines():
        if line.startswith(MARK):
            path, version, platform, missing = json.loads(line[len(MARK) :])
            found.append(Interpreter(path, Python(*version), platform, tuple(missing)))
    fitting = [item for item in found if recipe.fits(item.version)]
    for item in fitting:
        if not item.missing:
            return item
    where = f'on {remote.computer.label}'
    wanted = f'{recipe.backend} needs Python {recipe.oldest} to {recipe.newest}'
    if fitting:
        raise InstallerError(f'{fitting[0].remedy}.')
    if python:
        if not found:
            raise InstallerError(f'{python} {where} is no Python that runs: {wanted}.')
        raise InstallerError(f'{wanted}; {python} {where} is {found[0].version}.')
    there = ', '.join(dict.fromkeys(f'{item.path} ({item.version})' for item in found)) or 'none'
    raise InstallerError(f'{wanted}, found {where}: {there}. Name another one with --python.')


@dataclasses.dataclass
class Environment:
    """A virtual environment on a computer, as its manifest describes it."""

    remote: Remote
    path: str
    manifest: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def python(self) -> str:
        """Return its interpreter."""
        return posixpath.join(self.path, 'bin', 'python')

    @property
    def complete(self) -> bool:
        """Return whether it was made to the end."""
        return self.manifest.get('state') == 'complete'

    @classmethod
    def plan(cls, remote: Remote, name: str, directory: str | None = None) -> Environment:
        """Return an environment that is not there yet, by default below the home directory of the user.

        :raises InstallerError: if something lies there already
        """
        if directory is not None and not posixpath.isabs(directory):
            raise InstallerError(f'{directory!r} is not absolute: write the whole path, as it is on the computer.')
        parent = posixpath.normpath(directory) if directory else posixpath.join(remote.home(), DIRECTORY)
        path = posixpath.join(parent, name)
        found = cls.find(remote, path)
        label = remote.computer.label
        if found is None and remote.exists(path):
            raise InstallerError(f'{path} on {label} was not made here, and is left alone: choose another --directory.')
        if found is not None:
            state = (
                'is there already' if found.complete else f'was begun at {found.manifest.get("begun")} and not ended'
            )
            raise InstallerError(
                f'{path} {state} on {label}: remove it with '
                f'`aiida-mlpotential backends uninstall {found.manifest.get("backend")} -Y {label}`.'
            )
        return cls(remote, path)

    @classmethod
    def find(cls, remote: Remote, path: str) -> Environment | None:
        """Return the environment at a path, or ``None`` if there is none that was made here.

        A copy that somebody made of one is none: its manifest is that of another place.
        """
        text = remote.read(posixpath.join(path, MANIFEST))
        try:
            manifest = json.loads(text) if text else None
        except ValueError:
            return None
        if not isinstance(manifest, dict) or manifest.get('made by') != MADE_BY:
            return None
        place = str(manifest.get('path', path))
        if posixpath.normpath(path) != place and not remote.same(path, place):
            return None
        return cls(remote, path, manifest)

    def create(self, interpreter: Interpreter, facts: dict[str, Any], report: Report | None = None) -> None:
        """Make the directory, with its manifest before anything else, and a virtual environment in it."""
        self._make_directory(facts)
        outcome = self.remote.run_step(
            self.path, [f'{shlex.quote(interpreter.path)} -m venv {shlex.quote(self.path)}'], report
        )
        self._expect(outcome, 'the virtual environment cannot be made')

    def _make_directory(self, facts: dict[str, Any]) -> None:
        quoted = shlex.quote(self.path)
        parents = []
        parent = posixpath.dirname(self.path)
        while not self.remote.exists(parent):
            parents.append(parent)
            parent = posixpath.dirname(parent)
        own = {'made by': MADE_BY, 'state': 'unfinished', 'id': uuid.uuid4().hex}
        self.manifest = {**own, **facts, 'path': self.path, 'parents': parents}
        text = shlex.quote(json.dumps(self.manifest, indent=1))
        # Nobody else's directory is taken: mkdir fails where there is one.
        lines = self.remote.ask(
            f'umask 022; mkdir -p -- "$(dirname -- {quoted})" && mkdir -- {quoted} && '
            f'printf %s {text} > {quoted}/{MANIFEST} && mkdir -- {quoted}/{_UNPACKED} && echo {MARK}made || '
            f'{{ [ "$(cat {quoted}/{MANIFEST} 2>/dev/null)" = {text} ] && echo {MARK}made; }} || echo {MARK}failed'
        )
        if lines != ['made']:
            raise InstallerError(
                f'{self.path} cannot be made on {self.remote.computer.label}: choose another --directory.'
            )

    def install(self, step: Step, sources: Sources, report: Report | None = None) -> None:
        """Run one call of pip; whatever is wrong is one sentence, with the end of its log."""
        commands = [f'export TMPDIR={shlex.quote(self.path)}/{_UNPACKED}', *pip_command(self.python, step, sources)]
        outcome = self.remote.run_step(self.path, commands, report)
        self._expect(outcome, f'{step.title} cannot be installed')

    def _expect(self, outcome: Outcome, what: str) -> None:
        if outcome.status == 0:
            return
        cause = read_failure(outcome, self.free_space())
        raise InstallerError(f'{what} on {self.remote.computer.label}: {cause}', outcome.log)

    def free_space(self) -> int | None:
        """Return the free megabytes where it lies, or ``None`` if nobody can tell."""
        status, output, _ = self.remote.run(f'df -Pk {shlex.quote(self.path)}')
        fields = output.strip().splitlines()[-1].split() if status == 0 and output.strip() else []
        return int(fields[3]) // 1024 if len(fields) > 3 and fields[3].isdigit() else None

    def freeze(self) -> list[str]:
        """Return what is installed, as pip writes it."""
        command = f'{shlex.quote(self.python)} -m pip --disable-pip-version-check freeze --all'
        lines = (self.remote.computer.get_prepend_text(), f'{command} | sed "s/^/{MARK}/"')
        return self.remote.ask('\n'.join(line for line in lines if line))

    def size(self) -> int:
        """Return its size in megabytes."""
        return int(self.remote.ask(f'printf "{MARK}%s\\n" "$(du -sk {shlex.quote(self.path)} | cut -f1)"')[0]) // 1024

    def finish(self, **facts: Any) -> None:
        """Remove what was needed to make it, and write the complete manifest."""
        quoted = shlex.quote(self.path)
        self.remote.run(f'rm -rf -- {quoted}/{_UNPACKED} {quoted}/step {quoted}/{_FILES}')
        self.manifest = {**self.manifest, **facts, 'state': 'complete'}
        self.remote.write(posixpath.join(self.path, MANIFEST), json.dumps(self.manifest, indent=1))

    def upload(self, source: Path) -> str:
        """Send a file or directory into the environment, until it is finished; return its path there."""
        folder = posixpath.join(self.path, _FILES)
        self.remote.run(f'mkdir -p -- {shlex.quote(folder)}')
        target = posixpath.join(folder, source.name)
        self.remote.upload(source, target)
        return target

    def remove(self) -> None:
        """Remove the directory, whatever state it is in, with the parents that were made for it and are empty now.

        :raises InstallerError: if it was not made here, or something of it stays
        """
        with undisturbed():
            found = self.find(self.remote, self.path)
            if found is None:
                if self.remote.exists(self.path):
                    raise InstallerError(f'{self.path} was not made here, and is left alone.')
                return
            if found.manifest.get('id') != self.manifest.get('id'):
                raise InstallerError(f'{self.path} was made by another installation, and is left alone.')
            self.remote.stop_step(self.path)
            quoted = shlex.quote(self.path)
            # The manifest goes last: what a first attempt leaves can still be recognised. A second one is for files
            # that somebody was still writing.
            attempt = (
                f'test ! -L {quoted} && find {quoted} -mindepth 1 -maxdepth 1 ! -name {MANIFEST} '
                f'-exec rm -rf -- {{}} + && rm -rf -- {quoted}'
            )
            _, _, errors = self.remote.run(f'{{ {attempt}; }} || {{ sleep 1; {attempt}; }}')
            if self.remote.exists(self.path):
                cause = (errors.strip().splitlines() or ['unknown cause'])[-1]
                raise InstallerError(f'{self.path} on {self.remote.computer.label} cannot be removed: {cause}.')
            for parent in found.manifest.get('parents', []):
                self.remote.run(f'rmdir -- {shlex.quote(str(parent))} 2>/dev/null')


def find_environments(remote: Remote, backend: str, directory: str | None = None) -> list[Environment]:
    """Return the environments of a backend below a directory, complete or not, of whichever version."""
    parent = directory or posixpath.join(remote.home(), DIRECTORY)
    quoted = shlex.quote(parent)
    _, output, _ = remote.run(
        f'for file in {quoted}/*/{MANIFEST}; do test -f "$file" && printf "{MARK}%s\\n" "$file"; done; true'
    )
    paths = [posixpath.dirname(line[len(MARK) :]) for line in output.splitlines() if line.startswith(MARK)]
    found = [Environment.find(remote, path) for path in paths]
    return [item for item in found if item is not None and item.manifest.get('backend') == backend]


def size_text(megabytes: int) -> str:
    """Return a size for a human being."""
    return f'{megabytes / 1024:.1f} GB' if megabytes >= 1024 else f'{megabytes} MB'


def with_uploads(environment: Environment, steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return steps whose requirements that are paths of this machine were sent to the computer."""
    if environment.remote.is_local:
        return tuple(steps)

    def send(requirement: str) -> str:
        path = Path(requirement).expanduser()
        return environment.upload(path.resolve()) if '/' in requirement and path.exists() else requirement

    return tuple(dataclasses.replace(step, requirements=tuple(map(send, step.requirements))) for step in steps)
