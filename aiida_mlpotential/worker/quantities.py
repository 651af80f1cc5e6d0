"""Every array that results may have: its name, unit, shape, and what it means."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

Shape = Literal[
    'frame',
    'frame3',
    'frame33',
    'member',
    'atom',
    'atom3',
    'hessian',
    'mode',
    'member_mode',
    'temperature',
    'member_temperature',
]
Kind = Literal['always', 'requested', 'ensemble', 'task']

#: How documentation writes each shape.
SHAPES: dict[Shape, str] = {
    'frame': '(n,)',
    'frame3': '(n, 3)',
    'frame33': '(n, 3, 3)',
    'member': '(m, n)',
    'atom': '(A,)',
    'atom3': '(A, 3)',
    'hessian': '(sum of (3 N)^2,)',
    'mode': '(3 A,)',
    'member_mode': '(m, 3 A)',
    'temperature': '(n, t)',
    'member_temperature': '(n, m, t)',
}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """An array in the results of n frames with N atoms each and A in all, m members, and t temperatures.

    :ivar kind: ``always`` there, there when ``requested``, or there for an ``ensemble`` of two members or more; the
        others belong to a ``task``
    :ivar follows_precision: True where the float type follows the precision of the model; others are double always
    :ivar requested_as: what a user writes under ``properties`` to get it, where that is not the name of the array
    :ivar integer: True for counts, which are -1 where there is none
    """

    name: str
    unit: str
    shape: Shape
    kind: Kind
    help: str
    follows_precision: bool = False
    requested_as: str = ''
    integer: bool = False

    @property
    def shape_text(self) -> str:
        """Return the shape as documentation writes it."""
        return SHAPES[self.shape]


def _task(name: str, unit: str, shape: Shape, help: str, integer: bool = False) -> Quantity:
    return Quantity(name, unit, shape, 'task', help, integer=integer)


_SINGLE_POINT = (
    Quantity(
        'energies', 'eV', 'frame', 'always', 'Potential energy: the mean over the members.', requested_as='energy'
    ),
    Quantity('forces', 'eV/angstrom', 'atom3', 'requested', 'Forces, minus the gradient of the energy.', True),
    Quantity(
        'stress',
        'eV/angstrom^3',
        'frame33',
        'requested',
        'Stress, dE/dstrain over volume, positive under tension (the sign of ASE); NaN where not fully periodic.',
    ),
    Quantity('member_energies', 'eV', 'member', 'ensemble', 'Energy of every member of the ensemble.'),
    Quantity('energy_std', 'eV', 'frame', 'ensemble', 'Sample standard deviation over the members (ddof = 1).'),
    Quantity('qbc', 'eV', 'frame', 'ensemble', 'Query by committee: energy_std over the square root of the atoms.'),
    Quantity(
        'forces_std',
        'eV/angstrom',
        'atom3',
        'requested',
        'Sample standard deviation of each force component over the members; costs one gradient a member.',
        True,
    ),
    Quantity('atomic_energies', 'eV', 'atom', 'requested', 'Energy of each atom; they sum to the energy.'),
    Quantity('charges', 'e', 'atom', 'requested', 'Partial charge of each atom.'),
    Quantity(
        'hessian',
        'eV/angstrom^2',
        'hessian',
        'requested',
        'Second derivatives of the energy, the matrices (3 N, 3 N) of the structures one after the other: analytic '
        'where the backend has them, else from central differences of the forces.',
    ),
)

_GEOMETRY_OPTIMIZATION = (
    _task('steps', '1', 'frame', 'Steps of the optimizer that the structure took.', integer=True),
    _task('initial_energies', 'eV', 'frame', 'Energy before the first step.'),
    _task('positions', 'angstrom', 'atom3', 'Positions at the end.'),
    _task('cells', 'angstrom', 'frame33', 'Cell vectors at the end, as rows; there where the cell was optimized.'),
)

_VIBRATIONS = (
    _task(
        'frequencies',
        'cm^-1',
        'mode',
        'Wavenumbers, 3 N a structure: first translations and rotations, exactly 0, then the vibrations in ascending '
        'order, imaginary ones as negative numbers.',
    ),
    _task(
        'normal_modes',
        '1',
        'hessian',
        'Normal modes, a matrix (3 N, 3 N) a structure: row k is the displacement of the atoms in mode k, of length 1.',
    ),
    _task('reduced_masses', 'amu', 'mode', 'Reduced mass of each mode, for displacements of length 1.'),
    _task('n_rigid', '1', 'frame', 'Number of translations and rotations.', integer=True),
    _task('n_imaginary', '1', 'frame', 'Number of imaginary modes: the order of a saddle point.', integer=True),
    _task('stationary', '1', 'frame', '1 where the forces are small enough for a stationary point.', integer=True),
    _task('zero_point_energies', 'eV', 'frame', 'Half the quanta of all real modes.'),
    _task('member_frequencies', 'cm^-1', 'member_mode', 'Wavenumbers of each member, in the order of `frequencies`.'),
    _task('frequency_std', 'cm^-1', 'mode', 'Sample standard deviation of each wavenumber over the members.'),
)

_PARTS = ('translation', 'rotation', 'vibration')
_THERMOCHEMISTRY = (
    _task('symmetry_numbers', '1', 'frame', 'Rotational symmetry number.', integer=True),
    _task('n_excluded', '1', 'frame', 'Number of real modes below the cutoff, left out of the sums.', integer=True),
    _task('moments_of_inertia', 'amu angstrom^2', 'frame3', 'Principal moments of inertia, ascending.'),
    *(_task(f'entropy_{part}', 'eV/K', 'temperature', f'Entropy of {part}.') for part in (*_PARTS, 'electronic')),
    _task('entropies', 'eV/K', 'temperature', 'Entropy S.'),
    *(
        _task(f'internal_energy_{part}', 'eV', 'temperature', f'Thermal energy of {part}, without zero point.')
        for part in _PARTS
    ),
    _task('internal_energies', 'eV', 'temperature', 'Internal energy U: electronic, zero-point and thermal.'),
    *(_task(f'heat_capacity_{part}', 'eV/K', 'temperature', f'Heat capacity of {part}.') for part in _PARTS),
    _task('heat_capacities', 'eV/K', 'temperature', 'Heat capacity at constant volume, Cv.'),
    _task('enthalpies', 'eV', 'temperature', 'Enthalpy H = U + kT.'),
    _task('gibbs_energies', 'eV', 'temperature', 'Gibbs energy G = H - TS, rigid rotor and harmonic oscillator.'),
    _task('entropy_vibration_quasi_rrho', 'eV/K', 'temperature', "Entropy of vibration in Grimme's quasi-RRHO."),
    _task('gibbs_energies_quasi_rrho', 'eV', 'temperature', 'Gibbs energy with the quasi-RRHO entropy.'),
    _task('member_gibbs_energies', 'eV', 'member_temperature', 'Gibbs energy of every member, from its own modes.'),
    _task('gibbs_energy_std', 'eV', 'temperature', 'Sample standard deviation of the Gibbs energy over the members.'),
)

#: Names that each task adds to what may be requested of it.
TASK_QUANTITIES: dict[str, tuple[str, ...]] = {
    'single_point': (),
    'geometry_optimization': tuple(quantity.name for quantity in _GEOMETRY_OPTIMIZATION),
    'vibrations': tuple(quantity.name for quantity in _VIBRATIONS),
    'thermochemistry': tuple(quantity.name for quantity in (*_VIBRATIONS, *_THERMOCHEMISTRY)),
}

QUANTITIES: dict[str, Quantity] = {
    quantity.name: quantity for quantity in (*_SINGLE_POINT, *_GEOMETRY_OPTIMIZATION, *_VIBRATIONS, *_THERMOCHEMISTRY)
}

#: What a user may write under ``properties``, with the name of the array it stands for.
PROPERTIES: dict[str, str] = {
    quantity.requested_as or quantity.name: quantity.name
    for quantity in QUANTITIES.values()
    if quantity.kind in ('always', 'requested')
}


def names_for(properties: Iterable[str], ensemble: bool) -> tuple[str, ...]:
    """Return the arrays that any task stores for the requested properties.

    :param properties: keys of ``PROPERTIES``
    :param ensemble: whether the model has two members or more
    """
    requested = {PROPERTIES[name] for name in properties}
    return tuple(
        name
        for name, quantity in QUANTITIES.items()
        if quantity.kind == 'always' or name in requested or (quantity.kind == 'ensemble' and ensemble)
    )
