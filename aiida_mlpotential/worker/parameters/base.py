"""One key of a job's parameters, and the checks that their values share."""

from __future__ import annotations

import dataclasses
import numbers
import sys
from collections.abc import Callable
from typing import Any

#: Whether a value is allowed: False, or one sentence that says more than what is allowed in general.
Check = Callable[[Any], 'bool | str']

_LARGEST = sys.float_info.max


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One key of the parameters.

    :ivar check: returns whether a value is allowed; or, as a text, what is wrong with it
    :ivar affects_results: False for keys that change how fast, how long or where, but not what, is computed: a restart
        may change these
    """

    name: str
    default: Any
    allowed: str
    help: str
    check: Check
    affects_results: bool = False

    def complaint(self, value: Any) -> str | None:
        """Return what is wrong with a value, as the rest of a sentence, or ``None``."""
        verdict = self.check(value)
        if verdict is True:
            return None
        return verdict if isinstance(verdict, str) else f'it must be {self.allowed}'


def is_integer(value: Any) -> bool:
    """Return whether a value is a whole number; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_integer_up_to(value: Any, most: int, least: int = 1) -> bool:
    """Return whether a value is a whole number within bounds, both included."""
    return is_integer(value) and least <= value <= most


def is_number(value: Any, least: float = -_LARGEST, most: float = _LARGEST) -> bool:
    """Return whether a value is a finite number within bounds, both included."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return bool(least <= value <= most)  # type: ignore[operator]  # NaN is within no bounds


def is_positive(value: Any) -> bool:
    """Return whether a value is a finite number above zero."""
    return is_number(value, 0) and value > 0


def is_bool(value: Any) -> bool:
    """Return whether a value is True or False."""
    return isinstance(value, bool)


def or_null(check: Check) -> Check:
    """Return a check that allows None, too."""
    return lambda value: value is None or check(value)
