"""Frequencies of water, CO2, ethane and benzene against experiment: writes the table of the documentation.

Real jobs: geometries optimized with each model in double precision, then their vibrational analysis. The experimental
columns stand here, each with its source; everything else is computed.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _common import temporary_profile
from ase.build import molecule

MODELS = ('ANI-1ccx', 'ANI-2x')
TARGET = Path(__file__).parents[1] / 'docs' / 'reference' / 'measured' / 'frequencies.md'
FORCE_TOLERANCE = 1e-4

SOURCES = {
    'a': 'T. Shimanouchi, Tables of Molecular Vibrational Frequencies, Consolidated Volume I, NSRDS-NBS 39 (1972), as '
    'in the NIST Chemistry WebBook: fundamentals',
    'b': 'W. S. Benedict, N. Gailar, E. K. Plyler, J. Chem. Phys. 24 (1956) 1139, '
    '[doi:10.1063/1.1742731](https://doi.org/10.1063/1.1742731): harmonic',
    'c': 'I. Suzuki, J. Mol. Spectrosc. 25 (1968) 479: harmonic',
}


@dataclasses.dataclass(frozen=True)
class Mode:
    """A mode of a molecule: what experiment says.

    :ivar symmetry: its irreducible representation; names that begin with e or pi are of two modes
    :ivar fundamental: observed, cm^-1
    :ivar harmonic: derived from observed levels, cm^-1, where known
    """

    symmetry: str
    motion: str
    fundamental: float
    harmonic: float | None = None

    @property
    def degeneracy(self) -> int:
        """Return the number of modes of this frequency."""
        return 2 if self.symmetry.lower().startswith(('e', 'π')) else 1


@dataclasses.dataclass(frozen=True)
class Molecule:
    """A molecule with its modes, and the key of the source of each column."""

    name: str
    ase_name: str
    group: str
    modes: tuple[Mode, ...]
    fundamental_source: str = 'a'
    harmonic_source: str = ''


MOLECULES = (
    Molecule(
        'Water',
        'H2O',
        'C2v',
        (
            Mode('a1', 'bend', 1595, 1648.47),
            Mode('a1', 'symmetric stretch', 3657, 3832.17),
            Mode('b2', 'antisymmetric stretch', 3756, 3942.53),
        ),
        harmonic_source='b',
    ),
    Molecule(
        'Carbon dioxide',
        'CO2',
        'D∞h',
        (
            Mode('Πu', 'bend', 667, 672.85),
            Mode('Σg+', 'symmetric stretch', 1333, 1354.31),
            Mode('Σu+', 'antisymmetric stretch', 2349, 2396.32),
        ),
        harmonic_source='c',
    ),
    Molecule(
        'Ethane',
        'C2H6',
        'D3d',
        (
            Mode('a1u', 'torsion', 289),
            Mode('eu', 'rock', 822),
            Mode('a1g', 'C-C stretch', 995),
            Mode('eg', 'rock', 1190),
            Mode('a2u', 'symmetric deformation', 1379),
            Mode('a1g', 'symmetric deformation', 1388),
            Mode('eg', 'deformation', 1468),
            Mode('eu', 'deformation', 1469),
            Mode('a2u', 'C-H stretch', 2896),
            Mode('a1g', 'C-H stretch', 2954),
            Mode('eg', 'C-H stretch', 2969),
            Mode('eu', 'C-H stretch', 2985),
        ),
    ),
    Molecule(
        'Benzene',
        'C6H6',
        'D6h',
        (
            Mode('e2u', 'ring, out of plane', 410),
            Mode('e2g', 'ring deformation', 606),
            Mode('a2u', 'C-H out of plane', 673),
            Mode('b2g', 'ring, out of plane', 703),
            Mode('e1g', 'C-H out of plane', 849),
            Mode('e2u', 'C-H out of plane', 975),
            Mode('a1g', 'ring breathing', 992),
            Mode('b2g', 'C-H out of plane', 995),
            Mode('b1u', 'ring deformation', 1010),
            Mode('e1u', 'C-H in plane', 1038),
            Mode('b2u', 'C-H in plane', 1150),
            Mode('e2g', 'C-H in plane', 1178),
            Mode('b2u', 'ring stretch', 1310),
            Mode('a2g', 'C-H in plane', 1326),
            Mode('e1u', 'ring stretch', 1486),
            Mode('e2g', 'ring stretch', 1596),
            Mode('e2g', 'C-H stretch', 3047),
            Mode('a1g', 'C-H stretch', 3062),
            Mode('e1u', 'C-H stretch', 3063),
            Mode('b1u', 'C-H stretch', 3068),
        ),
    ),
)


@dataclasses.dataclass(frozen=True)
class Level:
    """A computed frequency, of one mode or of two that are degenerate, with its symmetry.

    :ivar std: spread over the members, cm^-1
    """

    symmetry: str
    frequency: float
    std: float


def compute(model: Any, code: Any) -> Any:
    """Return the results of the vibrational analysis of the optimized molecules."""
    from aiida.engine import run_get_node
    from aiida.plugins import CalculationFactory, DataFactory

    atoms = [molecule(item.ase_name) for item in MOLECULES]
    structures = DataFactory('mlpotential.structures').from_ase(atoms, labels=[item.name for item in MOLECULES])
    inputs = {'code': code, 'model': model, 'structures': structures}
    parameters = {'precision': 'double', 'force_tolerance': FORCE_TOLERANCE}
    outputs, node = run_get_node(
        CalculationFactory('mlpotential.geometry_optimization'), **inputs, parameters=parameters
    )
    assert node.is_finished_ok, node.exit_message
    inputs['structures'] = outputs['output_structures']
    outputs, node = run_get_node(
        CalculationFactory('mlpotential.vibrations'), **inputs, parameters={'expected': 'minimum'}
    )
    assert node.is_finished_ok, node.exit_message
    return outputs['results'], inputs['structures']


def rotation(axis: np.ndarray, degrees: float) -> np.ndarray:
    """Return the matrix of a rotation."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(np.radians(degrees) * np.asarray(axis) / np.linalg.norm(axis)).as_matrix()


def classes(group: str, positions: np.ndarray) -> list[list[np.ndarray]]:
    """Return classes of symmetry operations that tell the representations of a group apart; the main axis is z.

    :param positions: relative to the centre, for the axes that go through the molecule
    """
    z, inversion = np.array([0.0, 0.0, 1.0]), -np.eye(3)
    first = positions[np.argmax(np.hypot(positions[:, 0], positions[:, 1]) > 0.5)]
    azimuth = np.degrees(np.arctan2(first[1], first[0])) + {'D3d': 30.0}.get(group, 0.0)
    across = [rotation(z, azimuth + 60 * number) @ np.array([1.0, 0.0, 0.0]) for number in range(3)]
    halves = [rotation(axis, 180) for axis in across]
    turn = {'C2v': 180, 'D∞h': 90, 'D3d': 120, 'D6h': 60}[group]
    around = [rotation(z, turn)] if group == 'C2v' else [rotation(z, turn), rotation(z, -turn)]
    return {'C2v': [around], 'D∞h': [around, [inversion]]}.get(group, [around, halves, [inversion]])


#: What the sums over each class are on each representation (for one dimension of it).
REPRESENTATIONS: dict[str, dict[tuple[int, ...], str]] = {
    'C2v': {(1,): 'a1', (-1,): 'b2'},
    'D∞h': {(2, 1): 'Σg+', (2, -1): 'Σu+', (0, 1): 'Πg', (0, -1): 'Πu'},
    'D3d': {
        (2, 3, 1): 'a1g',
        (2, -3, 1): 'a2g',
        (-1, 0, 1): 'eg',
        (2, 3, -1): 'a1u',
        (2, -3, -1): 'a2u',
        (-1, 0, -1): 'eu',
    },
    'D6h': {
        (around * 1, across * 3, sign): f'{letter}{"g" if sign > 0 else "u"}'
        for sign in (1, -1)
        for around, across, letter in (
            *((2, 1, 'a1'), (2, -1, 'a2'), (-2, 1, 'b1'), (-2, -1, 'b2')),
            *((1, 0, 'e1'), (-1, 0, 'e2')),
        )
    },
}


def symmetry_of(mode: np.ndarray, positions: np.ndarray, sums: list[list[np.ndarray]], group: str) -> str:
    """Return the representation of a mode: sums over classes are numbers on each, however its partners are mixed.

    :param mode: mass-weighted, of length 1, ``(N, 3)``
    """
    values = []
    for operations in sums:
        total = 0.0
        for matrix in operations:
            moved = positions @ matrix.T
            image = np.linalg.norm(moved[:, None] - positions, axis=2).argmin(axis=1)
            total += float(np.sum(mode[image] * (mode @ matrix.T)))
        values.append(round(total))
        assert abs(total - values[-1]) < 0.1, f'{group}: {total} is no character: is the molecule symmetric?'
    return REPRESENTATIONS[group][tuple(values)]


def levels(results: Any, structures: Any, index: int) -> Iterator[Level]:
    """Yield the computed frequencies of a molecule: each of two modes that belong together once."""
    item, atoms = MOLECULES[index], structures.get_ase(index)
    positions = atoms.positions - atoms.positions.mean(axis=0)
    sums, root = classes(item.group, positions), np.sqrt(atoms.get_masses())[:, None]
    found: dict[str, list[tuple[float, float]]] = {}
    rows = zip(results.frequencies(index), results.frequency_std(index), results.modes(index), strict=True)
    for frequency, std, mode in rows:
        weighted = mode * root
        weighted /= np.linalg.norm(weighted)
        found.setdefault(symmetry_of(weighted, positions, sums, item.group), []).append((frequency, std))
    for name, values in found.items():
        step = Mode(name, '', 0).degeneracy
        for start in range(0, len(values), step):
            pair = np.array(values[start : start + step])
            assert np.ptp(pair[:, 0]) < 2.0, f'{item.name}: {name} at {pair[:, 0]} is not degenerate'
            yield Level(name, *pair.mean(axis=0))


def tables(found: dict[str, list[list[Level]]]) -> str:
    """Return the page: a table for each molecule, then how far the models are off, and the sources."""
    parts, errors = [], {(name, kind): [] for name in MODELS for kind in ('fundamental', 'harmonic')}
    for index, item in enumerate(MOLECULES):
        header = ['Mode', 'Symmetry', f'Observed [{item.fundamental_source}]']
        header += [f'Harmonic [{item.harmonic_source}]'] if item.harmonic_source else []
        lines = [[*header, *MODELS], ['---'] * (len(header) + len(MODELS))]
        queues = {
            name: {
                symmetry: iter(sorted((level for level in found[name][index] if level.symmetry == symmetry), key=_by))
                for symmetry in {level.symmetry for level in found[name][index]}
            }
            for name in MODELS
        }
        for mode in item.modes:
            row = [mode.motion, mode.symmetry, f'{mode.fundamental:.0f}']
            row += [f'{mode.harmonic:.0f}'] if mode.harmonic else []
            for name in MODELS:
                level = next(queues[name][mode.symmetry])
                row.append(f'{level.frequency:.0f} ± {level.std:.0f}')
                for kind in ('fundamental', 'harmonic'):
                    if getattr(mode, kind):
                        errors[name, kind] += [level.frequency - getattr(mode, kind)] * mode.degeneracy
            lines.append(row)
        assert not any(list(queue) for queues_of in queues.values() for queue in queues_of.values())
        table = '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)
        parts.append(f'**{item.name}** ({item.group})\n\n{table}\n')
    summary = [['', *MODELS], ['---'] * 3]
    for kind, text in (('fundamental', 'observed fundamentals'), ('harmonic', 'harmonic values')):
        count = len(errors[MODELS[0], kind])
        cells = [f'{np.mean(errors[name, kind]):+.0f} / {np.mean(np.abs(errors[name, kind])):.0f}' for name in MODELS]
        summary.append([f'against {count} {text}', *cells])
    table = '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in summary)
    parts.append(f'Mean and mean absolute deviation (cm⁻¹):\n\n{table}\n')
    parts.append('\n'.join(f'- [{key}] {text}' for key, text in SOURCES.items()) + '\n')
    return '\n'.join(parts)


def _by(level: Level) -> float:
    return level.frequency


def main() -> None:
    """Compute everything, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--output', type=Path, default=TARGET, help='the page to write')
    output: Path = parser.parse_args().output
    found = {}
    with tempfile.TemporaryDirectory() as folder, temporary_profile(Path(folder)) as code:
        from aiida_mlpotential.library import get_model

        for name in MODELS:
            results, structures = compute(get_model(name, report=print), code)
            found[name] = [list(levels(results, structures, index)) for index in range(len(MOLECULES))]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(tables(found), encoding='utf-8')
    print(f'wrote {output}')


if __name__ == '__main__':
    main()
