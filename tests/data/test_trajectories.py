"""Recorded steps as nodes: from the files of the worker, whatever somebody did to them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError
from ase.build import bulk, molecule

from aiida_mlpotential.data.trajectories import TrajectoryError, TrajectorySetData, read_folder, to_trajectory
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.trajectory import TrajectoryWriter

pytestmark = pytest.mark.usefixtures('aiida_profile')


@pytest.fixture
def frames():
    return Frames.from_ase([molecule('H2O'), bulk('Cu'), molecule('CH4')], ['water', 'copper', 'late'])


@pytest.fixture
def files(frames, tmp_path):
    """Return the contents of the files: three steps of water, two of copper, none of methane."""
    writer = TrajectoryWriter(tmp_path, 'f')
    for step in range(3):
        chosen = np.arange(2) if step < 2 else np.arange(1)
        now = frames.select(chosen)
        positions, cells = now.positions + 0.1 * step, now.cells * (1 + 0.01 * step)
        now = Frames(now.numbers, positions, now.offsets, cells, now.pbc)
        energies = -10.0 * (1 + chosen) - step
        writer.append(chosen, np.full(len(chosen), 5 * step), now, energies, 1.0 / (step + 1 + chosen))
    writer.close()
    return {path.name: path.read_bytes() for path in (tmp_path / 'trajectory').iterdir()}


def folder_of(files):
    folder = orm.FolderData()
    for name, content in files.items():
        folder.base.repository.put_object_from_filelike(io.BytesIO(content), f'trajectory/{name}')
    return folder.store()


def test_steps_of_each_structure(files, frames):
    node = TrajectorySetData.from_folder(folder_of(files), frames).store()
    node = orm.load_node(node.pk)
    assert isinstance(node, TrajectorySetData)
    assert (len(node), bool(node), node.recorded) == (3, True, (0, 1))
    assert node.base.attributes.all == {'n_frames': 3, 'n_recorded': 2, 'n_steps': 5}
    assert node.get_description() == '5 steps of 2 of 3 structures'
    steps = node.get_frame(0)
    assert steps.steps.tolist() == [0, 5, 10]
    assert steps.energies.tolist() == [-10.0, -11.0, -12.0]
    np.testing.assert_allclose(steps.positions[2], frames.positions[:3] + 0.2)


def test_a_trajectory_is_one_of_aiida(files, frames):
    node = TrajectorySetData.from_folder(folder_of(files), frames)
    copper = node.get_trajectory(1).store()
    assert copper.symbols == ['Cu']
    assert tuple(copper.pbc) == (True, True, True)
    assert copper.get_stepids().tolist() == [0, 5]
    np.testing.assert_allclose(copper.get_cells()[1], frames.cells[1] * 1.01)
    assert copper.get_array('energies').tolist() == [-20.0, -21.0]
    np.testing.assert_allclose(copper.get_array('max_forces'), [0.5, 1 / 3])
    water = node.get_trajectory(0).store()
    assert water.get_cells() is None
    assert tuple(water.pbc) == (False, False, False)
    assert water.get_step_structure(2).get_formula() == 'H2O'


def test_steps_as_atoms(files, frames):
    node = TrajectorySetData.from_folder(folder_of(files), frames)
    first, second = node.get_ase(-2)
    assert (first.info['step'], second.info['step']) == (0, 5)
    assert second.get_potential_energy() == -21.0
    np.testing.assert_allclose(second.cell.array, frames.cells[1] * 1.01)
    np.testing.assert_allclose(second.positions, frames.positions[3:4] + 0.1)
    assert second.pbc.all()


def test_structures_without_steps(files, frames):
    node = TrajectorySetData.from_folder(folder_of(files), frames)
    with pytest.raises(ValueError, match='nothing was recorded of structure 2'):
        node.get_trajectory(2)
    with pytest.raises(IndexError, match='there is no structure 3'):
        node.get_ase(3)


def test_bytes_are_shared_with_the_folder(files, frames):
    folder = folder_of(files)
    node = TrajectorySetData.from_folder(folder, frames).store()
    for name in files:
        key = node.base.repository.get_object(name).key
        assert key == folder.base.repository.get_object(f'trajectory/{name}').key


def test_a_torn_tail_is_no_error(files, frames):
    torn = {**files, 'records.bin': files['records.bin'][:-7], 'positions.bin': files['positions.bin'][:-5]}
    node = TrajectorySetData.from_folder(folder_of(torn), frames)
    assert node.get_frame(0).steps.tolist() == [0, 5]


def _with(files, **changes):
    from aiida_mlpotential.worker.trajectory import RECORD

    records = np.frombuffer(files['records.bin'], dtype=RECORD).copy()
    for name, value in changes.items():
        records[name][1] = value
    return {**files, 'records.bin': records.tobytes()}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda f: {k: v for k, v in f.items() if k != 'records.bin'}, 'incomplete'),
        (lambda f: {}, 'incomplete'),
        (lambda f: {**f, 'header.json': b'{'}, r'header\.json is not the header'),
        (lambda f: {**f, 'header.json': b'{"format_version": 99}'}, 'format 99, this version reads 1: update it'),
        (lambda f: _with(f, frame=7), 'those of other structures'),
        (lambda f: _with(f, frame=-1), 'those of other structures'),
        (lambda f: _with(f, atoms=2), 'those of other structures'),
        (lambda f: _with(f, atoms=-9), 'those of other structures'),
        (lambda f: _with(f, start=-3), 'those of other structures'),
    ],
)
def test_damaged_files(files, frames, change, message):
    folder = folder_of({'other': b'', **change(files)})
    with pytest.raises(TrajectoryError, match=message) as caught:
        TrajectorySetData.from_folder(folder, frames)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(TrajectoryError, match=message):
        read_folder(folder, frames)


def test_a_node_that_nobody_filled_is_not_stored():
    with pytest.raises(ValidationError, match=r'made with TrajectorySetData\.from_folder'):
        TrajectorySetData().store()


def test_a_folder_without_trajectories(frames):
    with pytest.raises(TrajectoryError, match='incomplete'):
        read_folder(orm.FolderData().store(), frames)


def test_one_structure(files, frames):
    steps = read_folder(folder_of(files), frames).frame(0)
    node = to_trajectory(steps, frames.to_ase(0))
    np.testing.assert_array_equal(node.get_positions(), steps.positions)
