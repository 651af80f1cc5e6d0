"""What a set of frames consists of: elements, formulas and sizes, by array operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from aiida_mlpotential.worker.frames import Frames

#: At most so many different formulas are kept as an attribute, the most frequent ones.
MAX_FORMULAS = 50


class StructuresError(ValueError):
    """The input is no set of structures; one sentence says why."""


def describe_frames(frames: Frames) -> dict[str, Any]:
    """Return the filterable attributes of a set of frames, by array operations.

    :raises StructuresError: if there are no frames, or an atomic number is none of an element
    """
    if len(frames) == 0:
        raise StructuresError('there are no structures: give at least one')
    formulas, _ = formulas_of(frames)
    unique, counts = np.unique(formulas, return_counts=True)
    # stable: of equally frequent formulas the first in the alphabet are kept
    kept = unique[np.argsort(-counts, kind='stable')[:MAX_FORMULAS]]
    return {
        'n_frames': len(frames),
        'n_atoms': frames.n_atoms,
        'max_atoms': int(frames.counts.max()),
        'elements': _symbols()[np.unique(frames.numbers)].tolist(),
        'formulas': sorted(kept.tolist()),
        'formulas_complete': len(kept) == len(unique),
        'periodic': bool(frames.pbc.any()),
    }


def formulas_of(frames: Frames) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int64]]:
    """Return the Hill formula of each frame, ``(n,)``, and the composition of each, ``(n, elements)``.

    :raises StructuresError: if an atomic number is none of an element
    """
    present, columns = np.unique(frames.numbers, return_inverse=True)
    symbols = _symbols()
    if len(present) and present[-1] >= len(symbols):
        raise StructuresError(f'{present[-1]} is not the atomic number of an element')
    cells = frames.frame_of_atom * len(present) + columns.reshape(-1)
    composition = np.bincount(cells, minlength=len(frames) * len(present)).reshape(len(frames), len(present))
    if not len(present):
        return np.full(len(frames), '', dtype=np.str_), composition
    unique, inverse = np.unique(composition, axis=0, return_inverse=True)
    names = symbols[present].tolist()
    texts = np.array([_hill_formula(dict(zip(names, row, strict=True))) for row in unique.tolist()], dtype=np.str_)
    return texts[inverse.reshape(-1)], composition


def _hill_formula(counts: Mapping[str, int]) -> str:
    """Return a formula with C and H first where there is carbon, else in the order of the alphabet."""
    first = [symbol for symbol in ('C', 'H') if counts.get('C') and counts.get(symbol)]
    rest = sorted(symbol for symbol, count in counts.items() if count and symbol not in first)
    return ''.join(f'{symbol}{counts[symbol] if counts[symbol] > 1 else ""}' for symbol in (*first, *rest))


def _symbols() -> npt.NDArray[np.str_]:
    from ase.data import chemical_symbols

    return np.array(chemical_symbols)
