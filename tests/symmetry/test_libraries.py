"""A library that is missing is named with the command that brings it."""

from __future__ import annotations

import sys

import pytest

from aiida_mlpotential.symmetry.libraries import MissingLibraryError, import_library


def test_a_library_that_is_there():
    assert import_library('numpy.linalg').__name__ == 'numpy.linalg'


def test_a_library_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'spglib', None)
    with pytest.raises(MissingLibraryError, match=r"without spglib: run `pip install 'aiida-mlpotential\[symmetry\]'`"):
        import_library('spglib')
