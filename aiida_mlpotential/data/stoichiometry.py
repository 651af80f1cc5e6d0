"""The stoichiometry of a reaction: coefficients by species, checked to be a reaction in which no atom is lost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from aiida_mlpotential.worker.frames import Frames

from .formulas import formulas_of

#: Of rounding in fractional coefficients such as 1/3; less than any atom.
_TOLERANCE = 1e-6
_REMEDY = "give a number for each species, negative for educts, positive for products, such as {'a': -1, 'b': 2}"


class StoichiometryError(ValueError):
    """These coefficients are no reaction; one sentence says why."""


@dataclasses.dataclass(frozen=True)
class Stoichiometry:
    """The coefficients of a reaction: negative for educts, positive for products.

    :ivar coefficients: by the name of the species, in the order in which they are written
    """

    coefficients: Mapping[str, float]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Stoichiometry:
        """Return the reaction that a dictionary describes.

        :raises StoichiometryError: if a coefficient is no number, zero or not finite, or a side has no species
        """
        for name, value in content.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value == 0:
                raise StoichiometryError(f'stoichiometry: the coefficient {value!r} of {name} is none: {_REMEDY}')
        result = cls({str(name): float(value) for name, value in content.items()})
        for side, names in (('educt', result.educts), ('product', result.products)):
            if not names:
                raise StoichiometryError(f'stoichiometry: there is no {side}: {_REMEDY}')
        return result

    @property
    def educts(self) -> dict[str, float]:
        """Return how many there are of each educt, as positive numbers."""
        return {name: -value for name, value in self.coefficients.items() if value < 0}

    @property
    def products(self) -> dict[str, float]:
        """Return how many there are of each product."""
        return {name: value for name, value in self.coefficients.items() if value > 0}

    @property
    def equation(self) -> str:
        """Return the reaction as it is written on paper: ``2 H2 + O2 → 2 H2O``."""
        return ' → '.join(' + '.join(map(_term, side, side.values())) for side in (self.educts, self.products))

    def array(self, names: Iterable[str]) -> npt.NDArray[np.float64]:
        """Return the coefficients of species in a given order, 0 of those that do not take part, ``(n,)``."""
        return np.array([self.coefficients.get(name, 0.0) for name in names])

    def check_names(self, names: Iterable[str]) -> None:
        """Raise a :class:`StoichiometryError` unless these are the names of its species."""
        given, known = set(self.coefficients), set(names)
        if given - known:
            raise StoichiometryError(
                f'stoichiometry names {", ".join(sorted(given - known))}, of which there is no structure: '
                f'the species are {", ".join(sorted(known))}'
            )
        if known - given:
            raise StoichiometryError(
                f'stoichiometry has no coefficient for {", ".join(sorted(known - given))}: give it one, or leave it out'
            )

    def check_balance(self, names: Iterable[str], frames: Frames) -> None:
        """Raise a :class:`StoichiometryError` unless every element occurs as often on both sides.

        :param names: the species in the order of the frames
        :param frames: one for each
        """
        from ase.data import chemical_symbols

        _, composition = formulas_of(frames)
        change = self.array(names) @ composition
        elements = [chemical_symbols[number] for number in np.unique(frames.numbers)]
        wrong = {
            element: value for element, value in zip(elements, change.tolist(), strict=True) if abs(value) > _TOLERANCE
        }
        if wrong:
            text = ', '.join(f'{value:+g} {element}' for element, value in wrong.items())
            raise StoichiometryError(
                f'stoichiometry: the atoms do not balance in {self.equation} (products less educts: {text}): '
                'correct the coefficients or add the missing species'
            )


def _term(name: str, number: float) -> str:
    return name if number == 1 else f'{number:g} {name}'


def validate_stoichiometry(content: Mapping[str, Any]) -> str | None:
    """Return one sentence on why coefficients are no reaction, or ``None``."""
    try:
        Stoichiometry.from_dict(content)
    except StoichiometryError as exception:
        return f'{exception}.'
    return None
