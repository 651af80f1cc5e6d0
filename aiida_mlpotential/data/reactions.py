"""From the thermochemistry of species to that of a reaction, with the spread propagated member by member.

Each member of an ensemble has energies and modes of its own, and so a reaction energy of its own. The spread of a
reaction is that of these reaction energies: what a member gets wrong on both sides cancels, which it would not if the
standard deviations of the species were combined as if they were independent. Energies are in eV.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aiida_mlpotential.worker.frames import FloatArray
from aiida_mlpotential.worker.ideal_gas import comparable
from aiida_mlpotential.worker.statistics import sample_std
from aiida_mlpotential.worker.thermochemistry import Settings, quasi_rrho_entropy, vibration, zero_point_energy

if TYPE_CHECKING:
    from .results import ResultsData

Array = npt.NDArray[Any]

#: What is known of a reaction, and how it is written.
SYMBOLS: dict[str, str] = {
    'energy': 'ΔE',
    'zero_point_energy': 'ΔZPE',
    'enthalpy': 'ΔH',
    'entropy_term': '-TΔS',
    'gibbs_energy': 'ΔG',
    'gibbs_energy_quasi_rrho': 'ΔG, quasi-RRHO',
}


class ReactionError(ValueError):
    """There is no thermochemistry of this reaction; one sentence says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Difference:
    """A difference between products and educts.

    :ivar value: of the mean over the members, ``(...)``
    :ivar members: of each member, ``(m, ...)``, or ``None`` without an ensemble
    :ivar combined: the standard deviations of the species combined as if they were independent, ``(...)``: to compare
        with, it is too large where errors cancel
    """

    value: FloatArray
    members: FloatArray | None = None
    combined: FloatArray | None = None

    @classmethod
    def of(cls, coefficients: npt.ArrayLike, values: Array, members: Array | None = None) -> Difference:
        """Take the difference of the means, and that of each member.

        :param coefficients: negative for educts, ``(n,)``
        :param values: of each species, ``(n, ...)``
        :param members: of each member for each species, ``(m, n, ...)``; of one member only there is no spread
        :raises ValueError: if the shapes do not go together
        """
        factors = np.asarray(coefficients, dtype=np.float64)
        if len(values) != len(factors) or (members is not None and members.shape[1:] != values.shape):
            found = '' if members is None else f' and members of {members.shape}'
            raise ValueError(f'{len(factors)} coefficients do not go with values of {values.shape}{found}')
        value = np.tensordot(factors, values, axes=1)
        if members is None or len(members) < 2:
            return cls(value)
        squares = np.tensordot(factors**2, sample_std(members) ** 2, axes=1)
        return cls(value, np.tensordot(members, factors, axes=(1, 0)), np.sqrt(squares))

    @property
    def std(self) -> FloatArray | None:
        """Return the sample standard deviation (ddof = 1) over the members, ``(...)``, or ``None``."""
        return None if self.members is None else sample_std(self.members)


@dataclasses.dataclass(frozen=True, eq=False)
class SpeciesThermochemistry:
    """The thermochemistry of n species at t temperatures, by the names in ``SYMBOLS``, eV.

    :ivar temperatures: ``(t,)``, K
    :ivar values: of the mean, ``(n, t)`` each
    :ivar members: of each member, ``(m, n, t)`` each; empty without an ensemble, and with energies only where the modes
        of the members were not computed
    """

    temperatures: FloatArray
    values: Mapping[str, FloatArray]
    members: Mapping[str, FloatArray]

    @classmethod
    def of(cls, results: ResultsData, settings: Settings | None = None) -> SpeciesThermochemistry:
        """Return that of all structures of results.

        Members have their own energies and their own modes, at the geometries of the mean. The same modes count for
        them as in their Gibbs energies: see ``comparable`` of the worker.

        :param results: of thermochemistry
        :param settings: the conditions, by default those of the results
        :raises ReactionError: if a structure has no thermochemistry
        """
        if 'gibbs_energies' not in results.get_arraynames():
            raise ReactionError('the results have no Gibbs energies: they must be those of thermochemistry')
        settings = settings or settings_of(results)
        kelvins = settings.kelvins
        arrays = {name: results.get_array(name) for name in ('energies', 'zero_point_energies', 'enthalpies')}
        gibbs, quasi = results.get_array('gibbs_energies'), results.get_array('gibbs_energies_quasi_rrho')
        missing = np.flatnonzero(~np.isfinite(gibbs).all(axis=1)).tolist()
        if missing:
            status = results.frame(missing[0])
            raise ReactionError(f'species {missing[0]} has no thermochemistry: {status.status.name}, {status.message}')
        same = np.ones(len(kelvins))
        values = {
            'energy': np.outer(arrays['energies'], same),
            'zero_point_energy': np.outer(arrays['zero_point_energies'], same),
            'enthalpy': arrays['enthalpies'],
            'entropy_term': -kelvins * results.get_array('entropies'),
            'gibbs_energy': gibbs,
            'gibbs_energy_quasi_rrho': quasi,
        }
        return cls(kelvins, values, _members(results, settings, values))

    def reaction(self, coefficients: npt.ArrayLike) -> dict[str, Difference]:
        """Return the differences of a reaction by the names in ``SYMBOLS``, ``(t,)`` each.

        :param coefficients: of the species, negative for educts, ``(n,)``
        """
        return {
            name: Difference.of(coefficients, values, self.members.get(name)) for name, values in self.values.items()
        }


def settings_of(results: ResultsData) -> Settings:
    """Return the conditions of results of thermochemistry."""
    attributes = results.base.attributes.all
    known = attributes.get('settings') or {}
    return Settings(temperatures=tuple(float(value) for value in attributes['temperatures']), **known)


def _members(results: ResultsData, settings: Settings, values: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the values of each member, ``(m, n, t)`` each: those of the mean, and what the member has more.

    Without the modes of the members, as those of a backend without forces of members, only their energies are known.
    """
    names = set(results.get_arraynames())
    if 'member_energies' not in names or results.get_array('member_energies').shape[0] < 2:
        return {}
    energies = (results.get_array('member_energies') - results.energies)[..., None]
    known = {'member_gibbs_energies', 'member_frequencies'} <= names
    if not known or not np.isfinite(results.get_array('member_gibbs_energies')).all():
        return {'energy': values['energy'] + energies}
    shifts = [_shifts(results, index, settings) for index in range(len(results))]
    zero, warm, quasi = (np.stack([shift[key] for shift in shifts], axis=1) for key in ('zero', 'warm', 'quasi'))
    enthalpies = values['enthalpy'] + energies + warm
    gibbs = np.swapaxes(results.get_array('member_gibbs_energies'), 0, 1)
    return {
        'energy': values['energy'] + energies,
        'zero_point_energy': values['zero_point_energy'] + zero,
        'enthalpy': enthalpies,
        'entropy_term': gibbs - enthalpies,
        'gibbs_energy': gibbs,
        'gibbs_energy_quasi_rrho': values['gibbs_energy_quasi_rrho'] + energies + quasi,
    }


def _shifts(results: ResultsData, index: int, settings: Settings) -> dict[str, FloatArray]:
    """Return by how much the vibrations of each member differ from those of the mean, ``(m, t)`` each.

    :return: zero-point energies of all real modes (``zero``), zero-point and thermal energies of those that count
        (``warm``), and their free energies with the entropies of quasi-RRHO, for which all real modes count (``quasi``)
    """
    start, stop = (3 * int(value) for value in results.offsets[index : index + 2])
    wavenumbers = results.get_array('frequencies')[start:stop]
    real = wavenumbers > 0
    mean, cutoff = wavenumbers[real], settings.low_frequency_cutoff
    own = comparable(mean, results.get_array('member_frequencies')[:, start:stop][:, real], cutoff)
    every = np.concatenate([mean[None], own])
    zero = zero_point_energy(every)[..., None]
    warm = zero + vibration(every, settings.kelvins).energy
    free = warm - settings.kelvins * quasi_rrho_entropy(every, settings)
    terms = {'zero': zero, 'warm': warm[:, mean >= cutoff], 'quasi': free}
    sums = {name: part.sum(axis=1) for name, part in terms.items()}
    return {name: np.broadcast_to(part[1:] - part[0], (len(own), len(settings.kelvins))) for name, part in sums.items()}
