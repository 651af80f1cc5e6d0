"""Guards stop what is nonsense, name it, and leave what is merely strained, weakly bound or metallic alone."""

from __future__ import annotations

import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.cluster import Octahedron

from aiida_mlpotential.worker.backends.base import Evaluation
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.optimization.guards import (
    Limits,
    count_fragments,
    energy_floors,
    find_broken,
    find_trouble,
)

WATER, ETHANOL = molecule('H2O'), molecule('CH3CH2OH')
LIMITS = Limits(minimum_distance=0.4)


def _evaluation(frames: Frames, **values) -> Evaluation:
    forces = np.zeros((frames.n_atoms, 3))
    return Evaluation(**{'energies': np.full(len(frames), -10.0), 'forces': forces, **values})


def _of(atoms: Atoms, calculator) -> Evaluation:
    atoms.calc = calculator
    periodic = atoms.pbc.all()
    stress = atoms.get_stress(voigt=False) if periodic else np.full((3, 3), np.nan)
    return Evaluation(np.array([atoms.get_potential_energy()]), forces=atoms.get_forces(), stress=stress[None])


def _moved(frames: Frames, **changes) -> Frames:
    return Frames(
        **{
            name: changes.get(name, getattr(frames, name))
            for name in ('numbers', 'positions', 'offsets', 'cells', 'pbc')
        }
    )


def _pair(distance: float, first: Atoms = WATER, second: Atoms = WATER) -> Atoms:
    """Two molecules whose first atoms are this far apart, perpendicular to both."""
    result = first + second
    result.positions[len(first) :] += first.positions[0] - second.positions[0] + [distance, 0, 0]
    return result


@pytest.fixture
def frames() -> Frames:
    return Frames.from_ase([WATER, ETHANOL, bulk('Cu', cubic=True)])


def test_nothing_is_wrong_with_what_did_not_move(frames):
    members = np.full((8, 3), -10.0)
    evaluation = _evaluation(frames, member_energies=members)
    assert find_trouble(frames, frames, evaluation, Limits(max_qbc=0.1), energy_floors(frames, evaluation)) == {}


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('energies', 'the energy became NaN'),
        ('forces', 'the forces became NaN'),
        ('positions', 'the geometry became NaN'),
        ('cells', 'the cell became NaN'),
    ],
)
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_explodes_alone(frames, name, words, value):
    """The frame with the bad number is named, whatever else is wrong with it."""
    evaluation, now = _evaluation(frames), frames
    if name in ('energies', 'forces'):
        array = getattr(evaluation, name)
    else:
        array = getattr(frames, name).copy()
        now = _moved(frames, **{name: array})
    array[2 if name in ('energies', 'cells') else -1] = value
    trouble = find_trouble(frames, now, evaluation, LIMITS)
    assert set(trouble) == {2}
    assert trouble[2].status == FrameStatus.EXPLODED
    assert words in trouble[2].message


def test_atoms_too_close_are_named(frames):
    positions = frames.positions.copy()
    positions[frames.offsets[1] + 5] = positions[frames.offsets[1] + 2] + [0, 0.1, 0.2]
    trouble = find_trouble(frames, _moved(frames, positions=positions), _evaluation(frames), LIMITS)
    assert set(trouble) == {1}
    assert trouble[1].status == FrameStatus.ATOMS_TOO_CLOSE
    assert trouble[1].message == 'atoms 2 and 5 came within 0.224 angstrom, less than 0.4'
    assert find_trouble(frames, _moved(frames, positions=positions), _evaluation(frames), Limits(0.0)) == {}


def test_atoms_too_close_to_an_image():
    atoms = Atoms('Cu2', [[0, 0, 0.1], [0, 0, 3.8]], cell=[4, 4, 4], pbc=True)
    frames = Frames.from_ase([atoms])
    trouble = find_trouble(frames, frames, _evaluation(frames), LIMITS)
    assert trouble[0].message == 'atoms 0 and 1 came within 0.300 angstrom, less than 0.4'


def test_spread_over_the_members(frames):
    """The sample standard deviation over the root of the number of atoms, as query by committee has it."""
    members = np.array([[-10.0, -10.0, -10.0], [-10.0, -9.0, -10.0]])
    qbc = np.sqrt(0.5) / np.sqrt(9)
    evaluation = _evaluation(frames, member_energies=members)
    trouble = find_trouble(frames, frames, evaluation, Limits(max_qbc=qbc * 0.99))
    assert {index: error.status for index, error in trouble.items()} == {1: FrameStatus.SPREAD_TOO_LARGE}
    assert trouble[1].message == 'the query by committee became 0.2357 eV, more than max_qbc = 0.233345'
    assert find_trouble(frames, frames, evaluation, Limits(max_qbc=qbc * 1.01)) == {}
    assert find_trouble(frames, frames, evaluation, Limits()) == {}
    assert find_trouble(frames, frames, _evaluation(frames), Limits(max_qbc=1e-9)) == {}


def test_limits_of_parameters():
    assert Limits.of({'minimum_distance': 1, 'max_qbc': None}) == Limits(minimum_distance=1.0)
    assert Limits.of({'minimum_distance': 0.2, 'max_qbc': 0.05}).max_qbc == 0.05


def test_a_hole_in_the_potential(frames):
    evaluation = _evaluation(frames)
    floors = energy_floors(frames, evaluation)
    fallen = _evaluation(frames, energies=np.array([-10.0, -1e4, -10.0]))
    trouble = find_trouble(frames, frames, fallen, LIMITS, floors)
    assert set(trouble) == {1}
    assert trouble[1].status == FrameStatus.EXPLODED
    assert 'hole' in trouble[1].message
    assert find_trouble(frames, frames, fallen, LIMITS) == {}, 'without floors nothing is known of the start'


@pytest.mark.parametrize(
    ('squeezed', 'relaxed', 'calculator'),
    [
        (Atoms('Cu2', [[0, 0, 0], [0, 0, 0.45]]), Atoms('Cu2', [[0, 0, 0], [0, 0, 2.3]]), EMT()),
        (bulk('Cu', a=1.6), bulk('Cu', a=3.6), EMT()),
        (bulk('Cu', a=2.4, cubic=True), bulk('Cu', a=3.6, cubic=True), EMT()),
        (
            Atoms('Ar2', [[0, 0, 0], [0, 0, 0.4]]),
            Atoms('Ar2', [[0, 0, 0], [0, 0, 3.8]]),
            LennardJones(sigma=3.4, epsilon=0.01),
        ),
        (
            Atoms('Ar3', [[0, 0, 0], [0, 0, 1], [0, 0, 2]]),
            Atoms('Ar3', [[0, 0, 0], [0, 0, 4], [0, 0, 8]]),
            LennardJones(sigma=3.4, epsilon=0.01),
        ),
    ],
    ids=['two atoms', 'dense crystal, no forces', 'cubic crystal', 'up to 1e10 eV', 'no force on the middle one'],
)
def test_a_bad_start_may_relax(squeezed, relaxed, calculator):
    """However much energy it sets free: it shows in the forces and the stress at the start."""
    start, end = Frames.from_ase([squeezed]), Frames.from_ase([relaxed])
    floors = energy_floors(start, _of(squeezed, calculator))
    assert find_trouble(start, end, _of(relaxed, calculator), LIMITS, floors) == {}


def test_atoms_that_fly_away():
    start = Frames.from_ase([WATER, ETHANOL])
    positions = start.positions.copy()
    positions[1] += [0, 0, 200.0]
    trouble = find_trouble(start, _moved(start, positions=positions), _evaluation(start), LIMITS)
    assert {index: error.status for index, error in trouble.items()} == {0: FrameStatus.EXPLODED}
    assert 'flew 200 angstrom away' in trouble[0].message


def test_a_chain_may_unfold_and_a_distant_molecule_may_move():
    chain = Atoms('C200', np.random.default_rng(0).normal(size=(200, 3)) * 9)
    unfolded = Atoms('C200', np.arange(200)[:, None] * [1.3, 0, 0])
    start, end = Frames.from_ase([chain]), Frames.from_ase([unfolded])
    assert find_trouble(start, end, _evaluation(start), LIMITS) == {}


@pytest.mark.parametrize(
    ('deformation', 'sound'),
    [
        (np.eye(3) * 2.0, True),
        (np.eye(3) * 0.5, True),
        (np.diag([1.0, 1.0, 5.0]), False),
        (np.eye(3) * 0.2, False),
        (np.eye(3) + np.array([[0, 0, 0], [8.0, 0, 0], [0, 0, 0]]), False),
    ],
    ids=['twice as long', 'half as long', 'layers drift apart', 'collapse', 'sheared'],
)
def test_cells(deformation, sound):
    start = Frames.from_ase([bulk('Cu', cubic=True), bulk('Cu', a=12.0, cubic=True)])
    cells = start.cells.copy()
    cells[1] = cells[1] @ deformation
    positions = np.concatenate([start.positions[:4], start.positions[4:] @ deformation])
    trouble = find_trouble(start, _moved(start, positions=positions, cells=cells), _evaluation(start), LIMITS)
    assert [error.status for error in trouble.values()] == ([] if sound else [FrameStatus.EXPLODED])
    assert sound or 'the cell became more than 4 times longer or shorter' in trouble[1].message


def test_cells_of_molecules_and_slabs_are_no_matter():
    start = Frames.from_ase([WATER, fcc111('Cu', (2, 2, 2))])
    assert find_trouble(start, start, _evaluation(start), LIMITS) == {}


FRAGMENTS = {
    'nothing': (Atoms(), 0),
    'an atom': (Atoms('He'), 1),
    'H2': (molecule('H2'), 1),
    'F2, whose bond is long for its radii': (molecule('F2'), 1),
    'LiF': (molecule('LiF'), 1),
    'NaCl': (molecule('NaCl'), 1),
    'P2': (molecule('P2'), 1),
    'benzene': (molecule('C6H6'), 1),
    'silicon tetrafluoride': (molecule('SiF4'), 1),
    'water dimer': (_pair(2.9), 2),
    'a short hydrogen bond': (Atoms('FHFH', [[0, 0, 0], [0, 0, 0.95], [0, 0, 2.5], [0.8, 0, 3.0]]), 2),
    'argon dimer': (Atoms('Ar2', [[0, 0, 0], [0, 0, 3.8]]), 2),
    'metal cluster': (Octahedron('Cu', 3), 1),
    'ethyl radical and hydrogen': (_pair(8.0, molecule('C2H6'), Atoms('H')), 2),
    'metal': (bulk('Cu'), 0),
    'ionic crystal': (bulk('NaCl', 'rocksalt', a=5.64), 0),
    'slab': (fcc111('Cu', (2, 2, 2)), 0),
}


def test_fragments_of_molecules():
    """Periodic frames are not judged: 0."""
    counts = count_fragments(Frames.from_ase([atoms for atoms, _ in FRAGMENTS.values()]))
    assert dict(zip(FRAGMENTS, counts.tolist(), strict=True)) == {
        name: number for name, (_, number) in FRAGMENTS.items()
    }


def _stretched(atoms: Atoms, first: int, second: int, distance: float) -> Atoms:
    result = atoms.copy()
    result.set_distance(first, second, distance, fix=0)
    return result


def _proton_transfer() -> tuple[Atoms, Atoms]:
    """O-H ... O becomes O ... H-O."""
    start = Atoms('OHOH', [[0, 0, 0], [0, 0, 0.98], [0, 0, 2.6], [0.9, 0, 2.9]])
    end = start.copy()
    end.positions[1, 2] = 2.6 - 0.98
    return start, end


HYDROGEN = molecule('H2')
SOUND = {
    'unchanged': (ETHANOL, ETHANOL),
    'a dimer drifts apart': (_pair(2.9), _pair(9.0)),
    'a dimer that started rather close': (_pair(1.9), _pair(3.0)),
    'molecules react to one': (_pair(2.9), _pair(1.4)),
    'a proton changes sides': _proton_transfer(),
    'a stretched bond': (ETHANOL, _stretched(ETHANOL, 0, 1, 2.2)),
    'stretched hydrogen': (HYDROGEN, _stretched(HYDROGEN, 0, 1, 0.95)),
    'a bond stretched at the start breaks': (_stretched(ETHANOL, 2, 3, 1.4), _stretched(ETHANOL, 2, 3, 3.0)),
    'a crystal': (bulk('NaCl', 'rocksalt', a=5.64), bulk('NaCl', 'rocksalt', a=9.0)),
}
BROKEN = {
    'hydrogen': (HYDROGEN, _stretched(HYDROGEN, 0, 1, 1.5)),
    'an O-H bond': (ETHANOL, _stretched(ETHANOL, 2, 3, 2.0)),
    'a C-C bond': (molecule('C2H2'), _stretched(molecule('C2H2'), 0, 1, 3.0)),
    'one of two molecules': (_pair(5.0), _pair(5.0, WATER, _stretched(WATER, 0, 1, 3.0))),
}


def test_what_broke_apart_and_what_did_not():
    cases = {**SOUND, **BROKEN}
    start, end = (Frames.from_ase([case[at] for case in cases.values()]) for at in (0, 1))
    found = find_broken(start, end)
    assert [name for index, name in enumerate(cases) if index in found] == list(BROKEN)
    assert all(error.status == FrameStatus.BROKE_APART for error in found.values())
    assert found[len(SOUND)].message == 'the molecule fell into 2 fragments, at the start there were 1'


@pytest.mark.parametrize(
    'structures',
    [[ETHANOL] * 228, [molecule('C60')] * 34, [bulk('Cu', cubic=True)] * 512, [bulk('Cu', cubic=True) * (8, 8, 8)]],
    ids=['ethanol', 'C60', 'small crystals', 'a large crystal'],
)
def test_cheap_enough_for_every_step(structures):
    """2048 atoms: 1 to 4 ms on one slow core; what the bound excludes is a search that grows with N^2 (40 ms)."""
    frames = Frames.from_ase(structures)
    evaluation = _evaluation(frames, member_energies=np.zeros((8, len(frames))))
    floors = energy_floors(frames, evaluation)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert find_trouble(frames, frames, evaluation, Limits(max_qbc=1.0), floors) == {}
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02
