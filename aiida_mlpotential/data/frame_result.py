"""The results of one structure, and ASE atoms that carry them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.quantities import QUANTITIES, Shape
from aiida_mlpotential.worker.storage import hessian_offsets

if TYPE_CHECKING:
    from ase import Atoms

Array = npt.NDArray[Any]


def rows_of(index: int, offsets: Array) -> dict[Shape, Any]:
    """Return the index of the rows of one structure in arrays of each shape.

    :param offsets: ``(n + 1,)``
    """
    start, stop = (int(value) for value in offsets[index : index + 2])
    begin, end = (int(value) for value in hessian_offsets(offsets)[index : index + 2])
    return {
        'frame': index,
        'frame3': index,
        'frame33': index,
        'member': np.s_[:, index],
        'atom': slice(start, stop),
        'atom3': slice(start, stop),
        'hessian': slice(begin, end),
        'mode': slice(3 * start, 3 * stop),
        'member_mode': np.s_[:, 3 * start : 3 * stop],
        'temperature': index,
        'member_temperature': index,
    }


@dataclasses.dataclass(frozen=True, eq=False)
class FrameResult:
    """The numbers of one structure: eV, eV/angstrom, eV/angstrom^3; ``None`` what was not computed or failed.

    :ivar forces: ``(N, 3)``
    :ivar stress: ``(3, 3)``, also ``None`` for a structure that is not periodic in three directions
    :ivar member_energies: ``(m,)``
    :ivar energy_std: sample standard deviation over the members (ddof = 1)
    :ivar qbc: ``energy_std`` over the square root of the number of atoms
    :ivar forces_std: ``(N, 3)``
    :ivar atomic_energies: ``(N,)``
    :ivar charges: ``(N,)``, elementary charges
    :ivar hessian: ``(3 N, 3 N)``, eV/angstrom^2
    :ivar extra: what the task adds, by the name of its array: numbers, or arrays of the structure's part
    """

    index: int
    status: FrameStatus
    message: str
    n_atoms: int
    energy: float | None = None
    forces: Array | None = None
    stress: Array | None = None
    member_energies: Array | None = None
    energy_std: float | None = None
    qbc: float | None = None
    forces_std: Array | None = None
    atomic_energies: Array | None = None
    charges: Array | None = None
    hessian: Array | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_arrays(
        cls, index: int, status: FrameStatus, message: str, offsets: Array, arrays: Mapping[str, Array]
    ) -> FrameResult:
        """Return the part that one structure has of the arrays of all.

        :param status: one of ``HAS_RESULTS``
        :param offsets: ``(n + 1,)``
        :param arrays: by name, keys of ``QUANTITIES``
        """
        rows = rows_of(index, offsets)
        values: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for name, array in arrays.items():
            quantity = QUANTITIES[name]
            value: Any = array[rows[quantity.shape]]
            if quantity.shape == 'frame':
                value = int(value) if quantity.integer else float(value)
            elif quantity.shape == 'frame33' and not np.isfinite(value).all():
                value = None
            else:
                value = value.copy()
            if quantity.shape == 'hessian':
                value = value.reshape(math.isqrt(len(value)), -1)
            (extra if quantity.kind == 'task' else values)[name] = value
        n_atoms = int(offsets[index + 1] - offsets[index])
        return cls(index, status, message, n_atoms, energy=values.pop('energies'), **values, extra=extra)

    @property
    def ok(self) -> bool:
        """Return whether the task succeeded; where it did not, there may be values that the status puts in doubt."""
        return self.status is FrameStatus.OK

    @property
    def max_force(self) -> float | None:
        """Return the length of the largest force on an atom, eV/angstrom."""
        if self.forces is None or not len(self.forces):
            return None
        return float(np.sqrt(np.square(self.forces, dtype=np.float64).sum(axis=1).max()))


def atoms_with_results(frames: Frames, index: int, result: FrameResult) -> Atoms:
    """Return a frame as ASE atoms with its results; one without them has no calculator, but says why in ``info``."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.stress import full_3x3_to_voigt_6_stress

    atoms = frames.to_ase(index)
    atoms.info['status'] = result.status.name
    if frames.labels:
        atoms.info['label'] = frames.labels[index]
    if result.message:
        atoms.info['message'] = result.message
    if result.energy is None:
        return atoms
    stress = None if result.stress is None else full_3x3_to_voigt_6_stress(result.stress)  # type: ignore[no-untyped-call]
    values = {'energy': result.energy, 'forces': result.forces, 'stress': stress}
    present = {key: value for key, value in values.items() if value is not None}
    atoms.calc = SinglePointCalculator(atoms, **present)  # type: ignore[no-untyped-call]
    for key in ('energy_std', 'qbc', 'member_energies'):
        if getattr(result, key) is not None:
            atoms.info[key] = getattr(result, key)
    for key in ('forces_std', 'atomic_energies', 'charges'):
        if getattr(result, key) is not None:
            atoms.arrays[key] = getattr(result, key)
    return atoms
