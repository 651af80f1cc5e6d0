"""Generalised coordinates of a pool of frames: the positions, and where it is free the cell."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..frames import FloatArray, Frames, IntArray
from .cells import CellRules, cell_forces, deformations, exponential, logarithm, masked
from .rows import Rows


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Where the frames of a pool are, and how they move.

    Without free cells the coordinates are the positions. With them they are the positions in the undeformed cell, and
    N log F of the deformation F (:mod:`.cells`).

    :ivar frames: the geometries now
    :ivar rules: what of the cells is free; ``None`` where they are kept
    :ivar references: the undeformed cells, ``(n, 3, 3)``
    :ivar logs: log F, ``(n, 3, 3)``
    """

    frames: Frames
    rules: CellRules | None
    references: FloatArray
    logs: FloatArray

    @classmethod
    def of(cls, frames: Frames, rules: CellRules | None, references: FloatArray) -> Coordinates:
        """Return the coordinates of frames whose cells may be deformed already."""
        logs = np.zeros_like(references) if rules is None else logarithm(deformations(references, frames.cells))
        return cls(frames, rules, references, logs)

    @property
    def rows(self) -> Rows:
        """Return where the rows of each frame are."""
        return Rows.of(self.frames.counts, self.rules is not None)

    def _deformation(self) -> FloatArray:
        """Return F of each atom, ``(A, 3, 3)``."""
        return np.asarray(deformations(self.references, self.frames.cells)[self.frames.frame_of_atom])

    def values(self) -> FloatArray:
        """Return the coordinates, ``(R, 3)``."""
        if self.rules is None:
            return self.frames.positions
        rows, counts = self.rows, self.frames.counts
        result = np.empty((rows.n_rows, 3))
        result[rows.atoms] = np.linalg.solve(self._deformation(), self.frames.positions[..., None])[..., 0]
        result[rows.cells] = counts[:, None, None] * self.logs
        return result

    def forces(self, forces: FloatArray, stress: FloatArray | None) -> FloatArray:
        """Return the forces on the coordinates, ``(R, 3)``, from those on the atoms and, for free cells, the stress."""
        if self.rules is None or stress is None:
            return forces
        rows = self.rows
        deformation = deformations(self.references, self.frames.cells)
        result = np.empty((rows.n_rows, 3))
        result[rows.atoms] = self.undeformed_forces(forces)
        result[rows.cells] = cell_forces(self.frames, stress, deformation, self.logs, self.rules)
        return result

    def undeformed_forces(self, forces: FloatArray) -> FloatArray:
        """Return forces on the atoms as those on their coordinates, ``(A, 3)``."""
        return np.asarray(np.einsum('ai,aij->aj', forces, self._deformation()))

    def real_steps(self, steps: FloatArray) -> FloatArray:
        """Return steps of the coordinates of atoms as displacements in the present cell, ``(A, 3)``."""
        return np.asarray(np.einsum('ai,aji->aj', steps, self._deformation()))

    def coordinate_steps(self, displacements: FloatArray) -> FloatArray:
        """Return displacements in the present cell as steps of the coordinates of atoms, ``(A, 3)``."""
        return np.asarray(np.linalg.solve(self._deformation(), displacements[..., None])[..., 0])

    def enthalpies(self, energies: FloatArray) -> FloatArray:
        """Return what becomes minimal: the energy, with pV where there is a pressure."""
        if self.rules is None or self.rules.pressure == 0.0:
            return energies
        return np.asarray(energies + self.rules.pressure * np.abs(np.linalg.det(self.frames.cells)))

    def moved(self, steps: FloatArray) -> Coordinates:
        """Return the coordinates after steps ``(R, 3)``."""
        if self.rules is None:
            return dataclasses.replace(self, frames=at(self.frames, self.frames.positions + steps))
        rows = self.rows
        logs = self.logs + steps[rows.cells] / self.frames.counts[:, None, None]
        deformation = exponential(logs)
        if not self.rules.mask.all():
            deformation = masked(deformation, self.rules)
            logs = logarithm(deformation)
        positions = self.values()[rows.atoms] + steps[rows.atoms]
        positions = np.einsum('ai,aji->aj', positions, deformation[self.frames.frame_of_atom])
        cells = np.einsum('nij,nkj->nik', self.references, deformation)
        return dataclasses.replace(self, frames=at(self.frames, positions, cells), logs=logs)

    def placed(self, positions: FloatArray) -> Coordinates:
        """Return the coordinates with the atoms elsewhere in the same cells."""
        return dataclasses.replace(self, frames=at(self.frames, positions))

    def select(self, places: IntArray) -> Coordinates:
        """Return those of some frames."""
        return dataclasses.replace(
            self,
            frames=self.frames.select(places),
            references=self.references[places],
            logs=self.logs[places],
        )

    def joined(self, others: Coordinates) -> Coordinates:
        """Return these and other frames behind them."""
        return dataclasses.replace(
            self,
            frames=concatenate(self.frames, others.frames),
            references=np.concatenate([self.references, others.references]),
            logs=np.concatenate([self.logs, others.logs]),
        )


def at(frames: Frames, positions: FloatArray, cells: FloatArray | None = None) -> Frames:
    """Return frames with other positions, and other cells if they are given."""
    return dataclasses.replace(frames, positions=positions, cells=frames.cells if cells is None else cells)


def concatenate(first: Frames, second: Frames) -> Frames:
    """Return two sets of frames as one."""
    return Frames(
        numbers=np.concatenate([first.numbers, second.numbers]),
        positions=np.concatenate([first.positions, second.positions]),
        offsets=np.concatenate([first.offsets, second.offsets[1:] + first.offsets[-1]]),
        cells=np.concatenate([first.cells, second.cells]),
        pbc=np.concatenate([first.pbc, second.pbc]),
    )
