"""What all tests of faults share: a profile with a daemon, jobs that stop where a test wants, and the fault table.

A test of a fault bears ``@pytest.mark.fault(...)``, which says what breaks and what follows, and hands the results that
are there in the end to the fixture ``nothing_lost``, which compares them bit by bit with those of an undisturbed run.
Both together are its row of the table in the documentation, which ``test_table.py`` writes.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.common.exceptions import NotExistent
from fault_harness import TABLE, Outcome, Site, install_faults, mount_tmpfs, row_of, running_site


@pytest.fixture(scope='module')
def faults_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder from which processes that are started import what fails on purpose."""
    folder = tmp_path_factory.mktemp('faults')
    folder.chmod(0o755)
    install_faults(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('AIIDA_FAULTS', str(folder / 'armed'))
        patch.setenv('PYTHONPATH', str(folder / 'plugins'), prepend=os.pathsep)
        patch.setenv('OMP_NUM_THREADS', '1')
        patch.syspath_prepend(str(folder / 'plugins'))
        yield folder


@pytest.fixture(scope='module')
def site(aiida_config: Any, aiida_profile_factory: Any, faults_folder: Path) -> Iterator[Site]:
    """Return a profile with a daemon of two workers and the ZeroMQ broker, and this machine as its computer."""
    context = aiida_profile_factory(aiida_config, storage_backend='core.sqlite_dos', broker_backend='core.zeromq')
    with running_site(aiida_config, context, faults_folder) as running:
        yield running


@pytest.fixture(scope='module')
def cluster_site(
    site: Site,
    undisturbed: Any,
    cluster: Any,
    aiida_config: Any,
    aiida_profile_factory: Any,
    faults_folder: Path,
) -> Iterator[Site]:
    """Return a profile with a daemon of two workers, whose computer is SLURM behind SSH."""
    from server_fixtures import cluster_computer

    context = aiida_profile_factory(aiida_config, storage_backend='core.sqlite_dos', broker_backend='core.zeromq')
    prepend = f'export PYTHONPATH={faults_folder / "plugins"} OMP_NUM_THREADS=1'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('HOME', str(cluster.home))
        computer = functools.partial(cluster_computer, cluster)
        with running_site(aiida_config, context, faults_folder, computer, prepend) as running:
            yield running


@pytest.fixture(scope='module')
def rabbitmq_site(
    site: Site, undisturbed: Any, rabbitmq_context: Any, aiida_config: Any, faults_folder: Path
) -> Iterator[Site]:
    """Return a profile with a daemon of two workers, RabbitMQ and PostgreSQL, and this machine as its computer."""
    with running_site(aiida_config, rabbitmq_context, faults_folder) as running:
        yield running


@pytest.fixture
def small_site(
    undisturbed: Any, aiida_config: Any, aiida_profile_factory: Any, faults_folder: Path, tmp_path: Path
) -> Iterator[tuple[Site, Path]]:
    """Return a profile whose database and repository are on a small file system of their own, and where that is."""
    with mount_tmpfs(tmp_path / 'aiida', '16m') as disk:
        context = aiida_profile_factory(
            aiida_config,
            storage_backend='core.sqlite_dos',
            storage_config={'filepath': str(disk / 'storage')},
            broker_backend='core.zeromq',
        )
        with running_site(aiida_config, context, faults_folder) as running:
            yield running, disk


@pytest.fixture(scope='module')
def undisturbed(site: Site) -> dict[str, Any]:
    """Return the arrays of the job with nothing broken."""
    site.gate.open()
    node = site.finish(site.submit())
    assert node.is_finished_ok, node.exit_message
    return dict(node.outputs.results.get_iterarrays())


@pytest.fixture
def nothing_lost(undisturbed: dict[str, Any], site: Site, request: pytest.FixtureRequest) -> Iterator[Outcome]:
    """Return what compares results with the undisturbed ones; afterwards the row of the table must be true."""
    mark = request.node.get_closest_marker('fault')
    site.gate.open()
    site.gate.forget()
    outcome = Outcome(undisturbed, site.gate)
    yield outcome
    site.gate.open()
    site.reconnect()
    if mark is None or getattr(request.node, 'failed', False):
        return
    assert outcome.checked, 'the test compared nothing'
    row = row_of(mark.kwargs, outcome)
    request.node.user_properties.append(('fault_table_row', row))
    if not os.environ.get('AIIDA_MLPOTENTIAL_WRITE_FAULT_TABLE'):
        assert row in TABLE.read_text().splitlines(), 'the table is out of date: run python tests/faults/test_table.py'


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Note on a test that it failed, for ``nothing_lost``."""
    report = yield
    if report.when == 'call' and not report.passed:
        item.failed = True
    return report


@pytest.fixture
def faulty_code(site: Site, entry_points: Any) -> Any:
    """Return a code on a computer whose transport and scheduler fail when a test has armed them."""
    entry_points.add('aiida_faults:FaultyTransport', 'aiida.transports:faults.local')
    entry_points.add('aiida_faults:FaultyScheduler', 'aiida.schedulers:faults.direct')
    label, kinds = 'faulty', {'transport': 'faults.local', 'scheduler': 'faults.direct'}
    try:
        return orm.load_code(f'python@{label}')
    except NotExistent:
        return site.make_code(site.folder / 'work', label, **kinds)


@pytest.fixture
def small_mount() -> Callable[[Path, str], contextlib.AbstractContextManager[Path]]:
    """Return a context manager that mounts a file system in memory: ``small_mount(folder, '4m')``."""
    return mount_tmpfs


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory on a file system of its own with room for 4 MB."""
    with mount_tmpfs(tmp_path / 'small', '4m') as folder:
        yield folder
