"""The trained model of the fixtures, and small models with random weights, for the tests of the SchNetPack backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms

from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.schema import ModelSpec

FIXTURES = Path(__file__).parents[3] / 'fixtures' / 'schnetpack'


@pytest.fixture
def best_model() -> Path:
    """Return a trained model: PaiNN, cutoff 5 angstrom, kcal/mol."""
    return FIXTURES / 'best_model'


@pytest.fixture(scope='session')
def reference() -> list[dict[str, Any]]:
    """Return structures with energies, forces and stress that SchNetPack itself computed for the trained model."""
    content = json.loads((FIXTURES / 'reference.json').read_text())
    return [*content['structures'], *content['periodic']]


@pytest.fixture(scope='session')
def reference_frames(reference: list[dict[str, Any]]) -> Frames:
    """Return the structures of the reference."""
    return Frames.from_ase(
        Atoms(item['numbers'], item['positions'], cell=item.get('cell'), pbc=item.get('pbc', False))
        for item in reference
    )


@pytest.fixture
def spec() -> Callable[..., ModelSpec]:
    """Return a maker of model specifications."""

    def make(path: Path, **fields: Any) -> ModelSpec:
        defaults: dict[str, Any] = {'elements': ('H', 'C', 'O'), 'energy_unit': 'kcal/mol'}
        return ModelSpec('test', 'schnetpack', '', files={path.name: ''}, **{**defaults, **fields})

    return make


@pytest.fixture(scope='session')
def library() -> Any:
    """Return the schnetpack module."""
    pytest.importorskip('torch')
    if importlib_spec('schnetpack') is None:
        pytest.skip('SchNetPack is not installed: pip install --no-deps schnetpack, and what it needs')
    from aiida_mlpotential.worker.backends.schnetpack.library import import_schnetpack

    return import_schnetpack()


def importlib_spec(name: str) -> Any:
    """Return whether a library is installed, without importing it."""
    import importlib.util

    return importlib.util.find_spec(name)


def _representation(library: Any, kind: str, cutoff: float) -> Any:
    common = {
        'n_atom_basis': 8,
        'n_interactions': 2,
        'radial_basis': library.nn.GaussianRBF(n_rbf=6, cutoff=cutoff),
        'cutoff_fn': library.nn.CosineCutoff(cutoff),
    }
    if kind == 'SO3net':
        return library.representation.SO3net(lmax=1, **common)
    if kind == 'FieldSchNet':
        return library.representation.FieldSchNet(external_fields=['electric_field'], **common)
    return getattr(library.representation, kind)(**common)


@pytest.fixture
def make_model(library: Any) -> Callable[..., Any]:
    """Return a maker of networks with random weights; ``outputs`` and ``postprocessors`` are lists of modules."""
    import torch

    def make(
        kind: str = 'SchNet',
        cutoff: float = 4.0,
        key: str = 'energy',
        forces: bool = True,
        postprocessors: tuple[Any, ...] = (),
        outputs: tuple[Any, ...] = (),
    ) -> Any:
        torch.manual_seed(7)
        atomistic = library.atomistic
        modules = outputs or (atomistic.Atomwise(n_in=8, output_key=key),)
        if forces:
            modules = (*modules, atomistic.Forces(energy_key=key, force_key=f'{key}_forces'))
        inputs = [atomistic.PairwiseDistances()]
        if kind == 'FieldSchNet':
            inputs.append(atomistic.StaticExternalFields(external_fields=['electric_field']))
        model = library.model.NeuralNetworkPotential(
            representation=_representation(library, kind, cutoff),
            input_modules=inputs,
            output_modules=list(modules),
            postprocessors=list(postprocessors),
        )
        with torch.no_grad():  # larger than the initial weights, so that cutoffs and neighbours matter
            for parameter in model.parameters():
                parameter.mul_(1.5)
        return model

    return make
