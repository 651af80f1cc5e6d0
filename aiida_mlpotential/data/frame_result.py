"""The results of one structure, and ASE atoms that carry them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.schema import QUANTITIES
from aiida_mlpotential.worker.storage import hessian_offsets

if TYPE_CHECKING:
    from ase import Atoms

Array = npt.NDArray[Any]


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

    @classmethod
    def from_arrays(cls, index: int, message: str, offsets: Array, arrays: Mapping[str, Array]) -> FrameResult:
        """Return the part that one structure, which was evaluated, has of the arrays of all.

        :param offsets: ``(n + 1,)``
        :param arrays: by name, keys of ``QUANTITIES``
        """
        start, stop = (int(value) for value in offsets[index : index + 2])
        values: dict[str, Any] = {}
        for name, array in arrays.items():
            shape = QUANTITIES[name].shape
            if shape == 'member':
                values[name] = array[:, index].copy()
            elif shape == 'frame':
                values[name] = float(array[index])
            elif shape == 'frame33':
                values[name] = array[index].copy() if np.isfinite(array[index]).all() else None
            elif shape == 'hessian':
                begin, end = hessian_offsets(offsets)[index : index + 2]
                values[name] = array[begin:end].reshape(3 * (stop - start), -1).copy()
            else:
                values[name] = array[start:stop].copy()
        return cls(index, FrameStatus.OK, message, stop - start, energy=values.pop('energies'), **values)

    @property
    def ok(self) -> bool:
        """Return whether the structure was evaluated."""
        return self.status is FrameStatus.OK

    @property
    def max_force(self) -> float | None:
        """Return the length of the largest force on an atom, eV/angstrom."""
        if self.forces is None or not len(self.forces):
            return None
        return float(np.sqrt(np.square(self.forces, dtype=np.float64).sum(axis=1).max()))


def atoms_with_results(frames: Frames, index: int, result: FrameResult) -> Atoms:
    """Return a frame as ASE atoms with its results; one that failed has no calculator, but says why in ``info``."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.stress import full_3x3_to_voigt_6_stress

    atoms = frames.to_ase(index)
    atoms.info['status'] = result.status.name
    if frames.labels:
        atoms.info['label'] = frames.labels[index]
    if result.message:
        atoms.info['message'] = result.message
    if not result.ok:
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
