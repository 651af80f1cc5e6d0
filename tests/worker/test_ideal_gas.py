"""From vibrational analyses of many molecules to Gibbs energies: against ASE, and what is left out of the sums."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.thermochemistry import IdealGasThermo

from aiida_mlpotential.worker import ideal_gas as module
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.ideal_gas import IdealGas, Molecules, check_molecules, ideal_gas, thermochemistry_of
from aiida_mlpotential.worker.quantities import QUANTITIES, TASK_QUANTITIES
from aiida_mlpotential.worker.thermochemistry import Settings

ALL_MODES = Settings((200.0, 298.15, 1000.0), 101325.0, 0.0)
KT = units.kB * 298.15

#: Name, geometry for ASE, rigid motions, symmetry number, total spin, vibrations.
SPECIES: tuple[tuple[str, str, int, int, float, list[float]], ...] = (
    ('H2O', 'nonlinear', 6, 2, 0.0, [1594.0, 3657.0, 3756.0]),
    ('H', 'monatomic', 3, 1, 0.5, []),
    ('CO2', 'linear', 5, 2, 0.0, [667.0, 667.0, 1333.0, 2349.0]),
    ('O2', 'linear', 5, 2, 1.0, [1556.0]),
    ('CH4', 'nonlinear', 6, 12, 0.0, [1306.0] * 3 + [1534.0] * 2 + [2917.0] + [3019.0] * 3),
)


def _atoms(name: str) -> Atoms:
    atoms = Atoms('H') if name == 'H' else molecule(name)
    atoms.rotate(40, (1, 2, 3))
    return atoms


FRAMES = Frames.from_ase([_atoms(name) for name, *_ in SPECIES])
SYMMETRY = [symmetry for _, _, _, symmetry, _, _ in SPECIES]
SPIN = [round(2 * spin + 1) for *_, spin, _ in SPECIES]


def _analysis() -> dict[str, np.ndarray]:
    """Return what a vibrational analysis of the species stores."""
    return {
        'energies': np.array([-76.0, -13.6, -188.0, -150.0, -40.0]),
        'n_rigid': np.array([n_rigid for _, _, n_rigid, _, _, _ in SPECIES], dtype=np.int32),
        'frequencies': np.concatenate([[0.0] * n_rigid + modes for _, _, n_rigid, _, _, modes in SPECIES]),
    }


def _water(modes: list[float], **more: Any) -> dict[str, np.ndarray]:
    return {
        'energies': np.array([-76.0]),
        'n_rigid': np.array([6], dtype=np.int32),
        'frequencies': np.array([0.0] * 6 + modes),
        **more,
    }


def _of_water(modes: list[float], settings: Settings, **more: Any) -> IdealGas:
    return ideal_gas(Molecules.of(FRAMES.select([0]), _water(modes, **more), 2), settings)


@pytest.fixture(scope='module')
def gas() -> IdealGas:
    """Return the thermochemistry of all species at once, with all modes."""
    return ideal_gas(Molecules.of(FRAMES, _analysis(), SYMMETRY, SPIN), ALL_MODES)


@pytest.mark.parametrize('index', range(len(SPECIES)), ids=[name for name, *_ in SPECIES])
def test_totals_are_those_of_ase(index: int, gas: IdealGas) -> None:
    """U, H, S and G of atoms, linear and other molecules, singlets and others, to 1e-9."""
    name, geometry, _, symmetry, spin, modes = SPECIES[index]
    thermo = IdealGasThermo(
        np.array(modes) * units.invcm,
        geometry,
        potentialenergy=_analysis()['energies'][index],
        atoms=_atoms(name),
        symmetrynumber=symmetry,
        spin=spin,
        vib_selection='exact',
    )
    for column, temperature in enumerate(ALL_MODES.temperatures):
        energy = thermo.get_internal_energy(temperature, verbose=False)
        assert gas.internal_energies[index, column] == pytest.approx(energy, rel=1e-12)
        enthalpy = thermo.get_enthalpy(temperature, verbose=False)
        assert gas.enthalpies[index, column] == pytest.approx(enthalpy, rel=1e-12)
        entropy = thermo.get_entropy(temperature, 101325.0, verbose=False)
        assert gas.entropies[index, column] == pytest.approx(entropy, rel=1e-9)
        gibbs = thermo.get_gibbs_energy(temperature, 101325.0, verbose=False)
        assert gas.gibbs_energies[index, column] == pytest.approx(gibbs, rel=1e-12)
        # The corrections alone, without the energy, which has most of the digits.
        correction = gas.gibbs_energies[index, column] - thermo.potentialenergy
        assert correction == pytest.approx(gibbs - thermo.potentialenergy, rel=1e-9)


def test_parts_add_up(gas: IdealGas) -> None:
    """The totals are the sums of what is stored by part."""
    temperatures, zero = ALL_MODES.kelvins, np.array([sum(modes) / 2 * units.invcm for *_, modes in SPECIES])
    entropies = gas.entropy_translation + gas.entropy_rotation + gas.entropy_vibration + gas.entropy_electronic
    assert gas.entropies == pytest.approx(entropies, rel=1e-14)
    thermal = gas.internal_energy_translation + gas.internal_energy_rotation + gas.internal_energy_vibration
    expected = (_analysis()['energies'] + zero)[:, None] + thermal
    assert gas.internal_energies == pytest.approx(expected, rel=1e-14)
    capacities = gas.heat_capacity_translation + gas.heat_capacity_rotation + gas.heat_capacity_vibration
    assert gas.heat_capacities == pytest.approx(capacities, rel=1e-14)
    assert gas.enthalpies == pytest.approx(gas.internal_energies + units.kB * temperatures, rel=1e-14)
    assert gas.gibbs_energies == pytest.approx(gas.enthalpies - temperatures * gas.entropies, rel=1e-14)


def test_names_and_shapes_are_those_of_the_quantities(gas: IdealGas) -> None:
    """Each array of the task beyond those of vibrations is there, in its shape; for an ensemble two more."""
    own = set(TASK_QUANTITIES['thermochemistry']) - set(TASK_QUANTITIES['vibrations'])
    ensemble = {'member_gibbs_energies', 'gibbs_energy_std'}
    assert {field.name for field in dataclasses.fields(IdealGas)} == own
    assert set(gas.arrays()) == own - ensemble
    n, m, t = len(FRAMES), 3, 3
    analysis = _analysis()
    analysis['member_energies'] = np.tile(analysis['energies'], (m, 1))
    analysis['member_frequencies'] = np.tile(analysis['frequencies'], (m, 1))
    arrays = thermochemistry_of(FRAMES, analysis, ALL_MODES, SYMMETRY, SPIN)
    shapes = {'frame': (n,), 'frame3': (n, 3), 'temperature': (n, t), 'member_temperature': (n, m, t)}
    assert set(arrays) == own
    for name, values in arrays.items():
        assert values.shape == shapes[QUANTITIES[name].shape], name
        assert values.dtype == (np.int32 if QUANTITIES[name].integer else np.float64), name


def test_low_modes_are_left_out_with_all_they_contribute() -> None:
    """A mode below the cutoff adds neither entropy, nor thermal energy, nor heat capacity, nor zero point."""
    settings = Settings((298.15,), low_frequency_cutoff=20.0)
    with_low = _of_water([19.99, 1594.0, 3657.0], settings)
    reference = _of_water([1594.0, 3657.0, -1.0], settings)
    for name in ('entropies', 'internal_energies', 'heat_capacities', 'gibbs_energies', 'entropy_vibration'):
        assert getattr(with_low, name) == pytest.approx(getattr(reference, name), rel=1e-14), name
    assert with_low.n_excluded.tolist() == [1]
    assert _of_water([20.0, 1594.0, 3657.0], settings).n_excluded.tolist() == [0]


def test_imaginary_modes_never_count() -> None:
    """Not even without a cutoff, nor in quasi-RRHO; they are no modes that were excluded for being low."""
    settings = Settings((298.15,), low_frequency_cutoff=0.0)
    saddle = _of_water([-1500.0, 1594.0, 3657.0], settings)
    assert saddle.n_excluded.tolist() == [0]
    other = _of_water([-10.0, 1594.0, 3657.0], settings)
    assert saddle.gibbs_energies == pytest.approx(other.gibbs_energies, rel=1e-15)
    assert saddle.gibbs_energies_quasi_rrho == pytest.approx(other.gibbs_energies_quasi_rrho, rel=1e-15)
    zero = (1594.0 + 3657.0) / 2 * units.invcm
    cold = _of_water([-1500.0, 1594.0, 3657.0], Settings((0.01,), low_frequency_cutoff=0.0))
    assert cold.internal_energies[0, 0] == pytest.approx(-76.0 + zero + 3 * units.kB * 0.01, rel=1e-12)


def test_quasi_rrho_has_all_real_modes_and_does_not_jump_at_the_cutoff() -> None:
    """Its Gibbs energy is a smooth function of the wavenumber of a mode, and does not depend on the cutoff."""
    settings = Settings((298.15,), low_frequency_cutoff=20.0)
    below, above = (_of_water([wavenumber, 1594.0, 3657.0], settings) for wavenumber in (19.999, 20.001))
    assert above.gibbs_energies_quasi_rrho == pytest.approx(below.gibbs_energies_quasi_rrho, abs=1e-5)
    assert abs(above.gibbs_energies - below.gibbs_energies)[0, 0] > 2 * KT
    without = _of_water([19.999, 1594.0, 3657.0], Settings((298.15,), low_frequency_cutoff=0.0))
    assert without.gibbs_energies_quasi_rrho == pytest.approx(below.gibbs_energies_quasi_rrho, rel=1e-14)


def test_quasi_rrho_changes_the_entropy_of_vibration_alone() -> None:
    """Where all modes count, both Gibbs energies differ by T times the difference of both entropies (Grimme 2012)."""
    settings = Settings((298.15, 500.0), low_frequency_cutoff=0.0)
    gas = _of_water([40.0, 150.0, 3657.0], settings)
    difference = settings.kelvins * (gas.entropy_vibration - gas.entropy_vibration_quasi_rrho)
    assert difference[0, 0] > 0.003  # eV
    assert gas.gibbs_energies_quasi_rrho - gas.gibbs_energies == pytest.approx(difference, rel=1e-9)


def test_pressure_and_spin_and_symmetry() -> None:
    """G rises by kT ln p, falls by kT ln g, and rises by kT ln sigma."""
    analysis, frames = _water([1594.0, 3657.0, 3756.0]), FRAMES.select([0])

    def gibbs(pressure: float, symmetry: int, spin: int) -> float:
        molecules = Molecules.of(frames, analysis, symmetry, spin)
        return float(ideal_gas(molecules, Settings((298.15,), pressure)).gibbs_energies[0, 0])

    reference = gibbs(1e5, 1, 1)
    assert gibbs(1e6, 1, 1) - reference == pytest.approx(KT * np.log(10), rel=1e-9)
    assert gibbs(1e5, 2, 1) - reference == pytest.approx(KT * np.log(2), rel=1e-9)
    assert gibbs(1e5, 1, 3) - reference == pytest.approx(-KT * np.log(3), rel=1e-9)


def test_members_have_the_gibbs_energies_of_their_own_modes() -> None:
    """Each is what the formulas give with the energy and the modes of that member; their sample spread follows."""
    members = [[1590.0, 3650.0, 3750.0], [1600.0, 3660.0, 3760.0], [1592.0, 3661.0, 3758.0]]
    energies = np.array([[-76.01], [-75.99], [-76.0]])
    gas = _of_water(
        [1594.0, 3657.0, 3756.0],
        ALL_MODES,
        member_energies=energies,
        member_frequencies=np.array([[0.0] * 6 + modes for modes in members]),
    )
    assert gas.member_gibbs_energies is not None
    assert gas.gibbs_energy_std is not None
    for index, modes in enumerate(members):
        alone = _of_water(modes, ALL_MODES, energies=energies[index])
        assert gas.member_gibbs_energies[0, index] == pytest.approx(alone.gibbs_energies[0], rel=1e-13)
    spread = np.std(gas.member_gibbs_energies[0], axis=0, ddof=1)
    assert gas.gibbs_energy_std[0] == pytest.approx(spread, rel=1e-12)


def test_one_member_is_no_ensemble() -> None:
    """A model of one member has no spread."""
    modes = [1594.0, 3657.0, 3756.0]
    one = {'member_energies': np.array([[-76.0]]), 'member_frequencies': np.array([[0.0] * 6 + modes])}
    assert _of_water(modes, ALL_MODES, **one).member_gibbs_energies is None


@pytest.mark.parametrize('member', [19.0, 5.0, -30.0])
def test_a_mode_that_is_too_low_for_a_member_adds_no_spread(member: float) -> None:
    """A mode of 25 cm^-1 that is below the cutoff for one member, or imaginary, counts for all with that of the mean.

    So the spread does not depend on how far below the cutoff it is; the other modes have theirs as ever.
    """
    settings = Settings((298.15,), low_frequency_cutoff=20.0)
    frequencies = np.array([[0.0] * 6 + [low, high, 3657.0] for low, high in ((member, 1590.0), (30.0, 1600.0))])
    more = {'member_energies': np.full((2, 1), -76.0), 'member_frequencies': frequencies}
    gas = _of_water([25.0, 1594.0, 3657.0], settings, **more)
    assert gas.member_gibbs_energies is not None
    for index, high in enumerate((1590.0, 1600.0)):
        expected = _of_water([25.0, high, 3657.0], settings).gibbs_energies[0, 0]
        assert gas.member_gibbs_energies[0, index, 0] == pytest.approx(expected, rel=1e-14)


def test_which_modes_are_too_low() -> None:
    """Imaginary or below the cutoff for one member at least; at the cutoff a mode is not too low."""
    members = np.array([[-50.0, 20.0, 30.0, 400.0], [60.0, 25.0, 19.9, 500.0]])
    assert module.too_low(members, 20.0).tolist() == [True, False, True, False]
    found = module.comparable(np.array([40.0, 22.0, 24.0, 450.0]), members, 20.0)
    assert found.tolist() == [[40.0, 20.0, 24.0, 400.0], [40.0, 25.0, 24.0, 500.0]]


def test_a_mode_that_is_left_out_counts_for_no_member() -> None:
    """Below the cutoff for the mean, above it for a member: left out for all."""
    settings = Settings((298.15,), low_frequency_cutoff=20.0)
    frequencies = np.array([[0.0] * 6 + [low, 1594.0, 3657.0] for low in (15.0, 24.0)])
    more = {'member_energies': np.full((2, 1), -76.0), 'member_frequencies': frequencies}
    gas = _of_water([18.0, 1594.0, 3657.0], settings, **more)
    assert gas.gibbs_energy_std is not None
    assert gas.gibbs_energy_std[0, 0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize('member', [-3.0, 0.5 * module.MEMBER_FLOOR])
def test_without_a_cutoff_members_have_a_floor(member: float) -> None:
    """An imaginary mode of a member, or one next to zero, counts with the mean's where the cutoff is 0, too."""
    settings = Settings((298.15,), low_frequency_cutoff=0.0)
    frequencies = np.array([[0.0] * 6 + [low, 1594.0, 3657.0] for low in (member, 24.0)])
    more = {'member_energies': np.full((2, 1), -76.0), 'member_frequencies': frequencies}
    gas = _of_water([18.0, 1594.0, 3657.0], settings, **more)
    assert gas.member_gibbs_energies is not None
    assert gas.member_gibbs_energies[0, :, 0] == pytest.approx(np.full(2, gas.gibbs_energies[0, 0]), rel=1e-14)


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert set(one) == set(other)
    for name, values in one.items():
        assert values == pytest.approx(other[name], rel=1e-13, nan_ok=True), name


def test_blocks_give_what_all_at_once_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many frames are worked on in blocks, so that memory is bounded; the results are the same."""
    frames = FRAMES.select(np.arange(40) % len(FRAMES))
    once = _analysis()
    modes = np.split(once['frequencies'], 3 * FRAMES.offsets[1:-1])
    analysis = {name: np.tile(once[name], 8) for name in ('energies', 'n_rigid')}
    analysis['frequencies'] = np.concatenate(modes * 8)
    analysis['member_frequencies'] = np.stack([analysis['frequencies'], analysis['frequencies'] * 1.01])
    analysis['member_energies'] = np.stack([analysis['energies'], analysis['energies'] + 0.01])
    whole = thermochemistry_of(frames, analysis, ALL_MODES, SYMMETRY * 8, SPIN * 8)
    monkeypatch.setattr(module, '_BLOCK', 300)
    _same(whole, thermochemistry_of(frames, analysis, ALL_MODES, SYMMETRY * 8, SPIN * 8))
    assert np.isfinite(whole['gibbs_energies']).all()


def test_frames_without_results_get_no_numbers(gas: IdealGas) -> None:
    """A frame that failed, a crystal and an unknown symmetry number leave NaN and -1; the others do not mind."""
    crystal = bulk('Cu') * (2, 1, 1)
    frames = Frames.from_ase([*(_atoms(name) for name, *_ in SPECIES), crystal, molecule('H2O'), Atoms()])
    analysis = _analysis()
    analysis = {
        'energies': np.append(analysis['energies'], [-1.0, -76.0, np.nan]),
        'n_rigid': np.append(analysis['n_rigid'], [3, 6, -1]),
        'frequencies': np.append(analysis['frequencies'], [0, 0, 0, 90, 95, 100, *[0] * 6, 1594, 3657, 3756]),
    }
    analysis['frequencies'][1:9] = np.nan
    symmetry = np.array([*SYMMETRY, 1, 0, 1])
    arrays = thermochemistry_of(frames, analysis, ALL_MODES, symmetry, [*SPIN, 1, 1, 1])
    bad = [0, 5, 6, 7]
    for name, values in arrays.items():
        if QUANTITIES[name].integer:
            assert (values[bad] == -1).all(), name
        else:
            assert np.isnan(values[bad]).all(), name
        assert values[1:5] == pytest.approx(getattr(gas, name)[1:5], rel=1e-13), name


def test_nothing_to_do_gives_all_arrays() -> None:
    """Without a single sound frame the arrays are there, without numbers."""
    analysis = _analysis()
    analysis['n_rigid'][:] = -1
    arrays = thermochemistry_of(FRAMES, analysis, ALL_MODES, 1)
    assert arrays['gibbs_energies'].shape == (len(FRAMES), 3)
    assert np.isnan(arrays['gibbs_energies']).all()
    assert arrays['symmetry_numbers'].tolist() == [-1] * len(FRAMES)


def test_a_crystal_is_no_atom() -> None:
    """Its three translations are those of an atom, but it has more than one: the formulas must not be applied."""
    frames = Frames.from_ase([Atoms('H2', [(0, 0, 0), (0, 0, 0.74)])])
    analysis = {'energies': np.zeros(1), 'n_rigid': np.array([3]), 'frequencies': np.array([0, 0, 0, 90, 95, 100.0])}
    assert np.isnan(thermochemistry_of(frames, analysis, ALL_MODES, 1)['gibbs_energies']).all()


def test_which_frames_are_molecules() -> None:
    """Periodic ones are none; of the others the symmetry number must be known, unless they are atoms."""
    slab = molecule('H2O')
    slab.set_cell([5, 5, 5])
    slab.pbc = (True, False, False)
    frames = Frames.from_ase([molecule('H2O'), molecule('H2O'), Atoms('H'), slab])
    status = check_molecules(frames, [2, 0, 0, 0])
    assert status.tolist() == [
        FrameStatus.PENDING,
        FrameStatus.NO_SYMMETRY_NUMBER,
        FrameStatus.PENDING,
        FrameStatus.NOT_A_MOLECULE,
    ]
    assert check_molecules(frames, 1).tolist() == [FrameStatus.PENDING] * 3 + [FrameStatus.NOT_A_MOLECULE]
