"""Trajectories: what was written is there, after a kill and a restart, too."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ase.build import bulk, molecule

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.trajectory import (
    HEADER_FILE,
    POSITIONS_FILE,
    RECORDS_FILE,
    TRAJECTORY_DIRECTORY,
    TrajectoryError,
    TrajectoryWriter,
    read_directory,
    read_trajectories,
)

FRAMES = Frames.from_ase([molecule('H2O'), bulk('Cu', cubic=True)])


def record(writer, step, indices=(4, 2)):
    """Record a step of frames 4 (water) and 2 (copper), with numbers that follow from the step."""
    moved = Frames(FRAMES.numbers, FRAMES.positions + step, FRAMES.offsets, FRAMES.cells * (1 + step), FRAMES.pbc)
    places = [(4, 2).index(index) for index in indices]
    number = len(places)
    writer.append(
        np.array(indices), np.full(number, step), moved.select(places), np.full(number, -step), np.full(number, 0.5)
    )


@pytest.fixture
def writer(tmp_path):
    return TrajectoryWriter(tmp_path, 'job')


def test_what_was_written_is_read(writer, tmp_path):
    record(writer, 0)
    record(writer, 5)
    record(writer, 7, indices=(2,))
    writer.sync()
    writer.close()
    found = read_directory(tmp_path / TRAJECTORY_DIRECTORY)
    assert found.frames == (2, 4)
    copper = found.frame(2)
    assert copper.steps.tolist() == [0, 5, 7]
    assert copper.energies.tolist() == [0, -5, -7] and copper.max_forces.tolist() == [0.5] * 3
    for index, step in enumerate((0, 5, 7)):
        np.testing.assert_array_equal(copper.positions[index], FRAMES.positions[3:] + step)
        np.testing.assert_array_equal(copper.cells[index], FRAMES.cells[1] * (1 + step))
    assert found.frame(4).steps.tolist() == [0, 5]
    with pytest.raises(KeyError):
        found.frame(0)


def test_bytes_and_open_files_are_read_as_well(writer, tmp_path):
    record(writer, 0)
    writer.close()
    parts = [
        (tmp_path / TRAJECTORY_DIRECTORY / name).read_bytes() for name in (HEADER_FILE, RECORDS_FILE, POSITIONS_FILE)
    ]
    for sources in (parts, [io.BytesIO(part) for part in parts]):
        assert read_trajectories(*sources).frame(4).steps.tolist() == [0]


def test_nothing_was_recorded(writer, tmp_path):
    writer.close()
    assert read_directory(tmp_path / TRAJECTORY_DIRECTORY).frames == ()


@pytest.mark.parametrize('name', [RECORDS_FILE, POSITIONS_FILE])
def test_a_torn_tail_is_ignored_and_cut_off(writer, tmp_path, name):
    """A kill between two writes leaves a part of a record, or positions without their record."""
    record(writer, 0)
    record(writer, 1)
    writer.close()
    path = tmp_path / TRAJECTORY_DIRECTORY / name
    path.write_bytes(path.read_bytes()[:-10])
    assert read_directory(path.parent).frame(4).steps.tolist() == [0, 1]
    assert read_directory(path.parent).frame(2).steps.tolist() == [0]
    again = TrajectoryWriter(tmp_path, 'job')
    record(again, 1, indices=(2,))
    again.close()
    found = read_directory(path.parent).frame(2)
    assert found.steps.tolist() == [0, 1]
    np.testing.assert_array_equal(found.positions[1], FRAMES.positions[3:] + 1)


def test_positions_whose_record_is_missing_leave_no_gap(writer, tmp_path):
    record(writer, 0)
    writer.close()
    path = tmp_path / TRAJECTORY_DIRECTORY / POSITIONS_FILE
    path.write_bytes(path.read_bytes() + b'x' * 100)
    again = TrajectoryWriter(tmp_path, 'job')
    record(again, 1)
    again.close()
    np.testing.assert_array_equal(read_directory(path.parent).frame(4).positions[1], FRAMES.positions[:3] + 1)


def test_a_frame_that_goes_back_to_a_checkpoint_is_recorded_anew(writer, tmp_path):
    """What came after the checkpoint is superseded, for this frame and for no other."""
    for step in (0, 1, 2, 3):
        record(writer, step)
    writer.close()
    again = TrajectoryWriter(tmp_path, 'job')
    record(again, 2, indices=(2,))
    again.close()
    found = read_directory(tmp_path / TRAJECTORY_DIRECTORY)
    assert found.frame(2).steps.tolist() == [0, 1, 2]
    assert found.frame(4).steps.tolist() == [0, 1, 2, 3]


def test_that_of_the_parent_is_gone_on_with(writer, tmp_path):
    record(writer, 0)
    writer.close()
    child = tmp_path / 'child'
    (child / 'parent').mkdir(parents=True)
    (tmp_path / TRAJECTORY_DIRECTORY).rename(child / 'parent' / TRAJECTORY_DIRECTORY)
    again = TrajectoryWriter(child, 'job')
    record(again, 1)
    again.close()
    assert read_directory(child / TRAJECTORY_DIRECTORY).frame(4).steps.tolist() == [0, 1]


def test_that_of_another_job_is_replaced(writer, tmp_path):
    record(writer, 0)
    writer.close()
    TrajectoryWriter(tmp_path, 'another job').close()
    assert read_directory(tmp_path / TRAJECTORY_DIRECTORY).frames == ()


@pytest.mark.parametrize('header', [b'', b'{}', b'[]', b'\x80', b'{"format_version": 99}'])
def test_an_unknown_header_is_an_error(header):
    with pytest.raises(TrajectoryError):
        read_trajectories(header, b'', b'')
