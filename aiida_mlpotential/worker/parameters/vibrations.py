"""The parameters of vibrational analysis."""

from __future__ import annotations

from .base import Parameter, is_bool, is_number, is_positive
from .checkpoints import CHECKPOINT_INTERVAL

#: Number of imaginary modes of what may be expected.
ORDERS: dict[str, int] = {'minimum': 0, 'transition_state': 1}
EXPECTATIONS = ('any', *ORDERS)

_MAX_CUTOFF = 1000  # cm^-1: above it there are bonds

ROWS: tuple[Parameter, ...] = (
    Parameter(
        'precision',
        None,
        'single, double, or null (double where the backend has it)',
        'Float type of the model. Second derivatives come from small differences of forces: single precision is for '
        'backends that have no other.',
        lambda value: value in (None, 'single', 'double'),
        affects_results=True,
    ),
    Parameter(
        'expected',
        'any',
        ', '.join(EXPECTATIONS),
        'The kind of stationary point that each structure should be; one of another kind, or none at all, gets the '
        'status WRONG_CHARACTER, and its modes are stored all the same.',
        lambda value: isinstance(value, str) and value in EXPECTATIONS,
        affects_results=True,
    ),
    Parameter(
        'force_tolerance',
        0.05,
        'a positive number of eV/angstrom',
        'A structure is stationary when no atom feels a larger force; the modes of any other mean little.',
        is_positive,
        affects_results=True,
    ),
    Parameter(
        'imaginary_cutoff',
        20.0,
        f'a wavenumber in cm^-1 from 0 to {_MAX_CUTOFF}',
        'Imaginary modes smaller than this (cm^-1) are taken for numerical noise: they are stored, and named in the '
        'notes, but do not count as imaginary.',
        lambda value: is_number(value, 0, _MAX_CUTOFF),
        affects_results=True,
    ),
    Parameter(
        'member_frequencies',
        True,
        'true, false',
        'For ensembles: the frequencies of every member and their spread; costs one gradient a member.',
        is_bool,
        affects_results=True,
    ),
    CHECKPOINT_INTERVAL,
)
