"""Guards of a task that moves atoms: has a frame left what makes sense, or what the model knows?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..backends.base import Evaluation
from ..errors import FrameError, FrameStatus
from ..frames import BoolArray, FloatArray, Frames, IntArray
from ..neighbors import find_half_pairs
from ..statistics import query_by_committee, sample_std
from .contacts import find_contacts

#: Two atoms are bonded up to this times the sum of their covalent radii. The longest ordinary bonds reach 1.24 (F2) and
#: 1.19 (H2), all others 1.15; the shortest hydrogen bonds begin at 1.5, contacts of molecules at 1.7.
BONDED = 1.3
#: A bond that was there is broken only beyond this: stretched ones of transition states and of ions are not.
BROKEN = 1.6


#: eV per atom that forming bonds may set free. Atoms gain 9 eV in the strongest metal (tungsten), ions up to 40 eV in
#: oxides (ZrO2).
_BINDING = 50.0
#: Angstrom. A repulsion that falls off as exp(-r/d) has at most d times the force that it exerts now to give; d is
#: 0.2 to 0.4 angstrom between atoms.
_DECAY = 1.0


@dataclasses.dataclass(frozen=True)
class Limits:
    """How far a frame may go before it is stopped. What no parameter sets is wide: it catches nonsense, not strain.

    :ivar minimum_distance: angstrom; two atoms nearer than this are too close
    :ivar max_qbc: largest spread of the energy over the members by the root of the number of atoms, eV; or ``None``
    :ivar max_displacement: angstrom, of an atom since the start, beside ten times its largest coordinate: fragments
        that fly apart have no forces any more and would count as converged
    :ivar max_stretch: factor by which a cell may become longer or shorter in any direction: a crystal without cohesion
        evaporates, one without repulsion collapses. Cells guessed wrong by a factor of two are relaxed as they should
    """

    minimum_distance: float = 0.4
    max_qbc: float | None = None
    max_displacement: float = 100.0
    max_stretch: float = 4.0

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Limits:
        """Return the limits that the parameters of a job ask for."""
        max_qbc = parameters.get('max_qbc')
        return cls(float(parameters['minimum_distance']), None if max_qbc is None else float(max_qbc))


def energy_floors(frames: Frames, evaluation: Evaluation) -> FloatArray:
    """Return energies that no sound optimization of these frames can fall below, eV, ``(n,)``.

    A bad starting geometry may set thousands of eV free, a good one a few: what is to be had shows in the forces and
    the stress at the start. A potential that falls into a hole (atoms that attract each other ever more strongly)
    passes any floor within a few steps.

    :param frames: the frames at the start
    :param evaluation: with forces, and with the stress where cells are optimized; a perfect lattice that is far too
        dense shows in its stress only
    """
    allowance = _BINDING * frames.counts.astype(np.float64)
    if evaluation.forces is not None:
        sizes = np.linalg.norm(evaluation.forces, axis=1)
        allowance += _DECAY * np.bincount(frames.frame_of_atom, weights=sizes, minlength=len(frames))
    if evaluation.stress is not None:
        virial = np.abs(evaluation.stress).sum(axis=(1, 2)) * np.abs(np.linalg.det(frames.cells))
        allowance += np.nan_to_num(virial)  # NaN: no cell
    return np.asarray(evaluation.energies - allowance)


def find_trouble(
    start: Frames, now: Frames, evaluation: Evaluation, limits: Limits, floors: FloatArray | None = None
) -> dict[int, FrameError]:
    """Return which frames have to be stopped, and why, by their place in the pool. Cheap: made to run every step.

    :param start: the frames as the task got them
    :param now: the same frames as they were evaluated
    :param evaluation: energies, and forces and energies of the members where there are any
    :param floors: what :func:`energy_floors` gave at the start, ``(n,)``; without it energies only have to be finite
    """
    exploded = {
        **_low_energies(evaluation, floors),
        **_far_atoms(start, now, limits),
        **_far_cells(start, now, limits),
        **_not_finite(now, evaluation),
    }
    trouble = {index: FrameError(FrameStatus.EXPLODED, text) for index, text in exploded.items()}
    for index, text in _too_close(now, limits, np.array(list(trouble), dtype=np.int64)).items():
        trouble[index] = FrameError(FrameStatus.ATOMS_TOO_CLOSE, text)
    for index, text in _too_spread(now, evaluation, limits).items():
        trouble.setdefault(index, FrameError(FrameStatus.SPREAD_TOO_LARGE, text))
    return trouble


def _texts(bad: BoolArray, text: Callable[[int], str]) -> dict[int, str]:
    return {int(index): text(int(index)) for index in np.flatnonzero(bad)}


def _most(frames: Frames, values: FloatArray) -> FloatArray:
    """Return the largest value over the atoms of each frame, ``(n,)``; 0 for a frame without atoms."""
    result = np.zeros(len(frames))
    filled = np.flatnonzero(frames.counts > 0)
    if len(filled):
        result[filled] = np.maximum.reduceat(values, frames.offsets[:-1][filled])
    return result


def _any_atom(frames: Frames, bad: BoolArray) -> BoolArray:
    """Return for each frame whether a component of any of its atoms is bad, ``(A, 3)``."""
    return np.asarray(np.bincount(frames.frame_of_atom[np.any(bad, axis=1)], minlength=len(frames)) > 0)


def _largest(vectors: FloatArray) -> FloatArray:
    """Return the largest component of each vector, ``(A,)``."""
    return np.asarray(np.abs(vectors).max(axis=1))


def _not_finite(now: Frames, evaluation: Evaluation) -> dict[int, str]:
    bad = {
        'energy': ~np.isfinite(evaluation.energies),
        'cell': ~np.isfinite(now.cells).all(axis=(1, 2)),
        'geometry': _any_atom(now, ~np.isfinite(now.positions)),
    }
    if evaluation.forces is not None:
        bad['forces'] = _any_atom(now, ~np.isfinite(evaluation.forces))
    return {index: f'the {name} became NaN or infinite' for name in bad for index in np.flatnonzero(bad[name]).tolist()}


def _low_energies(evaluation: Evaluation, floors: FloatArray | None) -> dict[int, str]:
    if floors is None:
        return {}
    energies = evaluation.energies
    reason = 'eV, more below the start than bonds and repulsion can give: the potential has a hole there'
    return _texts(energies < floors, lambda index: f'the energy fell to {energies[index]:.6g} {reason}')


def _far_atoms(start: Frames, now: Frames, limits: Limits) -> dict[int, str]:
    moved = _most(now, _largest(now.positions - start.positions))
    allowed = limits.max_displacement + 10 * _most(start, _largest(start.positions))
    return _texts(moved > allowed, lambda index: f'an atom flew {moved[index]:.4g} angstrom away')


def _far_cells(start: Frames, now: Frames, limits: Limits) -> dict[int, str]:
    changed = (start.cells != now.cells).any(axis=(1, 2)) & np.isfinite(now.cells).all(axis=(1, 2))
    indices = np.flatnonzero(changed & (np.abs(np.linalg.det(start.cells)) > 1e-6))
    stretches = np.linalg.svd(np.linalg.solve(start.cells[indices], now.cells[indices]), compute_uv=False)
    bad = (stretches[:, 0] > limits.max_stretch) | (stretches[:, 2] < 1 / limits.max_stretch)
    text = f'the cell became more than {limits.max_stretch:g} times longer or shorter in one direction'
    return dict.fromkeys(indices[bad].tolist(), text)


def _too_close(now: Frames, limits: Limits, known: IntArray) -> dict[int, str]:
    if limits.minimum_distance <= 0:
        return {}
    indices = np.setdiff1d(np.arange(len(now)), known)
    chosen = now if len(indices) == len(now) else now.select(indices)
    first, second, distances = find_contacts(chosen, limits.minimum_distance)
    found: dict[int, str] = {}
    for pair in np.argsort(distances, kind='stable'):
        frame = chosen.frame_of_atom[first[pair]]
        atoms = sorted(int(item - chosen.offsets[frame]) for item in (first[pair], second[pair]))
        text = f'atoms {atoms[0]} and {atoms[1]} came within {distances[pair]:.3f} angstrom, less than'
        found.setdefault(int(indices[frame]), f'{text} {limits.minimum_distance:g}')
    return found


def _too_spread(now: Frames, evaluation: Evaluation, limits: Limits) -> dict[int, str]:
    if limits.max_qbc is None or evaluation.member_energies is None or len(evaluation.member_energies) < 2:
        return {}
    qbc = query_by_committee(sample_std(evaluation.member_energies), np.maximum(now.counts, 1))
    text = f'more than max_qbc = {limits.max_qbc:g}'
    return _texts(qbc > limits.max_qbc, lambda index: f'the query by committee became {qbc[index]:.4g} eV, {text}')


def bonded_pairs(frames: Frames, factor: float = BONDED) -> tuple[IntArray, IntArray]:
    """Return the pairs of atoms within ``factor`` times the sum of their covalent radii; of molecules only.

    :source: Cordero et al., Dalton Trans. (2008) 2832, for the radii (``ase.data.covalent_radii``)
    """
    from ase.data import covalent_radii

    chosen = np.flatnonzero(~frames.pbc.any(axis=1))
    molecules = frames if len(chosen) == len(frames) else frames.select(chosen)
    radii = np.asarray(covalent_radii)[np.minimum(molecules.numbers, len(covalent_radii) - 1)]
    cutoff = 2 * factor * float(radii.max(initial=0.0))
    pairs = find_half_pairs(molecules.positions, molecules.offsets, molecules.cells, molecules.pbc, cutoff)
    near = pairs.distances <= factor * (radii[pairs.first] + radii[pairs.second])
    atoms = frames.atom_indices(chosen)
    return atoms[pairs.first[near]], atoms[pairs.second[near]]


def components(n_atoms: int, first: IntArray, second: IntArray) -> tuple[int, IntArray]:
    """Return how many pieces bonds make of atoms, and the number of the piece of each, ``(n_atoms,)``."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    bonds = coo_array((np.ones(len(first)), (first, second)), shape=(n_atoms, n_atoms))
    number, labels = connected_components(bonds, directed=False)
    return int(number), np.asarray(labels, dtype=np.int64)


def count_fragments(frames: Frames, factor: float = BONDED) -> IntArray:
    """Return how many pieces each molecule consists of, ``(n,)``; 0 for periodic frames, which are not judged so."""
    labels = components(frames.n_atoms, *bonded_pairs(frames, factor))[1]
    # A piece lies within one frame: it is counted where its first atom is.
    first = np.unique(labels, return_index=True)[1]
    counts = np.bincount(frames.frame_of_atom[first], minlength=len(frames))
    return np.where(frames.pbc.any(axis=1), 0, counts)


def find_broken(start: Frames, now: Frames) -> dict[int, FrameError]:
    """Return which molecules fell into more pieces than they had at the start, by their place in the pool.

    Only numbers are compared: a proton that goes over to another molecule, or a dimer whose parts drift away, breaks
    nothing. What counted as a bond at the start has to become much longer than a bond: see ``BROKEN``.
    """
    before, after = count_fragments(start, BONDED), count_fragments(now, BROKEN)
    text = 'fragments, at the start there were'
    return {
        index: FrameError(FrameStatus.BROKE_APART, f'the molecule fell into {after[index]} {text} {before[index]}')
        for index in np.flatnonzero(after > before).tolist()
    }
