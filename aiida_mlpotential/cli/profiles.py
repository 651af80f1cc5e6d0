"""The demo's own directory: an AiiDA configuration with one profile, apart from that of the user.

Nothing of AiiDA is imported before its environment variable points here: ``import aiida`` alone writes into the
configuration directory of the user.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import click

PROFILE = 'demo'
#: The file that says that a directory is the demo's, and so may be removed by it.
MARKER = 'aiida-mlpotential-demo.json'

State = Literal['absent', 'foreign', 'unfinished', 'complete']


class DemoError(click.ClickException):
    """The demo cannot use its directory, with the remedy."""


def default_directory() -> Path:
    """Return where the demo lives unless told otherwise: below the data directory of the user (XDG)."""
    base = os.environ.get('XDG_DATA_HOME', '')
    # A relative path is invalid, and to be ignored, by the specification of XDG.
    root = Path(base) if base.startswith('/') else Path.home() / '.local' / 'share'
    return root / 'aiida-mlpotential' / 'demo'


class DemoDirectory:
    """A directory with an AiiDA configuration of its own.

    :raises DemoError: if AiiDA could not use such a path
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        if os.pathsep in str(self.path):
            raise DemoError(f'AiiDA cannot use {self.path}: its name must not contain {os.pathsep!r}; try --directory.')

    @property
    def configuration(self) -> Path:
        """Return the directory of AiiDA's configuration."""
        return self.path / '.aiida'

    def state(self) -> State:
        """Return what is there now."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return 'absent'
        try:
            complete = json.loads((self.path / MARKER).read_text())['complete']
        except (OSError, ValueError, KeyError, TypeError):
            return 'unfinished' if self._is_ours() else 'foreign'
        return 'complete' if complete is True else 'unfinished'

    def check(self, fresh: bool) -> None:
        """Raise a :class:`DemoError` if the directory cannot be used, or not be removed for a fresh one."""
        try:
            state = self.state()
        except OSError as exception:
            raise DemoError(f'{self.path} cannot be read ({exception.strerror}): choose another --directory.') from None
        if state == 'foreign':
            raise DemoError(
                f'{self.path} was not made by the demo, which neither uses nor removes it: choose another --directory.'
            )
        if fresh and self._daemon_runs():
            raise DemoError(
                'the daemon of the demo is running: stop it first with '
                f'`AIIDA_PATH={self.path} verdi -p {PROFILE} daemon stop`.'
            )
        if state == 'unfinished' and not fresh:
            raise DemoError(f'{self.path} was left half-made: run `aiida-mlpotential demo --fresh` to make it anew.')

    def _is_ours(self) -> bool:
        return (self.path / MARKER).is_file()

    def remove(self) -> None:
        """Remove the directory, if there is one and it is the demo's."""
        self.check(fresh=True)
        if self.path.exists():
            shutil.rmtree(self.path)

    def open(self) -> bool:
        """Load the profile, made now if there is none; return whether it was made.

        :raises DemoError: if the directory cannot be written, or what is in it cannot be used
        """
        self.check(fresh=False)
        made = self.state() == 'absent'
        try:
            if made:
                self._begin()
            self._activate()
            if made:
                self._make_profile()
            self._load_profile()
            if made:
                self._write_marker(complete=True)
        except Exception as exception:  # AiiDA, its storage and the file system raise types that have nothing in common
            fresh = 'make it anew with `aiida-mlpotential demo --fresh`, or ' if self._is_ours() else ''
            raise DemoError(
                f'{self.path} cannot be used ({type(exception).__name__}: {exception}): '
                f'{fresh}choose another --directory.'
            ) from exception
        return made

    def _begin(self) -> None:
        """Say whose directory this is before anything else is in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._write_marker(complete=False)

    def _write_marker(self, complete: bool) -> None:
        temporary = self.path / f'{MARKER}.new'
        temporary.write_text(json.dumps({'made by': 'aiida-mlpotential demo', 'complete': complete}))
        temporary.replace(self.path / MARKER)

    def _activate(self) -> None:
        """Point AiiDA to this directory, whether or not it is imported already."""
        # AiiDA warns when it makes this directory itself.
        self.configuration.mkdir(mode=0o700, exist_ok=True)
        os.environ['AIIDA_PATH'] = str(self.path)
        from aiida.manage.configuration import reset_config
        from aiida.manage.configuration.settings import AiiDAConfigDir

        AiiDAConfigDir.set(self.configuration)
        reset_config()  # type: ignore[no-untyped-call]

    def _make_profile(self) -> None:
        from aiida.brokers.broker import Broker
        from aiida.common.log import override_log_level
        from aiida.manage.configuration import create_profile, get_config
        from aiida.plugins import BrokerFactory

        config: Any = get_config(create=True)
        broker: type[Broker] = BrokerFactory('core.zeromq')
        with override_log_level():
            create_profile(
                config,
                name=PROFILE,
                email='demo@localhost',
                storage_backend='core.sqlite_dos',
                storage_config={'filepath': str(self.path / 'storage')},
                broker_backend='core.zeromq',
                broker_config=broker.get_default_config(),
            )
        config.set_option('runner.poll.interval', 1, scope=PROFILE)
        config.set_default_profile(PROFILE, overwrite=True)
        config.store()

    def _load_profile(self) -> None:
        from aiida.manage import get_manager

        manager = get_manager()
        manager.load_profile(PROFILE, allow_switch=True)
        manager.get_profile_storage()

    def _daemon_runs(self) -> bool:
        import psutil

        try:
            pid = int((self.configuration / 'daemon' / f'circus-{PROFILE}.pid').read_text())
        except (OSError, ValueError):
            return False
        return bool(psutil.pid_exists(pid))
