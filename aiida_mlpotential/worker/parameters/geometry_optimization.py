"""The parameters of geometry optimizations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..optimization.constraint_input import validate_constraints
from .base import Check, Parameter, is_bool, is_integer_up_to, is_number, is_positive, or_null
from .checkpoints import CHECKPOINT_INTERVAL

#: The optimizers that take many structures at once.
BATCHED = ('LBFGS', 'FIRE')

_MAX_STEPS = 10**7
_MAX_STEP = 1.0  # angstrom: a longer one leaps over bonds
_MAX_PRESSURE = 10**4  # GPa
_MAX_SYMMETRY_TOLERANCE = 1.0  # angstrom
#: eV/angstrom. Forces of ANI in single precision are off by 1e-5: ten times that still converges, less does not always.
SINGLE_PRECISION_FORCES = 1e-4
#: Internal coordinates, which do not go with a cell that changes.
_INTERNAL = ('bond', 'angle', 'dihedral')


def _is_optimizer(value: Any) -> bool | str:
    if not isinstance(value, str) or not re.fullmatch(r'[A-Za-z]\w{0,39}', value):
        return False
    from ..optimization.ase_optimizers import OPTIMIZERS

    if value in BATCHED or value in OPTIMIZERS:
        return True
    return f'it must be {" or ".join(BATCHED)}, or for a single structure one of {", ".join(OPTIMIZERS)}'


def _is_mask(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 6 and all(map(is_bool, value))


def _up_to(most: float) -> Check:
    return lambda value: is_positive(value) and value <= most


def _row(name: str, default: Any, allowed: str, help: str, check: Check) -> Parameter:
    return Parameter(name, default, allowed, help, check, affects_results=True)


ROWS: tuple[Parameter, ...] = (
    Parameter(
        'optimizer',
        'LBFGS',
        'LBFGS, FIRE, or for a single structure the name of another optimizer of ASE',
        'How to go downhill. LBFGS needs the fewest steps; FIRE is slower and forgives more. What is a minimum does '
        'not depend on it: a restart may change it, and goes on from the last geometries.',
        _is_optimizer,
    ),
    Parameter(
        'max_steps',
        500,
        f'an integer from 1 to {_MAX_STEPS}',
        'Steps after which a structure that is not converged gets the status NOT_CONVERGED, and its last geometry is '
        'stored. Going on with `parent_folder` gives it as many steps again.',
        lambda value: is_integer_up_to(value, _MAX_STEPS),
    ),
    _row(
        'force_tolerance',
        0.01,
        'a positive number of eV/angstrom',
        'Converged when no atom feels a larger force after constraints (and no row of the cell, with the definition of '
        "ASE's FrechetCellFilter, unless `stress_tolerance` is given). The default of ASE is 0.05, that of AMS 0.027.",
        is_positive,
    ),
    _row(
        'energy_tolerance',
        None,
        'a positive number of eV/atom, or null (not asked)',
        'Converged only when the last step changed the energy by less than this for each atom; AMS has 2.7e-4.',
        or_null(is_positive),
    ),
    _row(
        'step_tolerance',
        None,
        'a positive number of angstrom, or null (not asked)',
        'Converged only when no atom went further than this in the last step; AMS has 0.01.',
        or_null(is_positive),
    ),
    _row(
        'stress_tolerance',
        None,
        'a positive number of eV/angstrom^3, or null (the cell counts in force_tolerance)',
        'Converged only when no component of the stress that is free to relax, pressure included, is larger.',
        or_null(is_positive),
    ),
    _row(
        'max_step',
        0.2,
        f'a positive number of angstrom, at most {_MAX_STEP}',
        'The longest way of an atom in one step.',
        _up_to(_MAX_STEP),
    ),
    _row(
        'optimize_cell',
        False,
        'true, false',
        'Optimize the cell, too; structures that are not periodic in three directions get the status NO_CELL.',
        is_bool,
    ),
    _row(
        'pressure',
        0.0,
        f'a number of GPa, at most {_MAX_PRESSURE} either way',
        'External pressure on the cell; the enthalpy E + pV becomes minimal.',
        lambda value: is_number(value, -_MAX_PRESSURE, _MAX_PRESSURE),
    ),
    _row(
        'cell_mask',
        None,
        'six of true and false (xx, yy, zz, yz, xz, xy), or null (all free)',
        'Which components of the deformation of the cell are free.',
        or_null(_is_mask),
    ),
    _row('fixed_volume', False, 'true, false', 'Keep the volume of the cell.', is_bool),
    _row('hydrostatic', False, 'true, false', 'Keep the shape of the cell, only its size changes.', is_bool),
    _row(
        'keep_symmetry',
        False,
        'true, false',
        'Keep the space group that each crystal has at the start; molecules get the status NO_CELL.',
        is_bool,
    ),
    _row(
        'symmetry_tolerance',
        0.01,
        f'a positive number of angstrom, at most {_MAX_SYMMETRY_TOLERANCE}',
        'How far atoms may be from where a symmetry operation wants them, when the symmetry is looked for.',
        _up_to(_MAX_SYMMETRY_TOLERANCE),
    ),
    _row(
        'constraints',
        [],
        'a list of constraints',
        'What is kept: atoms, Cartesian components, bonds, angles, dihedrals; for all structures or for some.',
        lambda value: validate_constraints(value) or True,
    ),
    _row(
        'max_qbc',
        None,
        'a positive number of eV, or null (not asked)',
        'A structure whose spread over the members, divided by the square root of its atoms, passes this stops with '
        'the status SPREAD_TOO_LARGE: the model does not know it. For ensembles only.',
        or_null(is_positive),
    ),
    _row(
        'check_fragments',
        True,
        'true, false',
        'Give molecules that fell into more fragments than they had at the start the status BROKE_APART.',
        is_bool,
    ),
    Parameter(
        'trajectory',
        None,
        'an integer, 1 or larger, or null (none)',
        'Keep every so many steps of each structure, its first and its last, as a trajectory.',
        or_null(lambda value: is_integer_up_to(value, _MAX_STEPS)),
    ),
    CHECKPOINT_INTERVAL,
)

#: What has no meaning where the cell is kept.
_OF_CELLS = ('stress_tolerance', 'pressure', 'cell_mask', 'fixed_volume', 'hydrostatic')


def check_together(parameters: Mapping[str, Any]) -> str | None:
    """Return one sentence on parameters that do not go together and what to do, or ``None`` if all is well."""
    for check in (_cell_problem, _symmetry_problem, _precision_problem):
        problem = check(parameters)
        if problem:
            return f'parameters: {problem}'
    return None


def _symmetry_problem(parameters: Mapping[str, Any]) -> str | None:
    if parameters['keep_symmetry'] and parameters['constraints']:
        return 'constraints may break the symmetry that keep_symmetry keeps: leave one of them out.'
    return None


def _cell_problem(parameters: Mapping[str, Any]) -> str | None:
    if not parameters['optimize_cell']:
        defaults = {row.name: row.default for row in ROWS}
        given = [name for name in _OF_CELLS if parameters[name] != defaults[name]]
        if given:
            verb = 'mean' if len(given) > 1 else 'means'
            return (
                f'{", ".join(given)} {verb} nothing while the cell is kept: set optimize_cell to true or leave it out.'
            )
        return None
    internal = sorted({item['kind'] for item in parameters['constraints']} & set(_INTERNAL))
    if internal:
        return f'constraints of the kind {", ".join(internal)} do not go with optimize_cell: leave one of them out.'
    return _mask_problem(parameters)


def _mask_problem(parameters: Mapping[str, Any]) -> str | None:
    if parameters['hydrostatic'] and parameters['fixed_volume']:
        return 'hydrostatic and fixed_volume together leave nothing of the cell free: leave one of them out.'
    mask = parameters['cell_mask']
    if mask is None:
        return None
    if not any(mask):
        return 'cell_mask leaves nothing of the cell free: set one of its components or leave optimize_cell out.'
    if parameters['hydrostatic'] and not all(mask):
        return 'hydrostatic keeps the shape of the cell and cell_mask changes it: leave one of them out.'
    if parameters['fixed_volume'] and sum(mask[:3]) == 1:
        return (
            'fixed_volume with a cell_mask that frees one length leaves it fixed, too: free another or set it to false.'
        )
    if parameters['fixed_volume'] and not _is_closed(mask):
        return (
            'fixed_volume is not kept with this cell_mask, which frees a shear without both its lengths or two shears '
            'without the third: free these as well or set fixed_volume to false.'
        )
    return None


def _is_closed(mask: Sequence[bool]) -> bool:
    """Return whether deformations that a mask allows, one after the other, make only such as it allows.

    Otherwise components are put back after each step, and the volume with them.
    """
    lengths, (yz, xz, xy) = mask[:3], mask[3:]
    sheared = (xz or xy, yz or xy, yz or xz)
    return sum((yz, xz, xy)) != 2 and all(length or not shear for length, shear in zip(lengths, sheared, strict=True))


def _precision_problem(parameters: Mapping[str, Any]) -> str | None:
    if parameters['precision'] == 'single' and parameters['force_tolerance'] < SINGLE_PRECISION_FORCES:
        return (
            f'force_tolerance = {parameters["force_tolerance"]} is below what forces in single precision resolve '
            f'({SINGLE_PRECISION_FORCES} eV/angstrom): set precision to double or choose a larger one.'
        )
    return None
