"""Two small models of ethanol, with what the library says of four geometries, and a maker of damaged ones."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

FOLDER = Path(__file__).resolve().parents[3] / 'fixtures' / 'sgdml'
VARIANTS = ('ethanol_kcal_ang', 'ethanol_hartree_bohr')


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    """Return the name of a model without its ending: once in kcal/mol and angstrom, once in Hartree and bohr."""
    return str(request.param)


@pytest.fixture
def folder() -> Path:
    """Return the folder of the models."""
    return FOLDER


@pytest.fixture
def ethanol() -> list[Atoms]:
    """Return the geometries of the reference values, in the order of the model: C C O, hydroxyl H, 2 H, 3 H."""
    structures = json.loads((FOLDER / 'reference.json').read_text())['models']['ethanol_kcal_ang.npz']['structures']
    return [Atoms(item['numbers'], item['positions']) for item in structures]


@pytest.fixture
def alter(tmp_path: Path) -> Callable[..., Path]:
    """Return a maker of models with some members replaced: by an array, by raw bytes, or by nothing (``None``)."""

    def make(**changes: Any) -> Path:
        target = tmp_path / 'altered.npz'
        with zipfile.ZipFile(FOLDER / 'ethanol_kcal_ang.npz') as source, zipfile.ZipFile(target, 'w') as archive:
            for info in source.infolist():
                if info.filename.removesuffix('.npy') not in changes:
                    archive.writestr(info, source.read(info))
            for name, value in changes.items():
                if value is None:
                    continue
                buffer = io.BytesIO()
                if not isinstance(value, bytes):
                    np.save(buffer, np.asarray(value))
                archive.writestr(f'{name}.npy', value if isinstance(value, bytes) else buffer.getvalue())
        return target

    return make
