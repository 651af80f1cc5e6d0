"""Checks of frames before any model sees them: the same before submission and in the worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import FrameStatus
from .frames import BoolArray, FloatArray, Frames, IntArray
from .neighbors import ALL_PAIRS_LIMIT, find_half_pairs, ragged_triangle, shortest_period

#: No crystal repeats itself within this distance, angstrom; a search for neighbours would find images without end.
_SHORTEST_PERIOD = 0.5


def atomic_numbers(symbols: Iterable[str]) -> npt.NDArray[np.int64]:
    """Return the atomic numbers of chemical symbols."""
    from ase.data import atomic_numbers as numbers

    return np.array([numbers[symbol] for symbol in symbols], dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class Rules:
    """What frames have to fulfil for a model.

    :ivar elements: chemical symbols that the model knows; ``None`` for any
    :ivar minimum_distance: angstrom; two atoms (or an atom and an image) closer than this are too close
    :ivar atom_order: atomic numbers of the one molecule that the model is for; ``None`` for any molecule
    :ivar reorder: whether the atoms may come in another order
    """

    elements: tuple[str, ...] | None = None
    minimum_distance: float = 0.0
    atom_order: tuple[int, ...] | None = None
    reorder: bool = False

    @classmethod
    def of(cls, elements: tuple[str, ...] | None, options: Mapping[str, Any], parameters: Mapping[str, Any]) -> Rules:
        """Return the rules of a model for a job.

        :param options: ``ModelSpec.options``
        :param parameters: all parameters of the job
        """
        order = options.get('atom_order')
        return cls(
            elements,
            float(parameters['minimum_distance']),
            None if order is None else tuple(int(number) for number in order),
            bool(parameters['reorder_atoms']),
        )


#: Rules that ask for nothing but sound numbers.
NO_RULES = Rules()


def check_frames(frames: Frames, rules: Rules = NO_RULES) -> npt.NDArray[np.int8]:
    """Return the status of every frame, ``(n,)``: ``PENDING`` where nothing speaks against evaluating it."""
    status = np.full(len(frames), FrameStatus.PENDING, dtype=np.int8)

    def mark(bad: BoolArray, value: FrameStatus) -> None:
        status[bad & (status == FrameStatus.PENDING)] = value

    mark(frames.counts == 0, FrameStatus.EMPTY)
    mark(_any_atom(frames, np.any(~np.isfinite(frames.positions), axis=1)), FrameStatus.NON_FINITE_INPUT)
    mark(np.any(~np.isfinite(frames.cells), axis=(1, 2)), FrameStatus.NON_FINITE_INPUT)
    mark(_invalid_cells(frames), FrameStatus.INVALID_CELL)
    if rules.elements is not None:
        unknown = ~np.isin(frames.numbers, atomic_numbers(rules.elements))
        mark(_any_atom(frames, unknown), FrameStatus.UNSUPPORTED_ELEMENT)
    if rules.atom_order is not None:
        mark(~_same_order(frames, rules.atom_order, rules.reorder), FrameStatus.ATOM_ORDER)
    if rules.minimum_distance > 0:
        sound = np.flatnonzero(status == FrameStatus.PENDING)
        status[sound[_too_close(frames.select(sound), rules.minimum_distance)]] = FrameStatus.ATOMS_TOO_CLOSE
    return status


def explain(frames: Frames, index: int, status: int, rules: Rules = NO_RULES) -> str:
    """Return one sentence on why frame ``index`` has a status, with the atom or element at fault."""
    start, stop = frames.offsets[index], frames.offsets[index + 1]
    positions = frames.positions[start:stop]
    if status == FrameStatus.UNSUPPORTED_ELEMENT and rules.elements is not None:
        unknown = sorted(set(_symbols(frames.numbers[start:stop])) - set(rules.elements))
        return f'contains {", ".join(unknown)}; the model knows {", ".join(rules.elements)}'
    if status == FrameStatus.ATOM_ORDER and rules.atom_order is not None:
        return _explain_order(frames.numbers[start:stop], rules.atom_order)
    if status == FrameStatus.NON_FINITE_INPUT:
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        return f'the coordinates of atom {bad[0]} are not finite' if len(bad) else 'a cell vector is not finite'
    if status == FrameStatus.ATOMS_TOO_CLOSE:
        firsts, seconds, distances = close_pairs(frames.select([index]), rules.minimum_distance)
        nearest = int(np.argmin(distances))
        first, second = sorted((int(firsts[nearest]), int(seconds[nearest])))
        distance = distances[nearest]
        return f'atoms {first} and {second} are {distance:.3f} angstrom apart, less than {rules.minimum_distance}'
    return FrameStatus(status).help


def _symbols(numbers: Iterable[int]) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[z] if z < len(chemical_symbols) else f'Z={z}' for z in numbers]


def _explain_order(numbers: npt.NDArray[Any], order: Sequence[int]) -> str:
    text = f'the model is for {len(order)} atoms in the order {" ".join(_symbols(order))}'
    if sorted(numbers.tolist()) == sorted(order):
        return f'{text}, these are in another: sort them, or set `reorder_atoms`'
    return f'{text}, and these are others'


def _same_order(frames: Frames, order: Sequence[int], reorder: bool) -> BoolArray:
    """Return for each frame whether it has the atoms of the model: in their order, unless they may be reordered."""
    result = frames.counts == len(order)
    chosen = np.flatnonzero(result)
    numbers = frames.select(chosen).numbers.reshape(len(chosen), len(order))
    expected = np.array(order)
    if reorder:
        numbers, expected = np.sort(numbers, axis=1), np.sort(expected)
    result[chosen] = (numbers == expected).all(axis=1)
    return np.asarray(result)


def _any_atom(frames: Frames, bad: BoolArray) -> BoolArray:
    """Return for each frame whether any of its atoms is bad."""
    return np.bincount(frames.frame_of_atom[bad], minlength=len(frames)) > 0


def _invalid_cells(frames: Frames) -> BoolArray:
    """Return for each frame whether its periodic cell vectors are zero, linearly dependent or absurdly short."""
    result = np.zeros(len(frames), dtype=bool)
    periodic = np.flatnonzero(frames.pbc.any(axis=1) & np.isfinite(frames.cells).all(axis=(1, 2)))
    vectors = np.where(frames.pbc[periodic][..., None], frames.cells[periodic], 0.0)
    values = np.linalg.svd(vectors, compute_uv=False)
    smallest = np.take_along_axis(values, frames.pbc[periodic].sum(axis=1)[:, None] - 1, axis=1)[:, 0]
    for index in periodic[smallest < 2 * _SHORTEST_PERIOD]:  # few: a strongly skewed cell may still be a sound one
        result[index] = shortest_period(frames.cells[index], frames.pbc[index]) < _SHORTEST_PERIOD
    return result


def _too_close(frames: Frames, minimum_distance: float, chunk_atoms: int = 65536) -> npt.NDArray[np.int64]:
    """Return the indices of the frames with two atoms nearer than ``minimum_distance``, in bounded memory."""
    found = []
    start = 0
    while start < len(frames):
        stop = int(np.searchsorted(frames.offsets, frames.offsets[start] + chunk_atoms, side='right')) - 1
        stop = min(max(stop, start + 1), len(frames))
        chunk = frames.select(np.arange(start, stop))
        first, _, distances = close_pairs(chunk, minimum_distance)
        found.append(start + np.unique(chunk.frame_of_atom[first[distances < minimum_distance]]))
        start = stop
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def close_pairs(frames: Frames, distance: float) -> tuple[IntArray, IntArray, FloatArray]:
    """Return all pairs of atoms of the same frame within a short distance, and how far apart they are.

    Small frames whose cells are wider than twice the distance, nearly all, are done at once: there the image that is
    nearest in fractional coordinates is the only one that can be within the distance.
    """
    simple = (frames.counts <= ALL_PAIRS_LIMIT) & (_heights(frames) > 2 * distance)
    chosen = frames.select(np.flatnonzero(simple))
    first, second = ragged_triangle(chosen.counts)
    vectors = chosen.positions[second] - chosen.positions[first]
    crystals = np.any(chosen.pbc, axis=1)
    if crystals.any():
        cells = np.where(crystals[:, None, None], chosen.cells, np.eye(3))
        frame = chosen.frame_of_atom[first]
        fractional = np.einsum('pi,pij->pj', vectors, np.linalg.inv(cells)[frame])
        shifts = np.where(crystals[frame][:, None], np.round(fractional), 0.0)
        vectors -= np.einsum('pi,pij->pj', shifts, cells[frame])
    distances = np.linalg.norm(vectors, axis=1)
    near = distances <= distance
    rest = frames.select(np.flatnonzero(~simple))
    pairs = find_half_pairs(rest.positions, rest.offsets, rest.cells, rest.pbc, distance)
    atoms, others = (frames.atom_indices(np.flatnonzero(mask)) for mask in (simple, ~simple))
    return (
        np.concatenate([atoms[first[near]], others[pairs.first]]),
        np.concatenate([atoms[second[near]], others[pairs.second]]),
        np.concatenate([distances[near], pairs.distances]),
    )


def _heights(frames: Frames) -> FloatArray:
    """Return the smallest width of each cell between opposite faces: infinite for molecules, 0 for slabs and wires."""
    heights = np.full(len(frames), np.inf)
    heights[frames.pbc.any(axis=1)] = 0.0
    crystals = np.flatnonzero(frames.pbc.all(axis=1))
    reciprocal = np.linalg.inv(frames.cells[crystals])
    heights[crystals] = 1 / np.linalg.norm(reciprocal, axis=1).max(axis=1)
    return heights
