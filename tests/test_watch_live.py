"""Progress of a screening that a daemon works on, seen from another process, until it ends or is killed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from aiida import orm
from aiida.engine import submit
from aiida.engine.processes import control
from aiida.manage import get_manager
from aiida.plugins import WorkflowFactory
from ase.build import bulk
from click.testing import CliRunner

from aiida_mlpotential.cli import main
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.queries import Origin, Phase, find_slices, progress_of

pytestmark = [pytest.mark.daemon, pytest.mark.slow]


def _screening(code, number, n_slices, seed):
    """Submit a screening; return its node and what its slices are made of."""
    random = np.random.default_rng(seed)
    cells = []
    for _ in range(number):
        atoms = bulk('Cu') * (3, 2, 2)
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        cells.append(atoms)
    structures = StructureSetData.from_ase(cells).store()
    model = ModelData.from_ase_calculator('ase.calculators.emt.EMT', elements=['Cu']).get_or_store()
    node = submit(
        WorkflowFactory('mlpotential.screening'),
        structures=structures,
        models={'emt': model},
        code=code,
        slice_size=orm.Int(number // n_slices),
        max_concurrent=orm.Int(2),
    )
    return node, Origin(structures, model)


def _follow(node, until, seconds=240.0):
    """Return what was seen until a condition was met."""
    seen, deadline = [progress_of(node.pk)], time.monotonic() + seconds
    while not until(seen[-1]):
        assert time.monotonic() < deadline, seen[-1]
        time.sleep(0.2)
        seen.append(progress_of(node.pk))
    return seen


def _is_busy(progress):
    return any(progress.count(phase) for phase in (Phase.RUNNING, Phase.QUEUED, Phase.PAUSED))


def test_screening_from_its_first_slice_to_the_last(daemon_code):
    """Never more slices at once than may run, never fewer done than before, and in the end all."""
    node, origin = _screening(daemon_code, 400, 4, seed=1)
    seen = _follow(node, lambda progress: progress.is_terminated)
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert 0 < max(progress.count(Phase.RUNNING) for progress in seen) <= 2
    planned = [progress for progress in seen if progress.plan]
    assert {(progress.total, progress.n_slices) for progress in planned} == {(400, 4)}
    assert any(progress.seconds_left for progress in planned)
    assert seen[-1].is_successful
    assert (seen[-1].done, seen[-1].failed, seen[-1].count(Phase.DONE)) == (400, 0, 4)
    assert all(slice_.is_finished for slice_ in find_slices(origin).values())
    assert len(find_slices(origin)) == 4


def test_killed_screening_keeps_what_it_has(daemon_code):
    """It has ended, with the slices that were done; nothing is queued any more; the command says so."""
    node, origin = _screening(daemon_code, 2000, 10, seed=2)
    _follow(node, lambda progress: progress.count(Phase.DONE) > 0)
    control.kill_processes([node], timeout=60)
    # The processes that it called end on their own after it, where the daemon is busy.
    before = _follow(node, lambda progress: progress.is_terminated and not _is_busy(progress))[-1]
    assert before.state == 'killed'
    assert 200 <= before.done < 2000
    profile = get_manager().get_profile().name
    result = CliRunner().invoke(main, ['watch', '--profile', profile, '--once', str(node.pk)])
    assert result.exit_code == 1
    assert f'<{node.pk}> killed' in result.output
    finished = [slice_ for slice_ in find_slices(origin).values() if slice_.is_finished]
    assert sum(len(slice_.selection) for slice_ in finished) == before.done
