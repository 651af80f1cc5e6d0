"""Import the libraries that find symmetry, or say how to get them."""

from __future__ import annotations

import importlib
from typing import Any


class MissingLibraryError(ImportError):
    """A library that finds symmetry is not installed; the message says what to do."""


def import_library(module: str) -> Any:
    """Import a module of spglib or pymatgen.

    :raises MissingLibraryError: if the library is not there
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        library = module.split('.')[0]
        text = f"the symmetry cannot be found without {library}: run `pip install 'aiida-mlpotential[symmetry]'`"
        raise MissingLibraryError(f'{text} ({error})') from error
