"""Disks that are full: in the work directory on the computer, and where AiiDA keeps its files."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

import pytest
from aiida import orm
from aiida.manage import get_manager
from waiting import wait_for

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.parsers.single_point import SinglePointParser

pytestmark = [pytest.mark.daemon, pytest.mark.slow, pytest.mark.timeout(600)]

_CODES = SinglePointCalculation.exit_codes


@contextlib.contextmanager
def _filled(disk):
    """Fill a disk with something else."""
    ballast = disk / 'ballast'
    with ballast.open('wb') as handle:
        handle.write(bytes(shutil.disk_usage(disk).free))
    try:
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _fill(disk, leave):
    """Return a line of the job script that fills a disk, but for some bytes."""
    return f'head -c $(($(df --output=avail -B1 {disk} | tail -n 1) - {leave})) /dev/zero > {disk}/ballast || true'


@pytest.fixture
def small_repository(site, small_mount, tmp_path):
    """Put the repository of the profile on a small disk, for the time of a test; return where it is."""
    container = Path(get_manager().get_profile().storage_config['filepath']) / 'container'
    kept = shutil.copytree(container, tmp_path / 'container')
    with small_mount(container, '16m'):
        shutil.copytree(kept, container, dirs_exist_ok=True)
        yield container
        shutil.rmtree(kept)
        shutil.copytree(container, kept)
    shutil.copytree(kept, container, dirs_exist_ok=True)


@pytest.fixture
def small_code(site, small_disk):
    """Return a code on a computer whose work directory is on a small disk."""
    label = f'small-disk-{small_disk.parent.name}'
    return site.make_code(small_disk, label)


@pytest.mark.fault(
    what='The disk of the work directory is full when a job is sent',
    injected='A file system without any room',
    then='AiiDA pauses the process after some attempts; with room on the disk, `verdi process play` lets it go on',
)
def test_no_room_for_the_inputs(site, small_code, small_disk, nothing_lost):
    with _filled(small_disk):
        node = site.submit(code=small_code)
        wait_for(lambda: node.paused, what='the process pauses')
    site.play(node)
    site.finish(node)
    assert node.is_finished_ok, node.exit_message
    nothing_lost(node.outputs.results)


@pytest.mark.fault(
    what='The disk of the work directory is full when the worker starts',
    injected='A file system with room for the inputs and not for the results',
    then='The exit code is `ERROR_DISK_FULL`, or `ERROR_RESULTS_MISSING` if not even that can be written; with room on '
    'the disk the same job is done',
)
def test_no_room_for_the_results(site, small_code, small_disk, nothing_lost):
    silent = site.finish(site.submit(code=small_code, metadata={'options': {'prepend_text': _fill(small_disk, 0)}}))
    assert silent.exit_status == _CODES.ERROR_RESULTS_MISSING.status
    assert 'the disk of the work directory has no room at all' in silent.exit_message
    (small_disk / 'ballast').unlink()

    fill = _fill(small_disk, leave=150_000)
    node = site.finish(site.submit(code=small_code, metadata={'options': {'prepend_text': fill}}))
    assert node.exit_status == _CODES.ERROR_DISK_FULL.status
    assert 'No space left on device' in node.exit_message
    (small_disk / 'ballast').unlink()

    again = site.finish(site.submit(code=small_code, parent_folder=node.outputs.remote_folder))
    assert again.is_finished_ok, again.exit_message
    nothing_lost(again.outputs.results)


@pytest.mark.fault(
    what='The disk of the work directory fills up while the job runs',
    injected='Something else takes all room that is left half way through the job',
    then='The job ends as it should: room for all results is taken at its start',
)
def test_the_disk_fills_up_half_way(site, small_code, small_disk, nothing_lost):
    node = site.submit_half(code=small_code)
    with _filled(small_disk):
        site.gate.open()
        site.finish(node)
    assert node.is_finished_ok, node.exit_message
    nothing_lost(node.outputs.results)


@pytest.mark.fault(
    what='The disk with the repository of AiiDA is full when results are retrieved',
    injected='A file system of its own under the repository, which fills up while the job runs',
    then='AiiDA pauses the process after some attempts; with room on the disk, `verdi process play` lets it go on',
)
def test_no_room_in_the_repository(site, small_repository, nothing_lost):
    node = site.submit_half()
    with _filled(small_repository):
        site.gate.open()
        wait_for(lambda: node.paused, what='the process pauses')
    site.play(node)
    site.finish(node)
    assert node.is_finished_ok, node.exit_message
    nothing_lost(node.outputs.results)


@pytest.mark.fault(
    what='The disk with the repository of AiiDA is full when results are stored',
    injected='It fills up between the retrieval and the parsing of the files',
    then='The process ends with an exception; the files are parsed again with `SinglePointParser.parse_from_node`, or '
    'a job with `parent_folder` fetches them and computes nothing',
)
def test_no_room_for_the_nodes(site, faulty_code, small_repository, nothing_lost):
    site.arm('fill', str(small_repository / 'ballast'))
    node = site.finish(site.submit(code=faulty_code))
    (small_repository / 'ballast').unlink()
    assert node.is_excepted
    outputs, parsed = SinglePointParser.parse_from_node(orm.load_node(node.pk))
    assert parsed.is_finished_ok, parsed.exit_message
    nothing_lost(outputs['results'])

    again = site.finish(site.submit(code=faulty_code, parent_folder=node.outputs.remote_folder))
    nothing_lost(again.outputs.results)


@pytest.mark.fault(
    what='The disk with database and repository of AiiDA is full',
    injected='A file system of its own under both, which fills up while the job runs, for 5 seconds',
    then='AiiDA cannot even note what happened and drops the process; with room on the disk: `verdi daemon stop`, '
    '`verdi process repair`, `verdi daemon start`',
)
def test_no_room_for_anything(small_site, nothing_lost):
    site, disk = small_site
    node = site.submit_half()
    with _filled(disk):
        site.gate.open()
        time.sleep(5)
    assert not node.is_terminated
    site.repair()
    site.finish(node)
    assert node.is_finished_ok, node.exit_message
    nothing_lost(node.outputs.results)
