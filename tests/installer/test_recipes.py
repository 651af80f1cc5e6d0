"""The recipes are consistent, and requirements of the user take the right place."""

from __future__ import annotations

import dataclasses
import re

import pytest

from aiida_mlpotential.installer import recipes
from aiida_mlpotential.installer.recipes import RECIPES, Python, RecipeError, Step, project_of, with_requirements
from aiida_mlpotential.worker.backends import BACKENDS


@pytest.mark.parametrize('recipe', RECIPES.values(), ids=lambda recipe: recipe.backend)
def test_each_recipe(recipe: recipes.Recipe) -> None:
    """It is for a backend that exists, pins that, has what the worker needs, and pins torch as all others do."""
    entry = BACKENDS[recipe.backend]
    assert recipe.family == (entry.family is not None)
    if entry.family is not None:
        assert recipe.project == entry.family.distribution
    requirements = [requirement for step in recipe.steps for requirement in step.requirements]
    own = [item for item in requirements if project_of(item) == project_of(recipe.project)]
    assert len(own) == 1
    assert own[0] == f'{recipe.project}=={recipe.version}' or re.search(r'@[0-9a-f]{40}$', own[0])
    assert set(recipes.WORKER) <= set(requirements)
    assert {item for item in requirements if project_of(item) == 'torch'} <= {recipes.TORCH}
    assert len(set(map(project_of, requirements))) == len(requirements)
    assert recipe.fits(Python(3, 11))
    assert not recipe.fits(Python(3, 9))
    assert not recipe.fits(Python(3, 99))


def test_pinn_never_comes_from_pypi() -> None:
    """There the name belongs to another project."""
    last = RECIPES['pinn'].steps[-1]
    assert last.requirements[0].startswith('PiNN @ git+https://')
    assert not last.dependencies


def test_unknown_backend() -> None:
    """The message has all names and the way without a recipe."""
    with pytest.raises(RecipeError, match=r"no recipe for 'nequip'; there are aimnet2, chgnet.*verdi code create"):
        recipes.get_recipe('nequip')


@pytest.mark.parametrize(
    ('requirement', 'project'),
    [
        ('torch', 'torch'),
        ('torch==2.13.0', 'torch'),
        ('Torch >= 2, <3; python_version > "3"', 'torch'),
        ('pytorch_lightning[extra]==2', 'pytorch-lightning'),
        ('PiNN @ git+https://example.org/x.git', 'pinn'),
        ('git+https://example.org/x.git', ''),
        ('/somewhere/pinn', ''),
        ('./pinn', ''),
        ('folder/pinn', ''),
    ],
)
def test_project_of(requirement: str, project: str) -> None:
    """The name is normalised as pip does; paths and addresses have none."""
    assert project_of(requirement) == project


def test_requirement_of_a_project() -> None:
    """It replaces the one for that project, wherever that is, and nothing else."""
    steps = with_requirements(RECIPES['torchani'], ['torch==2.12.0', 'zarr<3'])
    assert steps[0].requirements == (*recipes.WORKER, 'torch==2.12.0')
    assert steps[1].requirements == ('torchani==2.9.0', 'zarr<3')
    assert all(step.binary for step in steps)


@pytest.mark.parametrize('requirement', ['/src/pinn', 'git+https://example.org/pinn.git', 'PiNN @ file:///src/pinn'])
def test_requirement_of_the_backend_itself(requirement: str) -> None:
    """A path or an address takes the place of the backend, with the settings of its step."""
    before, after = RECIPES['pinn'].steps[-1], with_requirements(RECIPES['pinn'], [requirement])[-1]
    assert after == dataclasses.replace(before, requirements=(requirement,))


def test_source_tree_of_a_backend_that_has_wheels() -> None:
    """Then that step may build; the others still may not."""
    steps = with_requirements(RECIPES['sgdml'], ['/src/sgdml'])
    assert steps[1] == Step('sGDML', ('/src/sgdml',), binary=False)
    assert steps[0].binary


@pytest.mark.parametrize('requirement', ['--index-url=https://example.org', '-r x.txt', ' ', ''])
def test_options_are_no_requirements(requirement: str) -> None:
    """Nothing that pip would take for an option gets there."""
    with pytest.raises(RecipeError, match='is no requirement'):
        with_requirements(RECIPES['sgdml'], [requirement])


def test_devices() -> None:
    """Builds of torch are chosen by their local version; only what torch calls so is accepted."""
    assert recipes.for_device(('numpy', 'torch==2.13.0'), 'cu130') == ('numpy', 'torch==2.13.0+cu130')
    assert recipes.for_device(('torch==2.13.0',), '') == ('torch==2.13.0',)
    assert recipes.for_device(('torchani==2.9.0', 'torch @ file:///x'), 'cpu') == (
        'torchani==2.9.0',
        'torch @ file:///x',
    )
    for device in ('', 'cpu', 'cu130'):
        recipes.check_device(RECIPES['torchani'], device)
    for device in ('cuda', 'cuda:0', 'cpu;rm', 'cu1'):
        with pytest.raises(RecipeError, match='is no build of torch'):
            recipes.check_device(RECIPES['torchani'], device)
    recipes.check_device(RECIPES['pinn'], 'cpu')
    with pytest.raises(RecipeError, match='pinn is for the CPU only'):
        recipes.check_device(RECIPES['pinn'], 'cu130')
