"""The formulas of the ideal gas: translation, rigid rotors, harmonic oscillators, and Grimme's quasi-RRHO.

Equation numbers without a name are those of ``docs/topics/thermochemistry.md``, which has their sources. Energies are
in eV, entropies and heat capacities in eV/K, each for one molecule; the constants are those of CODATA 2014, as in ase.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from ase.data import atomic_masses
from ase.units import CODATA

from .frames import FloatArray, Frames, IntArray

#: J/K, J s, kg, m/s and C.
_K, _H, _AMU, _C, _E = (float(CODATA['2014'][name]) for name in ('_k', '_hplanck', '_amu', '_c', '_e'))
#: Boltzmann constant, eV/K.
BOLTZMANN = _K / _E
#: Energy of a wavenumber, eV cm.
WAVENUMBER = 100 * _C * _H / _E


class Part(NamedTuple):
    """What one kind of motion contributes.

    :ivar entropy: eV/K
    :ivar energy: thermal internal energy, without zero point, eV
    :ivar heat_capacity: at constant volume, eV/K
    """

    entropy: FloatArray
    energy: FloatArray
    heat_capacity: FloatArray


@dataclasses.dataclass(frozen=True)
class Settings:
    """The conditions, and how low modes are treated; a value without sense raises a :class:`ValueError`.

    :ivar temperatures: K, above zero
    :ivar gas_pressure: Pa, above zero
    :ivar low_frequency_cutoff: real modes below it, in cm^-1, are left out of all sums but those of quasi-RRHO
    :ivar free_rotor_wavenumber: where oscillator and free rotor count half each in quasi-RRHO, cm^-1
    :ivar free_rotor_inertia: moment of inertia that a free rotor cannot pass, kg m^2
    """

    temperatures: tuple[float, ...] = (298.15,)
    gas_pressure: float = 101325.0
    low_frequency_cutoff: float = 20.0
    free_rotor_wavenumber: float = 100.0
    free_rotor_inertia: float = 1e-44

    def __post_init__(self) -> None:
        """Refuse what the formulas have no value for."""
        if not self.temperatures or not all(0 < value < math.inf for value in self.temperatures):
            raise ValueError(f'temperatures = {list(self.temperatures)} must be one or more above 0 K')
        for name in ('gas_pressure', 'free_rotor_wavenumber', 'free_rotor_inertia'):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f'{name} = {getattr(self, name)} must be above 0')
        if not 0 <= self.low_frequency_cutoff < math.inf:
            raise ValueError(f'low_frequency_cutoff = {self.low_frequency_cutoff} must be 0 or more')

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Settings:
        """Return the settings in the parameters of a job."""
        return cls(
            tuple(float(value) for value in parameters['temperatures']),
            float(parameters['gas_pressure']),
            float(parameters['low_frequency_cutoff']),
        )

    @property
    def kelvins(self) -> FloatArray:
        """Return the temperatures, ``(t,)``, K."""
        return np.array(self.temperatures, dtype=np.float64)


def masses_of(frames: Frames) -> FloatArray:
    """Return the mass of each frame from standard atomic weights, ``(n,)``, amu."""
    weights = np.asarray(atomic_masses[frames.numbers], dtype=np.float64)
    return np.bincount(frames.frame_of_atom, weights, minlength=len(frames)).astype(np.float64)


def moments_of_inertia(frames: Frames) -> FloatArray:
    """Return the principal moments of inertia of each frame, ascending, ``(n, 3)``, amu angstrom^2.

    :param frames: molecules of one atom or more
    :source: eq. 6
    """
    masses, owner, total = atomic_masses[frames.numbers], frames.frame_of_atom, masses_of(frames)
    centers = np.zeros((len(frames), 3))
    np.add.at(centers, owner, masses[:, None] * frames.positions)
    x = frames.positions - (centers / total[:, None])[owner]
    tensors = np.zeros((len(frames), 3, 3))
    square = np.einsum('ai,ai->a', x, x)[:, None, None] * np.eye(3)
    np.add.at(tensors, owner, masses[:, None, None] * (square - x[:, :, None] * x[:, None, :]))
    return np.asarray(np.maximum(np.linalg.eigvalsh(tensors), 0.0))


def translation(masses: FloatArray, temperatures: FloatArray, pressure: float) -> Part:
    """Return what translation contributes (Sackur and Tetrode), ``(n, t)`` each.

    :param masses: ``(n,)``, amu
    :param temperatures: ``(t,)``, K
    :param pressure: Pa
    :source: eqs. 2 to 4
    """
    per_square_meter = np.log(2 * np.pi * masses * _AMU * _K / _H**2)[:, None] + np.log(temperatures)
    entropy = BOLTZMANN * (1.5 * per_square_meter + np.log(_K / pressure) + np.log(temperatures) + 2.5)
    return Part(entropy, *_classical(np.full(len(masses), 3), temperatures))


def rotation(moments: FloatArray, n_rigid: IntArray, symmetry_numbers: IntArray, temperatures: FloatArray) -> Part:
    """Return what the rotation of rigid molecules contributes in the classical limit, ``(n, t)`` each.

    Atoms do not rotate. Of a linear molecule the largest moment counts, of any other all three.

    :param moments: principal moments of inertia, ascending, ``(n, 3)``, amu angstrom^2
    :param n_rigid: 3 for an atom, 5 for a linear molecule, 6 for any other, ``(n,)``
    :param symmetry_numbers: 1 or more, ``(n,)``; of no meaning for atoms
    :param temperatures: ``(t,)``, K
    :source: eqs. 7 to 9
    """
    linear, bent = np.equal(n_rigid, 5), np.equal(n_rigid, 6)
    if not np.all(linear | bent | np.equal(n_rigid, 3)):
        raise ValueError(f'n_rigid must be 3, 5 or 6 for each molecule, found {sorted(set(np.ravel(n_rigid)))}')
    moving = linear | bent
    # Each factor is the square root of what it stands for: a linear molecule has the one of its largest moment twice.
    weights = np.outer(linear, (0, 0, 2)) + np.outer(bent, (1, 1, 1))
    logs = np.log(8 * np.pi**2 * _K * _AMU * 1e-20 / _H**2 * np.where(weights > 0, moments, 1.0))
    constant = 0.5 * np.sum(weights * logs, axis=1) + 0.5 * np.log(np.pi) * bent
    constant -= np.log(np.where(moving, symmetry_numbers, 1))
    freedoms = weights.sum(axis=1)
    entropy = BOLTZMANN * (constant[:, None] + 0.5 * freedoms[:, None] * (np.log(temperatures) + 1))
    return Part(entropy, *_classical(freedoms, temperatures))


def _classical(freedoms: npt.NDArray[Any], temperatures: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return energy and heat capacity, ``(n, t)``, of motions with kT/2 for each degree of freedom."""
    capacity = np.repeat(0.5 * BOLTZMANN * freedoms[:, None], len(temperatures), axis=1)
    return capacity * temperatures, capacity


def electronic_entropy(spin_multiplicities: IntArray) -> FloatArray:
    """Return the entropy of the spin, ``(n,)``, eV/K; excited states do not count.

    :param spin_multiplicities: 1 for singlets, 2 for doublets, ..., ``(n,)``
    :source: eq. 10
    """
    return np.asarray(BOLTZMANN * np.log(spin_multiplicities))


def zero_point_energy(wavenumbers: FloatArray) -> FloatArray:
    """Return the zero-point energy of oscillators, eV.

    :param wavenumbers: of real modes, any shape, cm^-1
    :source: eq. 11
    """
    return np.asarray(0.5 * WAVENUMBER * wavenumbers)


def vibration(wavenumbers: FloatArray, temperatures: FloatArray) -> Part:
    """Return what each harmonic oscillator contributes, ``(..., t)`` each; no mode is too high or too low for it.

    :param wavenumbers: of real modes, above zero, any shape, cm^-1
    :param temperatures: ``(t,)``, K
    :source: eqs. 12 to 14
    """
    x = WAVENUMBER * wavenumbers[..., None] / (BOLTZMANN * temperatures)
    # In terms of exp(-x), which does not overflow, and of expm1, which keeps the digits of low modes.
    missing = -np.expm1(-x)
    quanta = np.exp(-x) / missing
    return Part(
        entropy=BOLTZMANN * (x * quanta - np.log(missing)),
        energy=BOLTZMANN * temperatures * x * quanta,
        heat_capacity=BOLTZMANN * x**2 * quanta / missing,
    )


def free_rotor_entropy(wavenumbers: FloatArray, temperatures: FloatArray, inertia: float = 1e-44) -> FloatArray:
    """Return the entropy of free rotors with the wavenumbers of given modes, ``(..., t)``, eV/K.

    :param wavenumbers: above zero, any shape, cm^-1
    :param temperatures: ``(t,)``, K
    :param inertia: limit of the moments of inertia of slow rotors, kg m^2
    :source: eqs. 21 to 23; Grimme, Chem. Eur. J. 18 (2012) 9955, eqs. 4 to 6, doi:10.1002/chem.201200497
    """
    own = _H / (8 * np.pi**2 * 100 * _C * wavenumbers)
    effective = own * inertia / (own + inertia)
    ratio = np.log(8 * np.pi**3 * _K * effective / _H**2)[..., None] + np.log(temperatures)
    return np.asarray(BOLTZMANN * 0.5 * (1 + ratio))


def oscillator_weight(wavenumbers: FloatArray, half: float = 100.0) -> FloatArray:
    """Return by how much a mode is an oscillator and not a free rotor: 1 for high ones, 0 for low ones.

    :param wavenumbers: above zero, any shape, cm^-1
    :param half: wavenumber of a mode that is half of each, cm^-1
    :source: eq. 20; Grimme, Chem. Eur. J. 18 (2012) 9955, eq. 8, doi:10.1002/chem.201200497
    """
    ratio = (wavenumbers / half) ** 4
    return np.asarray(ratio / (1 + ratio))


def quasi_rrho_entropy(wavenumbers: FloatArray, settings: Settings) -> FloatArray:
    """Return the entropy of each mode between oscillator and free rotor, ``(..., t)``, eV/K.

    :param wavenumbers: of real modes, above zero, any shape, cm^-1
    :source: eq. 19; Grimme, Chem. Eur. J. 18 (2012) 9955, eq. 7, doi:10.1002/chem.201200497
    """
    weight = oscillator_weight(wavenumbers, settings.free_rotor_wavenumber)[..., None]
    rotor = free_rotor_entropy(wavenumbers, settings.kelvins, settings.free_rotor_inertia)
    return np.asarray(weight * vibration(wavenumbers, settings.kelvins).entropy + (1 - weight) * rotor)
