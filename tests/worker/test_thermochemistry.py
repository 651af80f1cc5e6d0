"""The formulas of the ideal gas, against ASE, against measured entropies, and at their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.thermochemistry import HarmonicMode, IdealGasThermo, RRHOMode

from aiida_mlpotential.worker import thermochemistry
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.thermochemistry import Settings
from aiida_mlpotential.worker.units import KJ_PER_MOL

ROOM = np.array([298.15])
BAR = 1e5
#: J/mol/K for one eV/K.
MOLAR = 1000 / KJ_PER_MOL


def _ase(atoms: Atoms, geometry: str, symmetry: int = 1) -> IdealGasThermo:
    return IdealGasThermo([], geometry, atoms=atoms, symmetrynumber=symmetry, spin=0.0, vib_selection='all')


def test_constants_are_those_of_ase_and_of_the_package() -> None:
    """Numbers can be compared with ASE's to the last digits because the constants are of the same year."""
    assert units.__codata_version__ == '2014'
    assert pytest.approx(units.kB, rel=1e-15) == thermochemistry.BOLTZMANN
    assert pytest.approx(units.invcm, rel=1e-15) == thermochemistry.WAVENUMBER


@pytest.mark.parametrize('name', ['Ar', 'H2', 'CO2', 'H2O', 'C6H6', 'CH3CH2OH'])
@pytest.mark.parametrize('pressure', [BAR, 101325.0, 1.0])
def test_translation_is_that_of_ase(name: str, pressure: float) -> None:
    """Entropy and energy of translation, at several temperatures in one call."""
    temperatures = np.array([5.0, 298.15, 2000.0])
    atoms = Atoms('Ar') if name == 'Ar' else molecule(name)
    part = thermochemistry.translation(np.array([atoms.get_masses().sum()]), temperatures, pressure)
    thermo = _ase(atoms, 'nonlinear')
    for index, temperature in enumerate(temperatures):
        _, parts = thermo.get_ideal_entropy(temperature, translation=True, pressure=pressure)
        assert part.entropy[0, index] == pytest.approx(parts['S_t'] + parts['S_p'], rel=1e-12)
        assert part.energy[0, index] == pytest.approx(thermo.get_ideal_translational_energy(temperature), rel=1e-14)
        assert part.heat_capacity[0, index] == pytest.approx(1.5 * units.kB, rel=1e-14)


@pytest.mark.parametrize(
    ('name', 'geometry', 'n_rigid', 'symmetry'),
    [('H2O', 'nonlinear', 6, 2), ('C6H6', 'nonlinear', 6, 12), ('CO2', 'linear', 5, 2), ('HCN', 'linear', 5, 1)],
)
def test_rotation_is_that_of_ase(name: str, geometry: str, n_rigid: int, symmetry: int) -> None:
    """Linear molecules have two rotations, others three; the symmetry number divides the states."""
    atoms = molecule(name)
    atoms.rotate(31, (1, 2, 3))
    temperatures = np.array([50.0, 298.15])
    moments = thermochemistry.moments_of_inertia(Frames.from_ase([atoms]))
    part = thermochemistry.rotation(moments, np.array([n_rigid]), np.array([symmetry]), temperatures)
    thermo = _ase(atoms, geometry, symmetry)
    for index, temperature in enumerate(temperatures):
        _, parts = thermo.get_ideal_entropy(temperature, rotation=True, geometry=geometry, symmetrynumber=symmetry)
        assert part.entropy[0, index] == pytest.approx(parts['S_r'], rel=1e-12)
        energy = thermo.get_ideal_rotational_energy(geometry, temperature)
        assert part.energy[0, index] == pytest.approx(energy, rel=1e-14)
        assert part.heat_capacity[0, index] == pytest.approx(energy / temperature, rel=1e-14)


def test_atoms_do_not_rotate() -> None:
    """Not even with the symmetry number 0, which says that nobody knows it."""
    part = thermochemistry.rotation(np.zeros((1, 3)), np.array([3]), np.array([0]), ROOM)
    assert [values.tolist() for values in part] == [[[0.0]]] * 3


def test_of_a_linear_molecule_the_largest_moment_counts() -> None:
    """As in ASE: of one that is nearly linear both others differ a little, and the smallest is not quite zero."""
    moments = np.array([[0.01, 43.1, 43.3], [0.0, 43.3, 43.3]])
    part = thermochemistry.rotation(moments, np.array([5, 5]), np.array([1, 1]), ROOM)
    assert part.entropy[0, 0] == part.entropy[1, 0]


def test_rotation_refuses_what_no_molecule_has() -> None:
    """Four translations and rotations would be a mistake of the caller."""
    with pytest.raises(ValueError, match='n_rigid must be 3, 5 or 6'):
        thermochemistry.rotation(np.ones((2, 3)), np.array([6, 4]), np.array([1, 1]), ROOM)


def test_moments_of_inertia_are_those_of_ase() -> None:
    """Of many frames at once, wherever they are and however they are turned; an atom has none."""
    structures = [molecule('H2O'), Atoms('H'), molecule('CO2'), molecule('C6H6'), molecule('CH3CH2OH')]
    for index, atoms in enumerate(structures):
        atoms.rotate(20 * index, (1, 2, 3))
        atoms.translate((index, -3, 5))
    frames = Frames.from_ase(structures)
    expected = [atoms.get_moments_of_inertia() for atoms in structures]
    assert thermochemistry.moments_of_inertia(frames) == pytest.approx(np.array(expected), abs=1e-9)
    assert thermochemistry.masses_of(frames) == pytest.approx([atoms.get_masses().sum() for atoms in structures])


def test_no_moment_of_inertia_is_negative() -> None:
    """The one along the axis of a linear molecule is zero: rounding must not take it below, however it is turned."""
    structures = [molecule('CO2') for _ in range(200)]
    for index, atoms in enumerate(structures):
        atoms.rotate(1.7 * index, (1, 2, 3))
    moments = thermochemistry.moments_of_inertia(Frames.from_ase(structures))
    assert moments[:, 0].min() >= 0
    assert moments[:, 0].max() < 1e-12
    assert np.ptp(moments[:, 1:]) < 1e-12


def test_vibration_is_that_of_ase() -> None:
    """Entropy, thermal energy and zero point of each mode, at every temperature."""
    wavenumbers, temperatures = np.array([5.0, 50.0, 500.0, 3500.0]), np.array([150.0, 298.15, 1000.0])
    part = thermochemistry.vibration(wavenumbers, temperatures)
    zero = thermochemistry.zero_point_energy(wavenumbers)
    assert part.entropy.shape == (4, 3)
    for row, wavenumber in enumerate(wavenumbers):
        mode = HarmonicMode(wavenumber * units.invcm)
        assert zero[row] == pytest.approx(mode.get_ZPE_correction(), rel=1e-14)
        for column, temperature in enumerate(temperatures):
            entropy, energy = part.entropy[row, column], part.energy[row, column]
            assert entropy == pytest.approx(mode.get_vib_entropy_contribution(temperature), rel=1e-9)
            assert energy == pytest.approx(mode.get_vib_energy_contribution(temperature), rel=1e-9)


def test_heat_capacity_is_the_slope_of_the_energy() -> None:
    """The formula of the heat capacity agrees with the difference of energies, and dS = Cv dT / T."""
    wavenumbers, step = np.array([10.0, 300.0, 1500.0]), 0.01
    below, at, above = (
        thermochemistry.vibration(wavenumbers, np.array([temperature])) for temperature in (400 - step, 400, 400 + step)
    )
    assert (above.energy - below.energy) / (2 * step) == pytest.approx(at.heat_capacity, rel=1e-7)
    assert (above.entropy - below.entropy) / (2 * step) * 400 == pytest.approx(at.heat_capacity, rel=1e-7)


def test_members_and_temperatures_in_one_call() -> None:
    """Wavenumbers of any shape: here those of three members of two modes."""
    wavenumbers = np.array([[100.0, 200.0], [110.0, 190.0], [90.0, 210.0]])
    part = thermochemistry.vibration(wavenumbers, np.array([100.0, 300.0]))
    assert part.entropy.shape == (3, 2, 2)
    assert part.entropy[1, 1] == pytest.approx(
        thermochemistry.vibration(wavenumbers[1], np.array([100, 300])).entropy[1]
    )


@pytest.mark.filterwarnings('error')
def test_no_mode_is_too_high_or_too_low() -> None:
    """A high mode is frozen, a low one classical: S = k (1 + ln(kT/hv)), U = kT; nothing overflows on the way."""
    cold = thermochemistry.vibration(np.array([4000.0]), np.array([0.01]))
    assert [float(values[0, 0]) for values in cold] == [0.0, 0.0, 0.0]
    low = 1e-9
    warm = thermochemistry.vibration(np.array([low]), ROOM)
    ratio = units.kB * 298.15 / (low * units.invcm)
    assert warm.entropy[0, 0] == pytest.approx(units.kB * (1 + math.log(ratio)), rel=1e-8)
    assert warm.energy[0, 0] == pytest.approx(units.kB * 298.15, rel=1e-8)
    assert warm.heat_capacity[0, 0] == pytest.approx(units.kB, rel=1e-8)
    assert np.isfinite(thermochemistry.quasi_rrho_entropy(np.array([low, 1e-3, 4000.0]), Settings())).all()


def test_electronic_entropy() -> None:
    """Singlets have none, doublets k ln 2."""
    assert thermochemistry.electronic_entropy(np.array([1, 2, 3])) == pytest.approx(units.kB * np.log([1, 2, 3]))


def _rotational_moments(constants: list[float]) -> np.ndarray:
    """Return moments of inertia, amu angstrom^2, from rotational constants in cm^-1, ascending."""
    si = units._hplanck / (8 * np.pi**2 * 100 * units._c * np.array(constants))
    return np.array([[0.0] * (3 - len(constants)) + sorted(si / units._amu * 1e20)])


#: Mass (amu), rotational constants B0 (cm^-1), symmetry number, fundamentals (cm^-1), spin multiplicity, and the
#: standard entropy at 298.15 K and 1 bar in J/mol/K (NIST-JANAF tables; that of a classical rotor misses 0.13 at most).
MEASURED = {
    'Ar': (39.948, [], 1, [], 1, 154.85),
    'H': (1.00794, [], 1, [], 2, 114.72),
    'N2': (28.0134, [1.98958] * 2, 2, [2329.9], 1, 191.61),
    'O2': (31.9988, [1.43768] * 2, 2, [1556.4], 3, 205.15),
    'CO2': (44.0095, [0.39022] * 2, 2, [667.38, 667.38, 1388.15, 2349.16], 1, 213.79),
    'H2O': (18.01528, [27.8806, 14.5216, 9.2778], 2, [3657.05, 1594.75, 3755.93], 1, 188.84),
    'NH3': (17.0305, [9.9443, 9.9443, 6.196], 3, [3337, 950, 3444, 3444, 1627, 1627], 1, 192.77),
    'CH4': (16.0425, [5.2412] * 3, 12, [2917, 1534, 1534, 3019, 3019, 3019, 1306, 1306, 1306], 1, 186.25),
}


@pytest.mark.parametrize('name', MEASURED)
def test_entropies_are_those_measured(name: str) -> None:
    """From measured rotational constants and fundamentals the sum of all parts is the tabulated entropy."""
    mass, constants, symmetry, wavenumbers, multiplicity, expected = MEASURED[name]
    moments = _rotational_moments(constants) if constants else np.zeros((1, 3))
    n_rigid = {0: 3, 2: 5, 3: 6}[len(constants)]
    entropy = (
        thermochemistry.translation(np.array([mass]), ROOM, BAR).entropy[0, 0]
        + thermochemistry.rotation(moments, np.array([n_rigid]), np.array([symmetry]), ROOM).entropy[0, 0]
        + thermochemistry.electronic_entropy(np.array([multiplicity]))[0]
        + thermochemistry.vibration(np.array(wavenumbers, dtype=float), ROOM).entropy.sum()
    )
    assert entropy * MOLAR == pytest.approx(expected, abs=0.01 if n_rigid == 3 else 0.13)


@pytest.mark.parametrize('tau', [35.0, 100.0])
def test_quasi_rrho_is_that_of_ase(tau: float) -> None:
    """With the same mean moment of inertia and the same wavenumber of equal weights."""
    wavenumbers, mean = np.array([3.0, 20.0, 80.0, 100.0, 300.0, 3000.0]), 60.2
    settings = Settings((200.0, 298.15), free_rotor_wavenumber=tau, free_rotor_inertia=mean * units._amu * 1e-20)
    entropies = thermochemistry.quasi_rrho_entropy(wavenumbers, settings)
    for row, wavenumber in enumerate(wavenumbers):
        mode = RRHOMode(wavenumber * units.invcm, mean, tau=tau)
        for column, temperature in enumerate(settings.temperatures):
            expected = mode.get_entropy(temperature, contributions=False)
            assert entropies[row, column] == pytest.approx(expected, rel=1e-9)


def test_free_rotor_has_the_entropy_of_its_equation() -> None:
    """Grimme's eqs. 4 to 6 in numbers: 50 cm^-1 at 298.15 K, with Bav = 1e-44 kg m^2."""
    frequency = 50 * 100 * 299792458.0
    own = 6.62607004e-34 / (8 * math.pi**2 * frequency)
    effective = own * 1e-44 / (own + 1e-44)
    ratio = 8 * math.pi**3 * effective * 1.38064852e-23 * 298.15 / 6.62607004e-34**2
    entropy = thermochemistry.free_rotor_entropy(np.array([50.0]), ROOM)
    assert entropy[0, 0] * MOLAR == pytest.approx(8.3144598 * (0.5 + math.log(math.sqrt(ratio))), rel=1e-7)


def test_free_rotors_are_bounded_and_oscillators_are_not() -> None:
    """Far below 0.03 cm^-1 the limit of the moment of inertia holds, and the entropy of the rotor no longer rises."""
    low = np.array([1e-6, 1e-9])
    rotor = thermochemistry.free_rotor_entropy(low, ROOM)[:, 0]
    assert rotor[0] == pytest.approx(rotor[1], rel=1e-5)
    assert thermochemistry.quasi_rrho_entropy(low, Settings())[:, 0] == pytest.approx(rotor, rel=1e-9)
    oscillator = thermochemistry.vibration(low, ROOM).entropy[:, 0]
    assert oscillator[1] - oscillator[0] == pytest.approx(units.kB * math.log(1000), rel=1e-6)


def test_weight_of_the_oscillator() -> None:
    """A half at 100 cm^-1; 16/17 at twice that; 0 and 1 at the ends."""
    weights = thermochemistry.oscillator_weight(np.array([1e-9, 50.0, 100.0, 200.0, 4000.0]))
    assert weights == pytest.approx([0.0, 1 / 17, 0.5, 16 / 17, 1.0], abs=1e-6)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'temperatures': ()}, 'temperatures'),
        ({'temperatures': (298.15, 0.0)}, 'above 0 K'),
        ({'temperatures': (-5.0,)}, 'above 0 K'),
        ({'temperatures': (math.inf,)}, 'above 0 K'),
        ({'temperatures': (math.nan,)}, 'above 0 K'),
        ({'gas_pressure': 0.0}, 'gas_pressure = 0.0 must be above 0'),
        ({'gas_pressure': -1.0}, 'gas_pressure'),
        ({'low_frequency_cutoff': -1.0}, 'low_frequency_cutoff'),
        ({'free_rotor_wavenumber': 0.0}, 'free_rotor_wavenumber'),
        ({'free_rotor_inertia': math.nan}, 'free_rotor_inertia'),
    ],
)
def test_settings_without_sense_are_refused(values: dict[str, object], message: str) -> None:
    """There is no gas at zero temperature or pressure."""
    with pytest.raises(ValueError, match=message):
        Settings(**values)  # type: ignore[arg-type]


def test_settings_of_a_job() -> None:
    """The parameters of a job become settings; what it does not ask for is as Grimme has it."""
    parameters = {'temperatures': [300, 400], 'gas_pressure': 1e5, 'low_frequency_cutoff': 0, 'properties': ['energy']}
    settings = Settings.of(parameters)
    assert settings == Settings((300.0, 400.0), 1e5, 0.0, 100.0, 1e-44)
    assert settings.kelvins.tolist() == [300.0, 400.0]
