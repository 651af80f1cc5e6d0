"""Jobs through a real daemon and its broker: what happens when nobody watches, and when somebody kills."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import psutil
import pytest
from aiida.engine import submit
from ase.build import bulk
from waiting import wait_for

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.schema import FINGERPRINT_FILE, STATUS_FILE

pytestmark = [pytest.mark.daemon, pytest.mark.slow]


def _structures(number):
    random = np.random.default_rng(9)
    cells = []
    for _ in range(number):
        atoms = bulk('Cu') * (2, 2, 1)
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        cells.append(atoms)
    return StructureSetData.from_ase(cells).store()


def _submit(code, structures, **inputs):
    model = ModelData.from_ase_calculator('ase.calculators.emt.EMT', elements=['Cu']).get_or_store()
    parameters = {'properties': ['energy', 'forces'], 'batch_atoms': 40}
    return submit(
        SinglePointCalculation, code=code, model=model, structures=structures, parameters=parameters, **inputs
    )


def test_a_submitted_job_ends_by_itself(daemon_code):
    node = _submit(daemon_code, _structures(20))
    wait_for(lambda: node.is_terminated)
    assert node.is_finished_ok, node.exit_message
    assert np.isfinite(node.outputs.results.energies).all()


def _kill_half_way(node):
    """Kill the worker of a job once it has done some structures."""

    def status():
        arrays = Path(node.get_remote_workdir() or '/nowhere') / 'arrays'
        # This one is made last: until then the others may be half made.
        return np.load(arrays / STATUS_FILE) if (arrays / FINGERPRINT_FILE).exists() else np.ones(1)

    wait_for(lambda: (status() == FrameStatus.OK).sum() > 50)
    work = node.get_remote_workdir()
    found = []
    for process in psutil.process_iter(['name', 'cmdline']):
        try:
            if 'worker.pyz' in (process.info['cmdline'] or []) and process.cwd() == os.path.realpath(work):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended meanwhile, or is somebody else's
    assert len(found) == 1
    found[0].kill()


def test_a_killed_worker_loses_its_last_batch_only(daemon_code):
    structures = _structures(3000)
    node = _submit(daemon_code, structures)
    _kill_half_way(node)
    wait_for(lambda: node.is_terminated)
    assert node.exit_status == SinglePointCalculation.exit_codes.ERROR_INCOMPLETE.status
    partial = node.outputs.results
    done = partial.status == FrameStatus.OK
    assert 50 < done.sum() < 3000
    assert node.outputs.output_parameters['n_pending'] == (~done).sum()

    again = _submit(daemon_code, structures, parent_folder=node.outputs.remote_folder)
    wait_for(lambda: again.is_terminated)
    assert again.is_finished_ok, again.exit_message
    assert f'went on with the results of {done.sum()} structures' in again.outputs.output_parameters['notes'][0]
    np.testing.assert_array_equal(again.outputs.results.energies[done], partial.energies[done])
    assert np.isfinite(again.outputs.results.energies).all()
