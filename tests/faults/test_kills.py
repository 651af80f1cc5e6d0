"""kill -9 of whatever takes part in a job, while it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aiida_mlpotential.calculations.single_point import SinglePointCalculation

pytestmark = [pytest.mark.daemon, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.fault(
    what='The worker of a job is killed (kill -9, out-of-memory killer)',
    injected='SIGKILL to the worker half way through the job',
    then='The exit code is `ERROR_INCOMPLETE`, what was done is stored; a job with `parent_folder` computes the rest',
)
def test_kill_of_the_worker(site, nothing_lost):
    node = site.submit_half()
    (worker,) = site.workers_of(node)
    worker.kill()
    site.finish(node)
    assert node.exit_status == SinglePointCalculation.exit_codes.ERROR_INCOMPLETE.status
    assert node.outputs.results.n_ok == 20
    assert node.outputs.results.n_pending == 40

    site.gate.open()
    again = site.finish(site.submit(parent_folder=node.outputs.remote_folder))
    assert again.is_finished_ok, again.exit_message
    nothing_lost(again.outputs.results, computed_again=4)


@pytest.mark.fault(
    what='All workers of the daemon are killed',
    injected='SIGKILL to both while the job runs',
    then='The daemon starts others, which take the job up again',
)
def test_kill_of_the_daemon_workers(site, nothing_lost):
    node = site.submit_half()
    killed = site.daemon_workers()
    assert len(killed) == 2
    for process in killed:
        process.kill()
    site.gate.open()
    site.finish(node)
    assert node.is_finished_ok, node.exit_message
    assert not {process.pid for process in killed} & {process.pid for process in site.daemon_workers()}
    nothing_lost(node.outputs.results)


@pytest.mark.fault(
    what='The broker is killed',
    injected='SIGKILL to the ZeroMQ broker while one job runs, and another is submitted afterwards',
    then='The daemon starts another broker and the job ends by itself; nothing new begins, as workers of AiiDA keep '
    'to the broker that they know, until `verdi daemon stop`, `verdi process repair`, `verdi daemon start`',
)
def test_kill_of_the_broker(site, nothing_lost):
    node = site.submit_half()
    site.kill_broker()
    site.gate.open()
    site.finish(node)
    assert node.is_finished_ok, node.exit_message
    nothing_lost(node.outputs.results)

    site.reconnect()
    site.gate.forget()
    waiting = site.submit()
    site.repair()
    site.finish(waiting)
    nothing_lost(waiting.outputs.results)


@pytest.mark.fault(
    what='A node loses power, and of what was written a part never reached its disk',
    injected='SIGKILL to the worker half way through the job, and values of three structures put back to what is on '
    'disk before anything is computed',
    then='The exit code is `ERROR_RESULTS_INVALID` or that of the scheduler; a job with `parent_folder` finds the '
    'structures whose status is there without their values, and computes them and the rest',
)
def test_values_that_never_reached_the_disk(site, nothing_lost):
    node = site.submit_half()
    arrays = Path(node.get_remote_workdir()) / 'arrays'
    for name, index in (('energies', 3), ('forces', 4 * 7 + 2), ('stress', 12)):
        values = np.load(arrays / f'{name}.npy', mmap_mode='r+')
        assert np.isfinite(values[index]).all()
        values[index] = np.nan
        values.flush()
    (worker,) = site.workers_of(node)
    worker.kill()
    site.finish(node)
    assert node.exit_status == SinglePointCalculation.exit_codes.ERROR_RESULTS_INVALID.status

    site.gate.open()
    again = site.finish(site.submit(parent_folder=node.outputs.remote_folder))
    assert again.is_finished_ok, again.exit_message
    nothing_lost(again.outputs.results, computed_again=4 + 3)
