"""Thermochemistry of many molecules at once: from the results of a vibrational analysis to Gibbs energies.

The formulas are in ``thermochemistry.py``; equation numbers are those of ``docs/topics/thermochemistry.md``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import FrameStatus
from .frames import BoolArray, FloatArray, Frames, IntArray
from .quantities import QUANTITIES
from .statistics import sample_std
from .storage import dtype_of
from .thermochemistry import (
    BOLTZMANN,
    Part,
    Settings,
    electronic_entropy,
    masses_of,
    moments_of_inertia,
    quasi_rrho_entropy,
    rotation,
    translation,
    vibration,
    zero_point_energy,
)

Array = npt.NDArray[Any]

#: Wavenumber, cm^-1, below which a mode of a member is too low to be compared, also where the cutoff is lower.
MEMBER_FLOOR = 1.0
#: About so many numbers (modes times temperatures times members) are worked on at once.
_BLOCK = 1_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Molecules:
    """What the formulas need to know of n molecules with K vibrations in all.

    :ivar energies: potential energies, ``(n,)``, eV
    :ivar masses: ``(n,)``, amu
    :ivar moments_of_inertia: principal ones, ascending, ``(n, 3)``, amu angstrom^2
    :ivar n_rigid: translations and rotations: 3 for an atom, 5 for a linear molecule, 6 for any other, ``(n,)``
    :ivar symmetry_numbers: ``(n,)``, of no meaning for atoms
    :ivar spin_multiplicities: ``(n,)``
    :ivar wavenumbers: of the vibrations, imaginary ones negative, ``(K,)``, cm^-1
    :ivar owners: the molecule of each vibration, ``(K,)``
    :ivar member_energies: ``(m, n)``, eV, or ``None`` without an ensemble
    :ivar member_wavenumbers: ``(m, K)``, cm^-1, or ``None``
    """

    energies: FloatArray
    masses: FloatArray
    moments_of_inertia: FloatArray
    n_rigid: IntArray
    symmetry_numbers: IntArray
    spin_multiplicities: IntArray
    wavenumbers: FloatArray
    owners: IntArray
    member_energies: FloatArray | None = None
    member_wavenumbers: FloatArray | None = None

    @classmethod
    def of(
        cls,
        frames: Frames,
        arrays: Mapping[str, Array],
        symmetry_numbers: npt.ArrayLike,
        spin_multiplicities: npt.ArrayLike = 1,
    ) -> Molecules:
        """Return the molecules of frames, none of which may be empty, with the results of their vibrational analysis.

        :param arrays: ``energies``, ``frequencies`` and ``n_rigid``; of an ensemble also ``member_energies`` and
            ``member_frequencies``; in the shapes that ``QUANTITIES`` says
        :param symmetry_numbers: one for all or one for each
        :param spin_multiplicities: one for all or one for each
        """
        n_rigid = np.asarray(arrays['n_rigid'], dtype=np.int64)
        owners = np.repeat(np.arange(len(frames)), 3 * frames.counts)
        vibrations = np.arange(3 * frames.n_atoms) - 3 * frames.offsets[owners] >= n_rigid[owners]
        molecules = cls(
            energies=np.asarray(arrays['energies'], dtype=np.float64),
            masses=masses_of(frames),
            moments_of_inertia=moments_of_inertia(frames),
            n_rigid=n_rigid,
            symmetry_numbers=np.broadcast_to(np.asarray(symmetry_numbers, dtype=np.int64), len(frames)),
            spin_multiplicities=np.broadcast_to(np.asarray(spin_multiplicities, dtype=np.int64), len(frames)),
            wavenumbers=np.asarray(arrays['frequencies'], dtype=np.float64)[vibrations],
            owners=owners[vibrations],
        )
        if 'member_frequencies' not in arrays or len(arrays['member_frequencies']) < 2:
            return molecules
        return dataclasses.replace(
            molecules,
            member_energies=np.asarray(arrays['member_energies'], dtype=np.float64),
            member_wavenumbers=np.asarray(arrays['member_frequencies'], dtype=np.float64)[:, vibrations],
        )

    def __len__(self) -> int:
        return len(self.energies)

    @property
    def real(self) -> BoolArray:
        """Return which vibrations are real, ``(K,)``."""
        return self.wavenumbers > 0

    def counted(self, cutoff: float) -> BoolArray:
        """Return which vibrations are real and not below a wavenumber (cm^-1), ``(K,)``."""
        return self.real & (self.wavenumbers >= cutoff)

    def member_modes(self, cutoff: float) -> FloatArray:
        """Return the wavenumbers that the counted vibrations have for each member, ``(m, number of counted)``."""
        if self.member_wavenumbers is None:
            return np.zeros((0, int(self.counted(cutoff).sum())))
        counted = self.counted(cutoff)
        return comparable(self.wavenumbers[counted], self.member_wavenumbers[:, counted], cutoff)

    def total(self, chosen: BoolArray, values: FloatArray) -> FloatArray:
        """Return sums over the vibrations of each molecule, ``(n, ...)``.

        :param chosen: the vibrations to sum over, ``(K,)``
        :param values: of these, ``(number of them, ...)``
        """
        sums = np.zeros((len(self), *values.shape[1:]))
        np.add.at(sums, self.owners[chosen], values)
        return sums


def too_low(member_wavenumbers: FloatArray, cutoff: float) -> BoolArray:
    """Return which modes are imaginary or too low for at least one member, ``(K,)``.

    :param member_wavenumbers: ``(m, K)``, cm^-1, imaginary ones negative
    :param cutoff: cm^-1
    """
    return np.asarray((member_wavenumbers < max(cutoff, MEMBER_FLOOR)).any(axis=0))


def comparable(wavenumbers: FloatArray, member_wavenumbers: FloatArray, cutoff: float) -> FloatArray:
    """Return the wavenumbers with which modes count for each member, ``(m, K)``, cm^-1.

    They are the member's own. A mode that is imaginary or too low for one of the members counts for all of them with
    the wavenumber of the mean, and so adds nothing to their spread: how low a soft mode of a single member is, where
    that member is not at its minimum, does not say how low it is at the minimum.

    :param wavenumbers: of the mean, of modes that count, ``(K,)``, cm^-1
    :param member_wavenumbers: ``(m, K)``, cm^-1, imaginary ones negative
    :param cutoff: cm^-1
    """
    return np.where(too_low(member_wavenumbers, cutoff), wavenumbers, member_wavenumbers)


@dataclasses.dataclass(frozen=True, eq=False)
class IdealGas:
    """The results for n molecules at t temperatures, by the names in ``QUANTITIES``; shape ``(n, t)`` unless said.

    :ivar symmetry_numbers: ``(n,)``
    :ivar n_excluded: real modes below the cutoff, ``(n,)``
    :ivar moments_of_inertia: ``(n, 3)``, amu angstrom^2
    :ivar member_gibbs_energies: ``(n, m, t)``, or ``None`` without an ensemble
    :ivar gibbs_energy_std: ``None`` without an ensemble
    """

    symmetry_numbers: IntArray
    n_excluded: IntArray
    moments_of_inertia: FloatArray
    entropy_translation: FloatArray
    entropy_rotation: FloatArray
    entropy_vibration: FloatArray
    entropy_electronic: FloatArray
    entropies: FloatArray
    internal_energy_translation: FloatArray
    internal_energy_rotation: FloatArray
    internal_energy_vibration: FloatArray
    internal_energies: FloatArray
    heat_capacity_translation: FloatArray
    heat_capacity_rotation: FloatArray
    heat_capacity_vibration: FloatArray
    heat_capacities: FloatArray
    enthalpies: FloatArray
    gibbs_energies: FloatArray
    entropy_vibration_quasi_rrho: FloatArray
    gibbs_energies_quasi_rrho: FloatArray
    member_gibbs_energies: FloatArray | None = None
    gibbs_energy_std: FloatArray | None = None

    def arrays(self) -> dict[str, Array]:
        """Return the arrays that there are, by name."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: values for name, values in named.items() if values is not None}


def ideal_gas(molecules: Molecules, settings: Settings) -> IdealGas:
    """Return the thermochemistry of molecules, all at once.

    Imaginary modes never count. Real ones below the cutoff count in quasi-RRHO only, there with all they contribute.

    :source: eqs. 1 and 15 to 18; eq. 24 for quasi-RRHO
    """
    temperatures = settings.kelvins
    moved = translation(molecules.masses, temperatures, settings.gas_pressure)
    turned = rotation(molecules.moments_of_inertia, molecules.n_rigid, molecules.symmetry_numbers, temperatures)
    spin = np.repeat(electronic_entropy(molecules.spin_multiplicities)[:, None], len(temperatures), axis=1)
    real, counted = molecules.real, molecules.counted(settings.low_frequency_cutoff)
    vibrated, zero = _vibrations(molecules, counted, temperatures)
    # What all Gibbs energies share: H and S of everything but the vibrations.
    enthalpy = molecules.energies[:, None] + moved.energy + turned.energy + BOLTZMANN * temperatures
    entropy = moved.entropy + turned.entropy + spin
    enthalpies, entropies = enthalpy + zero + vibrated.energy, entropy + vibrated.entropy
    every, zero_of_every = _vibrations(molecules, real, temperatures)
    interpolated = molecules.total(real, quasi_rrho_entropy(molecules.wavenumbers[real], settings))
    members = _members(molecules, enthalpy - temperatures * entropy, settings)
    return IdealGas(
        symmetry_numbers=np.array(molecules.symmetry_numbers),
        n_excluded=np.bincount(molecules.owners[real & ~counted], minlength=len(molecules)),
        moments_of_inertia=molecules.moments_of_inertia,
        entropy_translation=moved.entropy,
        entropy_rotation=turned.entropy,
        entropy_vibration=vibrated.entropy,
        entropy_electronic=spin,
        entropies=entropies,
        internal_energy_translation=moved.energy,
        internal_energy_rotation=turned.energy,
        internal_energy_vibration=vibrated.energy,
        internal_energies=enthalpies - BOLTZMANN * temperatures,
        heat_capacity_translation=moved.heat_capacity,
        heat_capacity_rotation=turned.heat_capacity,
        heat_capacity_vibration=vibrated.heat_capacity,
        heat_capacities=moved.heat_capacity + turned.heat_capacity + vibrated.heat_capacity,
        enthalpies=enthalpies,
        gibbs_energies=enthalpies - temperatures * entropies,
        entropy_vibration_quasi_rrho=interpolated,
        gibbs_energies_quasi_rrho=enthalpy + zero_of_every + every.energy - temperatures * (entropy + interpolated),
        member_gibbs_energies=members,
        gibbs_energy_std=None if members is None else sample_std(np.moveaxis(members, 1, 0)),
    )


def _vibrations(molecules: Molecules, chosen: BoolArray, temperatures: FloatArray) -> tuple[Part, FloatArray]:
    """Return what the chosen vibrations of each molecule contribute, ``(n, t)``, and their zero point, ``(n, 1)``."""
    wavenumbers = molecules.wavenumbers[chosen]
    parts = Part(*(molecules.total(chosen, values) for values in vibration(wavenumbers, temperatures)))
    return parts, molecules.total(chosen, zero_point_energy(wavenumbers))[:, None]


def _members(molecules: Molecules, rest: FloatArray, settings: Settings) -> FloatArray | None:
    """Return the Gibbs energy of every member, ``(n, m, t)``, or ``None`` without an ensemble.

    The same modes count for all members: those that count for their mean, with the wavenumbers of :func:`comparable`.

    :param rest: Gibbs energy without the vibrations, ``(n, t)``
    :source: eq. 25
    """
    if molecules.member_energies is None or molecules.member_wavenumbers is None:
        return None
    temperatures, cutoff = settings.kelvins, settings.low_frequency_cutoff
    counted = molecules.counted(cutoff)
    wavenumbers = molecules.member_modes(cutoff).T
    part = vibration(wavenumbers, temperatures)
    free = zero_point_energy(wavenumbers)[..., None] + part.energy - temperatures * part.entropy
    difference = (molecules.member_energies - molecules.energies).T[..., None]
    return np.asarray(rest[:, None] + difference + molecules.total(counted, free))


def check_molecules(frames: Frames, symmetry_numbers: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """Return the status of every frame, ``(n,)``: ``PENDING`` where nothing speaks against its thermochemistry.

    :param symmetry_numbers: one for all or one for each, 0 where it is unknown
    """
    status = np.full(len(frames), FrameStatus.PENDING, dtype=np.int8)
    unknown = np.broadcast_to(np.asarray(symmetry_numbers), len(frames)) < 1
    status[unknown & (frames.counts > 1)] = FrameStatus.NO_SYMMETRY_NUMBER
    status[frames.pbc.any(axis=1)] = FrameStatus.NOT_A_MOLECULE
    return status


def thermochemistry_of(
    frames: Frames,
    arrays: Mapping[str, Array],
    settings: Settings,
    symmetry_numbers: npt.ArrayLike,
    spin_multiplicities: npt.ArrayLike = 1,
) -> dict[str, Array]:
    """Return the thermochemistry of frames from the results of their vibrational analysis, without any model.

    Frames without results, and those that :func:`check_molecules` refuses, get NaN, and -1 in place of counts.

    :param frames: n frames, those that were analysed
    :param arrays: their ``energies``, ``frequencies`` and ``n_rigid``; of an ensemble also ``member_energies`` and
        ``member_frequencies``; in the shapes that ``QUANTITIES`` says
    :param symmetry_numbers: one for all or one for each
    :param spin_multiplicities: one for all or one for each
    :return: arrays by the names in ``QUANTITIES``, those of :class:`IdealGas`
    """
    numbers = np.broadcast_to(np.asarray(symmetry_numbers, dtype=np.int64), len(frames))
    multiplicities = np.broadcast_to(np.asarray(spin_multiplicities, dtype=np.int64), len(frames))
    sound = (check_molecules(frames, numbers) == FrameStatus.PENDING) & _analysed(frames, arrays)
    members = arrays.get('member_frequencies', ())
    size = 3 * max(1, frames.n_atoms // max(1, len(frames))) * len(settings.temperatures) * max(1, len(members))
    at_once = max(1, _BLOCK // size)
    results: dict[str, Array] = {}
    chosen = np.flatnonzero(sound)
    for start in range(0, max(1, len(chosen)), at_once):
        part = chosen[start : start + at_once]
        molecules = Molecules.of(
            frames.select(part), _select(frames, arrays, part), np.maximum(numbers[part], 1), multiplicities[part]
        )
        for name, values in ideal_gas(molecules, settings).arrays().items():
            if name not in results:
                fill = -1 if QUANTITIES[name].integer else np.nan
                results[name] = np.full((len(frames), *values.shape[1:]), fill, dtype=dtype_of(QUANTITIES[name]))
            results[name][part] = values
    return results


def _analysed(frames: Frames, arrays: Mapping[str, Array]) -> BoolArray:
    """Return which frames have frequencies with as many translations and rotations as a molecule can have, ``(n,)``."""
    n_rigid, energies = np.asarray(arrays['n_rigid']), np.asarray(arrays['energies'])
    owners = np.repeat(np.arange(len(frames)), 3 * frames.counts)
    missing = np.bincount(owners, ~np.isfinite(arrays['frequencies']), minlength=len(frames)) > 0
    possible = np.where(frames.counts == 1, n_rigid == 3, (n_rigid == 5) | (n_rigid == 6))
    return np.asarray(possible & (frames.counts > 0) & ~missing & np.isfinite(energies))


def _select(frames: Frames, arrays: Mapping[str, Array], part: IntArray) -> dict[str, Array]:
    """Return the arrays of some of the frames."""
    atoms = frames.atom_indices(part)
    modes = np.ravel(3 * atoms[:, None] + np.arange(3))
    chosen = {name: np.asarray(arrays[name])[part] for name in ('energies', 'n_rigid')}
    chosen['frequencies'] = np.asarray(arrays['frequencies'])[modes]
    if 'member_frequencies' in arrays:
        chosen['member_energies'] = np.asarray(arrays['member_energies'])[:, part]
        chosen['member_frequencies'] = np.asarray(arrays['member_frequencies'])[:, modes]
    return chosen
