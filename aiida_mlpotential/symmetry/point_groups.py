"""Point groups and rotational symmetry numbers of molecules, found by pymatgen and checked against themselves."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from ..worker.frames import FloatArray, Frames, IntArray
from .libraries import import_library

#: What a molecule has whose point group was not found.
UNKNOWN = 'unknown'
#: Principal values of the inertia, scaled to a sum of 2, may differ by as much between equivalent axes of a molecule
#: that an optimization left some hundredths of an angstrom off.
_MOST_UNEQUAL = 0.1
#: Largest molecule that is looked at.
_MOST_ATOMS = 1000
#: Operations that are tried at most, some seconds: among hundreds of like atoms there are millions of candidates.
_MOST_TRIALS = 50_000
#: Order of the largest point group that is not linear.
_LARGEST_ORDER = 120
#: Names of pymatgen that are not those of the textbooks.
_NAMES = {'D*h': 'Dinfh', 'C*v': 'Cinfv', 'C1h': 'Cs', 'C1v': 'Cs', 'S2': 'Ci'}
_CUBIC = {'T': 12, 'O': 24, 'I': 60}


def symmetry_numbers(frames: Frames, tolerance: float = 0.1) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """Return the rotational symmetry number and the point group of each molecule.

    Isotopes are not known: equal elements have equal masses.

    :param frames: n frames
    :param tolerance: angstrom; atoms this near to where an operation wants them count as there. Geometries that were
        optimized to some meV/angstrom are off by less than 0.02
    :return: symmetry numbers, ``(n,)``, 0 where none was found or the frame is periodic; and Schoenflies symbols, such
        as ``C2v``, ``Dinfh``, ``Kh`` for an atom, ``unknown``, and an empty text for periodic frames
    :raises MissingLibraryError: without pymatgen
    """
    symbols = [point_group(frames, index, tolerance) for index in range(len(frames))]
    return np.array([rotational_number(symbol) for symbol in symbols], dtype=np.int32), tuple(symbols)


def rotational_number(symbol: str) -> int:
    """Return the number of rotations of a point group (1 for Cinfv, 2 for Dinfh), 0 for what is no point group.

    :source: Fernandez-Ramos et al., Theor. Chem. Acc. 118 (2007) 813, table 1
    """
    fixed = {'C1': 1, 'Ci': 1, 'Cs': 1, 'Cinfv': 1, 'Kh': 1, 'Dinfh': 2}
    if symbol in fixed:
        return fixed[symbol]
    if symbol.rstrip('hd') in _CUBIC:
        return _CUBIC[symbol.rstrip('hd')]
    match = re.fullmatch(r'([CDS])(\d+)[vhd]?', symbol)
    if match is None:
        return 0
    order = int(match[2])
    return {'C': order, 'D': 2 * order, 'S': order // 2}[match[1]]


def point_group(frames: Frames, index: int, tolerance: float) -> str:
    """Return the Schoenflies symbol of one frame; see :func:`symmetry_numbers`."""
    if frames.pbc[index].any():
        return ''
    atoms = slice(frames.offsets[index], frames.offsets[index + 1])
    numbers, positions = frames.numbers[atoms].astype(np.int64), frames.positions[atoms]
    if len(numbers) < 2:
        return 'Kh' if len(numbers) else UNKNOWN
    if len(numbers) > _MOST_ATOMS or not np.isfinite(positions).all():
        return UNKNOWN
    centred = positions - positions.mean(axis=0)
    along = centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1]  # the longest extent first, the thickness last
    linear = bool(np.linalg.norm(along[:, 1:], axis=1).max() <= tolerance)
    if not linear and _all_different(numbers, positions, 2 * tolerance):
        return 'Cs' if np.abs(along[:, 2]).max() <= tolerance else 'C1'
    molecule = import_library('pymatgen.core').Molecule(numbers.tolist(), positions)
    values = _principal_values(molecule)
    return max(_by_library(molecule, tolerance, limit, linear) for limit in _eigenvalue_tolerances(values, linear))[1]


def _principal_values(molecule: Any) -> FloatArray:
    """Return the principal values of the inertia, scaled to a sum of 2, largest first."""
    centred = np.asarray(molecule.get_centered_molecule().cart_coords)
    masses = np.array([float(site.species.weight) for site in molecule])
    squares = np.einsum('a,ai,aj->ij', masses, centred, centred)
    return np.asarray(1.0 - np.linalg.eigvalsh(squares / np.trace(squares)))


def _eigenvalue_tolerances(values: FloatArray, linear: bool) -> list[float]:
    """Return with which tolerances pymatgen takes a molecule for each kind of top that it may be.

    It judges by the inertia first: an asymmetric, symmetric or spherical top is searched for different axes. Which one
    it is, an inexact geometry leaves open, so all are tried. (Slender molecules may pass for linear with the larger
    ones, which is not believed.)
    """
    if linear:
        return [_MOST_UNEQUAL]
    gaps = sorted([values[0] - values[1], values[1] - values[2], values[0] - values[2]])
    tops = (1.01 * gap + 1e-9 for gap in (gaps[0], gaps[2]))
    return [0.5 * gaps[0], *(value for value in tops if value < _MOST_UNEQUAL)]


def _all_different(numbers: IntArray, positions: FloatArray, tolerance: float) -> bool:
    """Return whether no two atoms can be exchanged: they see different distances to the others.

    Then no operation but the identity is left, and the reflection in the plane of a planar molecule. Most large
    molecules are of this kind.
    """
    from scipy.spatial.distance import cdist

    order = np.argsort(numbers, kind='stable')
    numbers, distances = numbers[order], cdist(positions[order], positions[order])
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    views = np.concatenate([np.sort(part, axis=1) for part in np.split(distances, starts[1:], axis=1)], axis=1)
    for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
        for first in range(start, stop - 1):
            if np.any(np.abs(views[first + 1 : stop] - views[first]).max(axis=1) <= tolerance):
                return False
    return True


def _by_library(molecule: Any, tolerance: float, eigenvalue_tolerance: float, linear: bool) -> tuple[int, str]:
    """Return the order and the symbol of what pymatgen finds, ``(0, 'unknown')`` where it contradicts itself or fails.

    The operations that it found, as permutations of the atoms, have to make a group with as many rotations as its
    symbol says: it takes near-spherical molecules for cubic and slender ones for linear ones.
    """
    try:
        result = _analyzer()(molecule, tolerance=tolerance, eigen_tolerance=eigenvalue_tolerance)
    except Exception:  # whatever went wrong in it, the point group is not known
        return 0, UNKNOWN
    symbol = _NAMES.get(result.sch_symbol, result.sch_symbol)
    if linear or symbol in ('Cinfv', 'Dinfh'):
        return (1, symbol) if linear and symbol in ('Cinfv', 'Dinfh') else (0, UNKNOWN)
    rotations, order = _group(result)
    return (order, symbol) if rotations == rotational_number(symbol) else (0, UNKNOWN)


@functools.cache
def _analyzer() -> Any:
    """Return pymatgen's analyzer with an end to its trials."""
    base: Any = import_library('pymatgen.symmetry.analyzer').PointGroupAnalyzer

    class Analyzer(base):  # type: ignore[misc]
        trials = 0

        def is_valid_op(self, symm_op: Any) -> bool:
            self.trials += 1
            if self.trials > _MOST_TRIALS:
                raise TimeoutError(f'no point group after {_MOST_TRIALS} trials')
            return bool(super().is_valid_op(symm_op))

    return Analyzer


def _group(result: Any) -> tuple[int, int]:
    """Return how many rotations, and how many operations in all, the operations of a molecule make together.

    An operation is known by the atoms that it exchanges and whether it is a rotation: so products are exact, and the
    group closes however inexact the geometry. More than the largest point group has: ``(0, 0)``.
    """
    from scipy.spatial import cKDTree

    points = np.asarray(result.centered_mol.cart_coords)
    tree = cKDTree(points)
    generators = set()
    for operation in result.symmops:
        matrix = np.asarray(operation.rotation_matrix)
        partners = tree.query(points @ matrix.T)[1]
        generators.add((tuple(partners.tolist()), bool(np.linalg.det(matrix) > 0)))
    identity = (tuple(range(len(points))), True)
    group, new = {identity}, [identity]
    while new:
        products = {(tuple(b[i] for i in a), x == y) for a, x in new for b, y in generators}
        new = list(products - group)
        group.update(new)
        if len(group) > _LARGEST_ORDER:
            return 0, 0
    return sum(proper for _, proper in group), len(group)
