"""What users write as constraints: nonsense is named in one sentence, sense becomes rows of arrays."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mlpotential.worker.optimization.constraint_input import (
    expand,
    missing_atoms,
    validate_constraints,
    validate_structures,
)

VALID = [
    {'kind': 'atoms', 'atoms': [0, 1]},
    {'kind': 'components', 'atoms': [2], 'components': 'xz'},
    {'kind': 'bond', 'atoms': [0, 1]},
    {'kind': 'bond', 'atoms': [0, 1], 'value': 1.5, 'structures': [0, 4]},
    {'kind': 'angle', 'atoms': [2, 0, 1], 'value': 109},
    {'kind': 'dihedral', 'atoms': [0, 1, 2, 3], 'value': -60.0},
    {'kind': 'dihedral', 'atoms': [0, 1, 2, 3], 'value': None, 'structures': None},
]


def test_what_makes_sense_is_accepted():
    assert validate_constraints(VALID) is None
    assert validate_constraints([]) is None


@pytest.mark.parametrize(
    ('spec', 'words'),
    [
        ('bond', 'must be a dictionary'),
        ({}, 'kind None; it must be one of atoms, components, bond, angle, dihedral'),
        ({'kind': ['bond'], 'atoms': [0, 1]}, 'it must be one of'),
        ({'kind': 'torsion', 'atoms': [0, 1, 2, 3]}, "'torsion'"),
        ({'kind': 'bond'}, 'needs `atoms`'),
        ({'kind': 'bond', 'atoms': [0]}, 'needs 2 atoms, not 1'),
        ({'kind': 'bond', 'atoms': [0, 1, 2]}, 'needs 2 atoms, not 3'),
        ({'kind': 'angle', 'atoms': [0, 1]}, 'needs 3 atoms'),
        ({'kind': 'dihedral', 'atoms': [0, 1, 2]}, 'needs 4 atoms'),
        ({'kind': 'dihedral', 'atoms': [0, 1, 2, 0]}, 'different atom numbers'),
        ({'kind': 'atoms', 'atoms': []}, 'needs `atoms`'),
        ({'kind': 'atoms', 'atoms': 3}, 'needs `atoms`'),
        ({'kind': 'bond', 'atoms': [0, -1]}, 'counted from 0'),
        ({'kind': 'bond', 'atoms': [0, 1.0]}, 'atom numbers'),
        ({'kind': 'bond', 'atoms': [False, True]}, 'atom numbers'),
        ({'kind': 'bond', 'atoms': [0, 1], 'value': float('nan')}, 'from 0.1 to 1000 angstrom'),
        ({'kind': 'bond', 'atoms': [0, 1], 'value': 0}, 'from 0.1'),
        ({'kind': 'bond', 'atoms': [0, 1], 'value': '1.5'}, "the value '1.5'"),
        ({'kind': 'angle', 'atoms': [0, 1, 2], 'value': 180}, 'from 1 to 179 degrees; to keep atoms in a line'),
        ({'kind': 'dihedral', 'atoms': [0, 1, 2, 3], 'value': 400.0}, 'from -360 to 360 degrees'),
        ({'kind': 'atoms', 'atoms': [0], 'value': 1.0}, "unknown key 'value'; allowed are kind, atoms, structures"),
        ({'kind': 'bond', 'atoms': [0, 1], 'target': 1.0}, "unknown key 'target'"),
        ({'kind': 'components', 'atoms': [0]}, "one to three of 'xyz'"),
        ({'kind': 'components', 'atoms': [0], 'components': 'xx'}, "'xx'"),
        ({'kind': 'components', 'atoms': [0], 'components': ''}, "''"),
        ({'kind': 'components', 'atoms': [0], 'components': ['x']}, 'such as'),
        ({'kind': 'bond', 'atoms': [0, 1], 'structures': []}, '`structures` = []'),
        ({'kind': 'bond', 'atoms': [0, 1], 'structures': [1, 1]}, '`structures` = [1, 1]'),
        ({'kind': 'bond', 'atoms': [0, 1], 'structures': 0}, '`structures` = 0'),
    ],
)
def test_nonsense_is_named(spec, words):
    """One sentence with the number of the constraint, and what would be right."""
    sentence = validate_constraints([*VALID, spec])
    assert sentence is not None
    assert sentence.startswith(f'constraint {len(VALID)} ')
    assert words in sentence
    assert '\n' not in sentence


@pytest.mark.parametrize('value', [None, 'bond', {'kind': 'bond', 'atoms': [0, 1]}, 3])
def test_a_list_is_wanted(value):
    assert 'must be a list of constraints' in validate_constraints(value)


def test_structures_that_are_not_there():
    assert validate_structures(VALID, 5) is None
    assert validate_structures(VALID, 4) == 'constraint 3 names structure 4, but there are only 4, counted from 0'


def test_missing_atoms_by_frame():
    counts = np.array([3, 9, 4])
    specs = [{'kind': 'dihedral', 'atoms': [3, 2, 1, 0]}, {'kind': 'atoms', 'atoms': [4], 'structures': [1, 2]}]
    assert missing_atoms(specs, counts) == {
        0: 'constraint 0 (dihedral) names atom 3, but there are only 3, from 0 on',
        2: 'constraint 1 (atoms) names atom 4, but there are only 4, from 0 on',
    }


def test_rows_of_a_pool():
    """Frames 7 and 4 of the job make the pool: atoms are numbered through, rows lie frame after frame."""
    specs = [
        {'kind': 'bond', 'atoms': [0, 2]},
        {'kind': 'components', 'atoms': [1], 'components': 'zx', 'structures': [4]},
        {'kind': 'atoms', 'atoms': [0], 'structures': [7, 100]},
        {'kind': 'angle', 'atoms': [2, 1, 0], 'value': 100, 'structures': [7]},
    ]
    rows = expand(specs, np.array([0, 3, 8]), np.array([7, 4]))
    fixed = np.argwhere(~rows.free).tolist()
    assert fixed == [[0, 0], [0, 1], [0, 2], [4, 0], [4, 2]]
    assert rows.frame.tolist() == [0, 0, 1]
    assert rows.kind.tolist() == [0, 1, 0]
    assert rows.spec.tolist() == [0, 3, 0]
    assert rows.atoms.tolist() == [[0, 2, 0, 0], [2, 1, 0, 2], [3, 5, 3, 3]]
    np.testing.assert_array_equal(rows.target, [np.nan, 100.0, np.nan])


def test_rows_never_reach_into_the_next_frame():
    with pytest.raises(ValueError, match='an atom that a structure does not have'):
        expand([{'kind': 'atoms', 'atoms': [3]}], np.array([0, 3, 8]), np.array([0, 1]))
