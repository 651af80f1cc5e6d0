"""Fixtures for all tests: AiiDA's own, where it is installed, and the shared reference data, where it is there."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest


def _use_private_configuration() -> None:
    """Keep AiiDA away from the home directory, where its import alone would make a configuration.

    A profile that the user names for tests lies in the user's configuration, which is left in place then.
    """
    if 'AIIDA_TEST_PROFILE' in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix='aiida-mlpotential-tests-'))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / '.aiida').mkdir(mode=0o700)
    os.environ['AIIDA_PATH'] = str(folder)


# The worker's tests must run where AiiDA is not installed, as on a compute node.
_HAS_AIIDA = importlib.util.find_spec('aiida') is not None
if _HAS_AIIDA:
    _use_private_configuration()
pytest_plugins = ['server_fixtures', 'aiida.tools.pytest_fixtures'] if _HAS_AIIDA else []

SHARED_DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Return the folder with published parameters and reference values, which lies beside some checkouts."""
    if not SHARED_DATA.is_dir():
        pytest.skip('the reference data (../shared/data) is not beside this checkout')
    return SHARED_DATA


@pytest.fixture
def localhost(aiida_computer_local):
    """Return this machine as an AiiDA computer without waiting times.

    Its commands run in a shell that reads no start-up files, of which some take long; examples have the default.
    """
    computer = aiida_computer_local(label='localhost')
    computer.configure(safe_interval=0, use_login_shell=False)
    computer.set_minimum_job_poll_interval(0)
    return computer


@pytest.fixture
def python_code(localhost):
    """Return the running Python as a code: the worker comes with each job."""
    from aiida import orm

    code = orm.InstalledCode(
        label='python',
        computer=localhost,
        filepath_executable=sys.executable,
        default_calc_job_plugin='mlpotential.single_point',
    )
    return code.store()


@pytest.fixture(scope='module')
def daemon_code(aiida_config, aiida_profile_factory, tmp_path_factory):
    """Return the running Python as a code in a profile with the ZeroMQ broker, whose daemon is running."""
    from aiida import orm
    from aiida.engine.daemon.client import get_daemon_client

    with aiida_profile_factory(
        aiida_config, storage_backend='core.sqlite_dos', broker_backend='core.zeromq'
    ) as profile:
        aiida_config.set_option('runner.poll.interval', 1, scope=profile.name)
        aiida_config.store()
        workdir = str(tmp_path_factory.mktemp('work'))
        computer = orm.Computer('localhost', 'localhost', '', 'core.local', 'core.direct', workdir).store()
        computer.configure(safe_interval=0)
        computer.set_minimum_job_poll_interval(0)
        computer.set_default_mpiprocs_per_machine(1)
        code = orm.InstalledCode(label='python', computer=computer, filepath_executable=sys.executable).store()
        client = get_daemon_client()
        client.start_daemon()
        try:
            yield code
        finally:
            client.stop_daemon(wait=True, timeout=60)


@pytest.fixture
def emt_model():
    """Return the EMT calculator as a stored model."""
    from aiida_mlpotential.data.model import ModelData

    return ModelData.from_ase_calculator(
        'ase.calculators.emt.EMT', elements=['Al', 'Cu', 'Ni', 'Pd', 'Ag', 'Pt', 'Au']
    ).get_or_store()


@pytest.fixture
def file_facts(monkeypatch):
    """Return a dictionary for what every backend says of a parameter file, by its name; of others it says nothing.

    An exception in place of facts is raised.
    """
    from aiida_mlpotential.data import model_info
    from aiida_mlpotential.worker.backends.base import FileFacts

    known = {}

    class Inspector:
        @staticmethod
        def inspect(path):
            facts = known.get(path.name, FileFacts())
            if isinstance(facts, Exception):
                raise facts
            return facts

    monkeypatch.setattr(model_info, 'get_backend', lambda name: Inspector)
    return known
