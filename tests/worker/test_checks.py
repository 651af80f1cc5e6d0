"""Checks of frames: one bad frame gets its status and a message, the others are untouched."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from aiida_mlpotential.worker.checks import Rules, check_frames, close_pairs, explain
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.parameters import with_defaults

ORGANIC = ('H', 'C', 'N', 'O')


def _nan(value):
    atoms = molecule('CH4')
    atoms.positions[2, 1] = value
    return atoms


def _cell(cell, pbc):
    return Atoms('H', positions=[[0, 0, 0]], cell=cell, pbc=pbc)


CASES = {
    'ok': (molecule('CH4'), FrameStatus.PENDING),
    'empty': (Atoms(), FrameStatus.EMPTY),
    'nan': (_nan(np.nan), FrameStatus.NON_FINITE_INPUT),
    'inf': (_nan(np.inf), FrameStatus.NON_FINITE_INPUT),
    'nan cell': (_cell(np.full((3, 3), np.nan), True), FrameStatus.NON_FINITE_INPUT),
    'zero cell': (_cell(np.zeros((3, 3)), True), FrameStatus.INVALID_CELL),
    'flat cell': (_cell([[3, 0, 0], [6, 0, 0], [0, 0, 3]], True), FrameStatus.INVALID_CELL),
    'slab': (_cell([[3, 0, 0], [0, 3, 0], [0, 0, 0]], (True, True, False)), FrameStatus.PENDING),
    'flat slab': (_cell([[3, 0, 0], [3, 0, 0], [0, 0, 9]], (True, True, False)), FrameStatus.INVALID_CELL),
    'element': (bulk('Si'), FrameStatus.UNSUPPORTED_ELEMENT),
    'overlap': (Atoms('H2', positions=[[0, 0, 0], [0, 0, 0.1]]), FrameStatus.ATOMS_TOO_CLOSE),
    'coincident': (Atoms('H2', positions=np.zeros((2, 3))), FrameStatus.ATOMS_TOO_CLOSE),
    'image': (Atoms('H2', positions=[[0, 0, 0.1], [0, 0, 2.9]], cell=[3, 3, 3], pbc=True), FrameStatus.ATOMS_TOO_CLOSE),
    'own image': (_cell([0.6, 3, 3], True), FrameStatus.PENDING),
    'short period': (_cell([0.02, 3, 3], True), FrameStatus.INVALID_CELL),
    'hidden period': (_cell([[5, 0, 0], [5, 1e-3, 0], [0, 0, 5]], True), FrameStatus.INVALID_CELL),
    'skewed': (_cell([[3, 0, 0], [300, 3, 0], [0, 0, 3]], True), FrameStatus.PENDING),
    'apart': (Atoms('H2', positions=[[0, 0, 0], [0, 0, 0.41]]), FrameStatus.PENDING),
}


@pytest.fixture(scope='module')
def frames() -> Frames:
    return Frames.from_ase([atoms for atoms, _ in CASES.values()])


def test_each_bad_frame_gets_its_status_and_no_other(frames):
    status = check_frames(frames, Rules(ORGANIC, 0.4))
    assert [FrameStatus(int(value)).name for value in status] == [expected.name for _, expected in CASES.values()]


def test_without_a_minimum_distance_overlap_is_allowed(frames):
    status = check_frames(frames, Rules(ORGANIC))
    assert FrameStatus.ATOMS_TOO_CLOSE not in status


def test_without_elements_any_element_is_allowed(frames):
    assert FrameStatus.UNSUPPORTED_ELEMENT not in check_frames(frames, Rules(None, 0.4))


@pytest.mark.parametrize(
    ('case', 'text'),
    [
        ('element', 'contains Si; the model knows H, C, N, O'),
        ('nan', 'coordinates of atom 2'),
        ('nan cell', 'cell vector'),
        ('overlap', 'atoms 0 and 1 are 0.100 angstrom apart'),
        ('empty', 'no atoms'),
    ],
)
def test_the_message_names_what_is_wrong(frames, case, text):
    index = list(CASES).index(case)
    assert text in explain(frames, index, CASES[case][1], Rules(ORGANIC, 0.4))


ETHANOL = tuple(molecule('CH3CH2OH').numbers.tolist())
SORTED = molecule('CH3CH2OH')[[3, 4, 0, 1, 2, 5, 6, 7, 8]]


def test_a_model_for_one_molecule_wants_its_atoms_in_order():
    structures = [molecule('CH3CH2OH'), SORTED, molecule('CH3OCH3'), molecule('H2O'), molecule('C6H6')]
    frames = Frames.from_ase(structures)
    status = check_frames(frames, Rules(atom_order=ETHANOL))
    # dimethyl ether has another order; whether it is ethanol is for the backend, which knows the bonds
    assert (status == FrameStatus.ATOM_ORDER).tolist() == [False, True, True, True, True]
    assert 'in the order C C O H H H H H H, these are in another: sort' in explain(
        frames, 1, FrameStatus.ATOM_ORDER, Rules(atom_order=ETHANOL)
    )
    assert 'and these are others' in explain(frames, 3, FrameStatus.ATOM_ORDER, Rules(atom_order=ETHANOL))


def test_the_order_may_be_left_to_the_backend():
    frames = Frames.from_ase([molecule('CH3CH2OH'), SORTED, molecule('H2O')])
    status = check_frames(frames, Rules(atom_order=ETHANOL, reorder=True))
    assert (status == FrameStatus.ATOM_ORDER).tolist() == [False, False, True]


def test_rules_come_from_model_and_parameters():
    rules = Rules.of(('H',), {'atom_order': [1, 1]}, with_defaults({'reorder_atoms': True, 'minimum_distance': 1}))
    assert rules == Rules(('H',), 1.0, (1, 1), True)
    assert Rules.of(None, {}, with_defaults({})) == Rules(None, 0.4, None, False)


def test_many_frames_are_checked_in_pieces():
    near = Atoms('H2', positions=[[0, 0, 0], [0, 0, 0.1]])
    structures = [molecule('C6H6')] * 30
    structures[17] = near
    status = check_frames(Frames.from_ase(structures), Rules(ORGANIC, 0.4))
    assert np.flatnonzero(status != FrameStatus.PENDING).tolist() == [17]


def test_short_distances_agree_with_a_neighbour_list():
    random = np.random.default_rng(2)
    structures = []
    for index in range(12):
        cell = random.normal(scale=2, size=(3, 3)) + 3 * np.eye(3)
        atoms = Atoms('H5', positions=random.normal(scale=6, size=(5, 3)), cell=cell, pbc=index % 3 > 0)
        if index % 4 == 1:
            atoms.pbc = (True, False, True)
        structures.append(atoms)
    frames = Frames.from_ase(structures)
    expected = []
    for index, atoms in enumerate(structures):
        first, second, distances = neighbor_list('ijd', atoms, 1.2)
        expected += [(index, i, j, round(d, 9)) for i, j, d in zip(first, second, distances, strict=True) if i <= j]
    first, second, distances = close_pairs(frames, 1.2)
    frame = frames.frame_of_atom[first]
    found = {
        (f, min(i, j), max(i, j), round(d, 9))
        for f, i, j, d in zip(
            frame, first - frames.offsets[frame], second - frames.offsets[frame], distances, strict=True
        )
    }
    assert len(found) > 20
    assert found == set(expected)
