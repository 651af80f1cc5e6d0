"""Thermochemistry as a task: against ASE on the same potential, and every way in which a structure has none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from ase.thermochemistry import IdealGasThermo
from ase.vibrations import Vibrations

from aiida_mlpotential.worker.backends import load_backend
from aiida_mlpotential.worker.backends.base import Backend, Evaluation
from aiida_mlpotential.worker.backends.base import Settings as BackendSettings
from aiida_mlpotential.worker.errors import FrameStatus, WorkerError
from aiida_mlpotential.worker.frames import Frames, sha256_of
from aiida_mlpotential.worker.ideal_gas import thermochemistry_of
from aiida_mlpotential.worker.quantities import TASK_QUANTITIES
from aiida_mlpotential.worker.runner import run_job
from aiida_mlpotential.worker.schema import FRAMES_FILE, RESULTS_FILE, SYMMETRY_FILE, JobSpec, ModelSpec
from aiida_mlpotential.worker.tasks.base import Context
from aiida_mlpotential.worker.tasks.thermochemistry import Thermochemistry
from aiida_mlpotential.worker.thermochemistry import Settings, zero_point_energy

#: A potential without parameters to load, which knows H, C, N and O, too, though it was not made for molecules.
MODEL = ModelSpec('EMT', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'})
MakeContext = Callable[..., Context]


def _relaxed(name: str) -> Atoms:
    atoms = Atoms('H') if name == 'H' else molecule(name)
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-6, steps=200)
    return atoms


@pytest.fixture(scope='module')
def structures() -> list[Atoms]:
    """Return a bent, a linear, and a single-atom minimum of EMT, and CO2, which is a saddle of second order there."""
    return [_relaxed(name) for name in ('H2O', 'N2', 'H', 'CO2')]


def _of_modes(notes: list[str]) -> list[str]:
    """Return the notes that this task adds to those of vibrations."""
    return [note for note in notes if note.startswith('modes ')]


SYMMETRY, SPIN = [2, 2, 1, 2], [1, 1, 2, 1]


@pytest.fixture
def emt(tmp_path: Path) -> Backend:
    """Return EMT as a backend."""
    return load_backend(MODEL, tmp_path, BackendSettings(precision='double'))


def _run(context: Context) -> Context:
    Thermochemistry().run(context)
    return context


def _read(context: Context, index: int, *names: str) -> list[np.ndarray]:
    return [context.store.read(name, index) for name in names]


def test_results_are_those_of_ase(
    structures: list[Atoms], emt: Backend, make_context: MakeContext, tmp_path: Path
) -> None:
    """Optimized molecules, vibrations by ASE and IdealGasThermo on them: the same Gibbs energies to 1e-5 eV."""
    temperatures = [200.0, 298.15]
    parameters = {'temperatures': temperatures, 'symmetry_number': SYMMETRY, 'spin_multiplicity': SPIN}
    context = _run(make_context(Thermochemistry, emt, Frames.from_ase(structures), gas_pressure=1e5, **parameters))
    geometries = ('nonlinear', 'linear', 'monatomic')
    for index, (atoms, geometry) in enumerate(zip(structures, geometries, strict=False)):
        assert context.store.status[index] == FrameStatus.OK
        vibrations = Vibrations(atoms, name=str(tmp_path / f'vib{index}'), delta=1e-3)
        vibrations.run()
        thermo = IdealGasThermo(
            vibrations.get_energies(),
            geometry,
            atoms.get_potential_energy(),
            atoms,
            SYMMETRY[index],
            (SPIN[index] - 1) / 2,
        )
        gibbs, enthalpies, entropies = _read(context, index, 'gibbs_energies', 'enthalpies', 'entropies')
        for column, temperature in enumerate(temperatures):
            expected = thermo.get_gibbs_energy(temperature, 1e5, verbose=False)
            assert gibbs[column] == pytest.approx(expected, abs=1e-5)
            assert enthalpies[column] == pytest.approx(thermo.get_enthalpy(temperature, verbose=False), abs=1e-5)
            entropy = thermo.get_entropy(temperature, 1e5, verbose=False)
            assert entropies[column] == pytest.approx(entropy, abs=1e-5 / temperature * 3)


def test_a_hydrogen_atom_has_translation_and_spin_only(emt: Backend, make_context: MakeContext) -> None:
    """No rotation, no vibration; the doublet has k ln 2; it needs no symmetry number."""
    atom = Frames.from_ase([Atoms('H')])
    context = _run(make_context(Thermochemistry, emt, atom, spin_multiplicity=2))
    assert context.store.status.tolist() == [FrameStatus.OK]
    rotation, vibration, electronic = _read(context, 0, 'entropy_rotation', 'entropy_vibration', 'entropy_electronic')
    assert (rotation[0], vibration[0]) == (0.0, 0.0)
    assert electronic[0] == pytest.approx(units.kB * np.log(2))
    assert context.store.read('heat_capacities', 0)[0] == pytest.approx(1.5 * units.kB)


@pytest.mark.parametrize(('multiplicity', 'number'), [(1, 1), (2, 0), (3, 1)])
def test_a_multiplicity_that_no_neutral_molecule_has_is_told(
    emt: Backend, make_context: MakeContext, multiplicity: int, number: int
) -> None:
    """A hydrogen atom is a doublet; a multiplicity that somebody forgot costs some tenths of a kcal/mol."""
    context = _run(make_context(Thermochemistry, emt, Frames.from_ase([Atoms('H')]), spin_multiplicity=multiplicity))
    assert len([note for note in context.notes if note.startswith('spin_multiplicity does not go with')]) == number


def test_a_saddle_is_no_minimum_but_keeps_its_numbers(
    structures: list[Atoms], emt: Backend, make_context: MakeContext
) -> None:
    """CO2 in EMT bends without resistance: WRONG_CHARACTER, with the Gibbs energy of the other modes, and a note."""
    frames = Frames.from_ase(structures, labels=['water', 'nitrogen', 'atom', 'bent'])
    context = _run(make_context(Thermochemistry, emt, frames, symmetry_number=SYMMETRY))
    assert context.store.status.tolist() == [FrameStatus.OK] * 3 + [FrameStatus.WRONG_CHARACTER]
    assert np.isfinite(context.store.read('gibbs_energies', 3)).all()
    assert 'minimum' in context.messages[3]
    (note,) = _of_modes(context.notes)
    assert 'left out of the sums, in 1 structure: bent (62.9i, 62.9i)' in note
    assert context.store.read('n_excluded', 3) == 0
    assert (
        _run(
            make_context(Thermochemistry, emt, frames, context.directory / 'any', symmetry_number=1, expected='any')
        ).store.status.tolist()
        == [FrameStatus.OK] * 4
    )


def test_low_modes_are_listed(structures: list[Atoms], emt: Backend, make_context: MakeContext) -> None:
    """Those below the cutoff are counted in n_excluded, named in a note, and not in the sums."""
    frames = Frames.from_ase(structures[:2], labels=['water', 'nitrogen'])
    context = _run(make_context(Thermochemistry, emt, frames, symmetry_number=2, low_frequency_cutoff=300))
    assert [int(context.store.read('n_excluded', index)) for index in (0, 1)] == [1, 0]
    assert 'left out of the sums, in 1 structure: water (196.7)' in _of_modes(context.notes)[0]
    _, low, *others = context.store.read('frequencies', 0)[5:]
    assert low < 300 < min(others)
    without = thermochemistry_of(
        frames.select([0]),
        {
            'energies': context.store.read('energies', 0)[None],
            'frequencies': np.array([0.0] * 6 + [-1.0, *others]),
            'n_rigid': np.array([6]),
        },
        Settings(low_frequency_cutoff=300),
        2,
    )
    assert context.store.read('entropies', 0) == pytest.approx(without['entropies'][0], rel=1e-12)


def test_no_note_without_a_reason(structures: list[Atoms], emt: Backend, make_context: MakeContext) -> None:
    """Where all modes count there is nothing to say."""
    context = _run(make_context(Thermochemistry, emt, Frames.from_ase(structures[:3]), symmetry_number=2))
    assert _of_modes(context.notes) == []


def test_structures_without_thermochemistry_fail_alone_and_at_once(
    structures: list[Atoms], emt: Backend, make_context: MakeContext
) -> None:
    """An unknown symmetry number or a cell is found before anything is evaluated; the others get their results."""
    crystal = structures[0].copy()
    crystal.set_cell([8, 8, 8])
    crystal.pbc = True
    frames = Frames.from_ase([structures[0], structures[0], crystal, structures[2]])
    context = make_context(Thermochemistry, emt, frames, symmetry={'symmetry_numbers': np.array([2, 0, 2, 0])})
    evaluated = _evaluated_by(context)
    assert context.store.status.tolist() == [
        FrameStatus.OK,
        FrameStatus.NO_SYMMETRY_NUMBER,
        FrameStatus.NOT_A_MOLECULE,
        FrameStatus.OK,
    ]
    assert 'symmetry_number' in context.messages[1]
    assert 'ideal gas' in context.messages[2]
    assert context.store.read('symmetry_numbers', 0) == 2
    assert evaluated == {3, 1}  # atoms in water and of the atom: nothing of the two that failed


def _evaluated_by(context: Context) -> set[int]:
    """Run the task; return the numbers of atoms of the structures that were evaluated."""
    sizes: set[int] = set()
    inner = context.backend.evaluate

    def evaluate(frames: Frames, request: frozenset[str]) -> Evaluation:
        assert not frames.pbc.any()
        sizes.update(frames.counts.tolist())
        return inner(frames, request)

    context.backend.evaluate = evaluate  # type: ignore[method-assign]
    _run(context)
    return sizes


class Springs(Backend):
    """Members with springs between all atoms of a molecule, of one length and different strength: one minimum for all.

    :param strengths: of each member, eV/angstrom^2, for the pairs of atoms in order
    :param shifts: energy of each member at the minimum, eV
    """

    name = 'springs'
    properties = frozenset({'energy', 'forces', 'forces_std'})

    def __init__(self, minimum: Atoms, strengths: list[list[float]], shifts: list[float]) -> None:
        self.lengths = minimum.get_all_distances()[np.triu_indices(len(minimum), 1)]
        self.strengths, self.shifts = np.array(strengths), np.array(shifts)
        self.n_members, self.precision = len(strengths), 'double'

    @classmethod
    def load(cls, spec: ModelSpec, directory: Path, settings: BackendSettings) -> Backend:
        """Not needed: the tests make it."""
        raise AssertionError

    def evaluate(self, frames: Frames, request: frozenset[str]) -> Evaluation:
        """Evaluate molecules that all have the atoms of the minimum."""
        positions = frames.positions.reshape(len(frames), -1, 3)
        first, second = np.triu_indices(positions.shape[1], 1)
        vectors = positions[:, first] - positions[:, second]
        distances = np.linalg.norm(vectors, axis=2)
        stretch = distances - self.lengths
        energies = 0.5 * self.strengths @ (stretch**2).T + self.shifts[:, None]
        pulls = -(self.strengths[:, None] * stretch / distances)[..., None] * vectors
        forces = np.zeros((self.n_members, *positions.shape))
        for pair, (i, j) in enumerate(zip(first, second, strict=True)):
            forces[:, :, i] += pulls[:, :, pair]
            forces[:, :, j] -= pulls[:, :, pair]
        forces = forces.reshape(self.n_members, -1, 3)
        ensemble = self.n_members > 1
        return Evaluation(
            energies.mean(axis=0),
            member_energies=energies if ensemble else None,
            forces=forces.mean(axis=0),
            member_forces=forces if ensemble and 'member_forces' in request else None,
        )


#: O-H, O-H and H-H.
STRENGTHS = [[40.0, 40.0, 10.0], [42.0, 42.0, 9.0], [39.0, 39.0, 11.0]]


def test_every_member_has_the_gibbs_energy_that_it_has_alone(make_context: MakeContext, tmp_path: Path) -> None:
    """The members of an ensemble give what each gives as a model of its own; the spread is over these."""
    water, shifts = molecule('H2O'), [-1.0, -1.01, -0.98]
    frames = Frames.from_ase([water, water])
    parameters: dict[str, Any] = {'symmetry_number': 2, 'temperatures': [298.15, 600.0]}
    context = _run(make_context(Thermochemistry, Springs(water, STRENGTHS, shifts), frames, **parameters))
    assert context.store.status.tolist() == [FrameStatus.OK] * 2
    members, spread = _read(context, 1, 'member_gibbs_energies', 'gibbs_energy_std')
    assert members.shape == (3, 2)
    for index in range(3):
        alone = Springs(water, STRENGTHS[index : index + 1], shifts[index : index + 1])
        single = _run(make_context(Thermochemistry, alone, frames, tmp_path / f'alone{index}', **parameters))
        assert 'gibbs_energy_std' not in single.store.names
        assert members[index] == pytest.approx(single.store.read('gibbs_energies', 1), abs=1e-8)
    assert spread == pytest.approx(np.std(members, axis=0, ddof=1), rel=1e-9)
    assert spread[0] > 0.005
    assert _of_modes(context.notes) == []


def test_a_mode_that_is_low_for_a_member_is_told(make_context: MakeContext) -> None:
    """A member without a spring between the hydrogen atoms bends freely: the bend adds no spread, a note says so."""
    water = molecule('H2O')
    backend = Springs(water, [[40.0, 40.0, 10.0], [40.0, 40.0, 0.0]], [0.0, 0.0])
    context = _run(make_context(Thermochemistry, backend, Frames.from_ase([water], ['soft']), symmetry_number=2))
    assert context.store.status.tolist() == [FrameStatus.OK]
    bend = context.store.read('frequencies', 0)[6]
    members = context.store.read('member_frequencies', 0)[:, 7:]
    stretches = np.sum(zero_point_energy(members), axis=1)  # what else the members differ in, but for 1e-8 eV of -TS
    assert context.store.read('gibbs_energy_std', 0)[0] == pytest.approx(np.std(stretches, ddof=1), abs=1e-6)
    (note,) = _of_modes(context.notes)
    assert f'add nothing to the spread of the Gibbs energy, in 1 structure: soft ({bend:.1f})' in note


def test_the_spread_can_be_switched_off(make_context: MakeContext) -> None:
    """Without the frequencies of the members there are no Gibbs energies of theirs either."""
    water = molecule('H2O')
    backend = Springs(water, STRENGTHS, [0.0] * 3)
    parameters = {'symmetry_number': 2, 'member_frequencies': False}
    context = _run(make_context(Thermochemistry, backend, Frames.from_ase([water]), **parameters))
    assert context.store.status.tolist() == [FrameStatus.OK]
    missing = set(TASK_QUANTITIES['thermochemistry']) - set(context.store.names)
    assert missing == {'member_frequencies', 'frequency_std', 'member_gibbs_energies', 'gibbs_energy_std'}


def test_lists_of_the_wrong_length_end_the_job(emt: Backend, make_context: MakeContext) -> None:
    """Also in the worker, which may be run without AiiDA."""
    frames = Frames.from_ase([molecule('H2O')] * 2)
    context = make_context(Thermochemistry, emt, frames, symmetry_number=[2])
    with pytest.raises(WorkerError, match='1 values for 2 structures') as caught:
        Thermochemistry().run(context)
    assert caught.value.label == 'ERROR_JOB_INVALID'


def _job(directory: Path, frames: Frames, symmetry: list[int] | None = None, **parameters: Any) -> dict[str, Any]:
    """Run a whole job and return the content of its results file."""
    frames.write(directory / FRAMES_FILE)
    job = JobSpec('thermochemistry', MODEL, parameters, sha256_of(directory / FRAMES_FILE))
    if symmetry is not None:
        np.savez(directory / SYMMETRY_FILE, symmetry_numbers=np.array(symmetry, dtype=np.int32))
        job = dataclasses.replace(job, symmetry_sha256=sha256_of(directory / SYMMETRY_FILE))
    run_job(lambda: job, directory)
    content: dict[str, Any] = json.loads((directory / RESULTS_FILE).read_text())
    return content


def test_a_whole_job(structures: list[Atoms], tmp_path: Path) -> None:
    """From files to files: the symmetry numbers of the symmetry file, temperatures and units in the results file."""
    frames = Frames.from_ase(structures[:3])
    content = _job(tmp_path, frames, SYMMETRY[:3], temperatures=[300.0, 400.0], spin_multiplicity=SPIN[:3])
    assert content['error'] is None
    assert content['state'] == 'finished'
    assert content['counts'] == {'total': 3, 'ok': 3, 'failed': 0, 'pending': 0}
    assert content['temperatures'] == [300.0, 400.0]
    assert content['units']['entropies'] == 'eV/K'
    arrays = {path.stem: np.load(path) for path in (tmp_path / 'arrays').glob('*.npy')}
    assert arrays['symmetry_numbers'].tolist() == SYMMETRY[:3]
    assert arrays['gibbs_energies'].shape == (3, 2)
    again = thermochemistry_of(frames, arrays, Settings((300.0, 400.0)), SYMMETRY[:3], SPIN[:3])
    for name, values in again.items():
        assert arrays[name] == pytest.approx(values, rel=1e-12), name


def test_a_job_goes_on_where_it_was(structures: list[Atoms], tmp_path: Path) -> None:
    """Finished structures are kept, with the notes on their modes; at other temperatures it is another job."""
    frames = Frames.from_ase(structures[:2], labels=['water', 'nitrogen'])
    parameters: dict[str, Any] = {'symmetry_number': 2, 'low_frequency_cutoff': 300}
    first = _job(tmp_path, frames, **parameters)
    second = _job(tmp_path, frames, **parameters)
    assert any('went on with the results of 2 structures' in note for note in second['notes'])
    assert _of_modes(first['notes']) == _of_modes(second['notes'])
    assert 'water (196.7)' in _of_modes(second['notes'])[0]
    other = _job(tmp_path, frames, **parameters, temperatures=[500.0])
    assert not any('went on with' in note for note in other['notes'])
