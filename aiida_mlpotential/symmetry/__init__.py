"""Symmetry of structures, found by libraries where the user submits: space groups (spglib), point groups (pymatgen)."""

from .libraries import MissingLibraryError
from .point_groups import symmetry_numbers
from .space_groups import TooManyOperationsError, symmetry_arrays

__all__ = ('MissingLibraryError', 'TooManyOperationsError', 'symmetry_arrays', 'symmetry_numbers')
