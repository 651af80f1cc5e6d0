"""Sets of structures are read once for many jobs."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_mlpotential.data import recent
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.frames import Frames


@pytest.fixture
def read(monkeypatch):
    """Return a function that reads a set by its name, and the names of those that were truly read."""
    monkeypatch.setattr(recent, '_recent', type(recent._recent)())
    names = []

    def function(name):
        def make():
            names.append(name)
            return Frames.from_ase([Atoms('Cu')])

        return recent.read_once(name, make)

    function.names = names
    return function


def test_a_set_is_read_once(read) -> None:
    assert read('a') is read('a')
    assert read.names == ['a']


def test_only_the_last_ones_are_kept(read) -> None:
    for name in ('a', 'b', 'a', 'c', 'a', 'b'):
        read(name)
    assert read.names == ['a', 'b', 'c', 'b']


def test_a_file_that_cannot_be_read_is_not_remembered(read) -> None:
    def fail():
        raise OSError('gone')

    with pytest.raises(OSError, match='gone'):
        recent.read_once('a', fail)
    assert len(read('a')) == 1


def test_nobody_changes_what_others_read(read) -> None:
    with pytest.raises(ValueError, match='read-only'):
        read('a').positions[0] = 1.0


def test_two_nodes_of_one_file_share_it(aiida_profile) -> None:
    nodes = [StructureSetData.from_ase([Atoms('Cu3', positions=np.eye(3))]).store() for _ in range(2)]
    assert nodes[0].get_frames() is nodes[1].get_frames()
