"""How each backend is installed: one row a backend, with versions that are known to work together."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

#: Where torch publishes the builds for one device each, in a folder of the device's name.
TORCH_INDEX = 'https://download.pytorch.org/whl'

TORCH = 'torch==2.13.0'
#: What the worker needs whichever the backend; bounded by the versions that were tried.
WORKER = ('numpy>=1.26,<2.5', 'scipy>=1.11,<1.18', 'ase>=3.23,<3.30')

_DEVICE = re.compile(r'cpu|cu\d{3}')
_NAME = re.compile(r'[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?')


class RecipeError(ValueError):
    """A backend, device or requirement that no recipe covers; the message says what there is."""


class Python(NamedTuple):
    """Major and minor version of a Python interpreter."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f'{self.major}.{self.minor}'


_OLDEST, _NEWEST = Python(3, 10), Python(3, 13)


@dataclasses.dataclass(frozen=True)
class Step:
    """One call of pip.

    :ivar title: what the user reads while it runs
    :ivar requirements: what pip is asked for
    :ivar dependencies: whether pip also installs what they declare to need; off where their declarations are wrong
    :ivar binary: whether only wheels may be used, so that nothing is compiled
    :ivar any_python: whether to ignore which versions of Python they declare
    """

    title: str
    requirements: tuple[str, ...]
    dependencies: bool = True
    binary: bool = True
    any_python: bool = False

    @property
    def has_torch(self) -> bool:
        """Return whether torch is asked for by name, which has a build for each device."""
        return any(project_of(requirement) == 'torch' for requirement in self.requirements)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One backend.

    :ivar backend: name of the recipe, which is that of the backend or of a family of calculators
    :ivar project: distribution that makes the backend; ``version`` is its own
    :ivar steps: calls of pip, in this order
    :ivar oldest: oldest Python with wheels of all that is needed
    :ivar newest: newest such Python
    :ivar devices: whether builds for other devices than the CPU can be chosen
    :ivar family: whether it is evaluated by the generic ``ase`` backend
    """

    backend: str
    project: str
    version: str
    steps: tuple[Step, ...]
    oldest: Python = _OLDEST
    newest: Python = _NEWEST
    devices: bool = True
    family: bool = False

    @property
    def name(self) -> str:
        """Return the name of its environment."""
        return f'{self.backend}-{self.version}'

    def fits(self, python: Python) -> bool:
        """Return whether everything can be installed for a version of Python."""
        return self.oldest <= python <= self.newest


RECIPES: dict[str, Recipe] = {
    recipe.backend: recipe
    for recipe in (
        Recipe(
            'torchani', 'torchani', '2.9.0', (Step('torch', (TORCH, *WORKER)), Step('TorchANI', ('torchani==2.9.0',)))
        ),
        Recipe(
            'schnetpack',
            'schnetpack',
            '2.1.1',
            (
                Step('torch', (TORCH, *WORKER)),
                # omegaconf asks for a release of this one that has no wheel.
                Step('ANTLR runtime', ('antlr4-python3-runtime==4.9.3',), binary=False),
                Step(
                    'what SchNetPack imports',
                    (
                        'h5py>=3.11,<4',
                        'matscipy==1.3.1',
                        'omegaconf==2.3.1',
                        'pytorch-lightning==2.6.6',
                        'pyyaml>=6,<7',
                        'rich>=13,<16',
                        'torchmetrics==1.9.0',
                        'tqdm>=4.66,<5',
                    ),
                ),
                # It declares sympy<=1.12, which no torch of today can be installed with.
                Step(
                    'SchNetPack',
                    ('schnetpack==2.1.1', 'torch-ema==0.3', 'dirsync==2.2.6', 'fasteners==0.20'),
                    dependencies=False,
                ),
            ),
        ),
        Recipe('sgdml', 'sgdml', '1.0.3', (Step('torch', (TORCH, *WORKER)), Step('sGDML', ('sgdml==1.0.3',)))),
        Recipe(
            'pinn',
            'PiNN',
            '2.0.0',
            (
                Step('TensorFlow', ('tensorflow-cpu==2.21.0', 'tf-keras==2.21.0', 'pyyaml>=6,<7', *WORKER)),
                # The project of the name pinn on PyPI is another one. This one declares numpy<2 and Python<3.11.
                Step(
                    'PiNN',
                    ('PiNN @ git+https://github.com/Teoroo-CMC/PiNN.git@c1cfd5c0c7f5f44cb05b6aa0d6565e7d25a73230',),
                    dependencies=False,
                    binary=False,
                    any_python=True,
                ),
            ),
            devices=False,
        ),
        Recipe(
            'chgnet',
            'chgnet',
            '0.4.2',
            (
                Step('torch', (TORCH, *WORKER)),
                Step('nvidia-ml-py3', ('nvidia-ml-py3==7.352.0',), binary=False),  # which has no wheel
                Step('CHGNet', ('chgnet==0.4.2',)),
            ),
            family=True,
        ),
        Recipe(
            'mace',
            'mace-torch',
            '0.3.16',
            (
                Step('torch', (TORCH, *WORKER)),
                Step('python-hostlist', ('python-hostlist==2.3.0',), binary=False),  # which has no wheel
                Step('MACE', ('mace-torch==0.3.16',)),
            ),
            family=True,
        ),
        Recipe(
            'aimnet2',
            'aimnet',
            '0.2.5',
            (Step('torch', (TORCH, *WORKER)), Step('AIMNet2', ('aimnet==0.2.5',))),
            oldest=Python(3, 11),
            family=True,
        ),
        Recipe(
            'sevennet',
            'sevenn',
            '0.13.0',
            (Step('torch', (TORCH, *WORKER)), Step('SevenNet', ('sevenn==0.13.0',))),
            family=True,
        ),
    )
}


def get_recipe(backend: str) -> Recipe:
    """Return the recipe of a backend; an unknown name raises a :class:`RecipeError` that names all."""
    try:
        return RECIPES[backend]
    except KeyError:
        raise RecipeError(
            f'there is no recipe for {backend!r}; there are {", ".join(sorted(RECIPES))}. For anything else make an '
            'environment by hand, and a Code of its Python with `verdi code create core.code.installed`.'
        ) from None


def check_device(recipe: Recipe, device: str) -> None:
    """Raise a :class:`RecipeError` if a backend cannot be installed for a device; ``''`` leaves the choice to pip."""
    if device and _DEVICE.fullmatch(device) is None:
        raise RecipeError(
            f'{device!r} is no build of torch: write `cpu`, or `cu` with the version of CUDA as in cu130.'
        )
    if device not in ('', 'cpu') and not recipe.devices:
        raise RecipeError(
            f'the recipe for {recipe.backend} is for the CPU only: leave out --device, or make an environment by hand.'
        )


def project_of(requirement: str) -> str:
    """Return the normalised name of the project that a requirement asks for; empty for a path or an address."""
    match = _NAME.match(requirement)
    if match is None:
        return ''
    rest = requirement[match.end() :].lstrip()
    if rest and rest[0] not in '[=<>!~;@':  # the rest of a path, or of an address as in git+https://
        return ''
    return re.sub(r'[-_.]+', '-', match[0]).lower()


def with_requirements(recipe: Recipe, requirements: Sequence[str]) -> tuple[Step, ...]:
    """Return the steps with some requirements replaced.

    A requirement that begins with the name of a project takes the place of the one for that project; a path or an
    address that of the backend itself; anything else is installed in addition, in the last step.
    """
    steps = list(recipe.steps)
    for requirement in requirements:
        if requirement.startswith('-') or not requirement.strip():
            raise RecipeError(f'{requirement!r} is no requirement: write it as pip does, such as torch==2.12.0.')
        project = project_of(requirement) or project_of(recipe.project)
        places = [i for i, step in enumerate(steps) if project in map(project_of, step.requirements)]
        place = places[0] if places else len(steps) - 1
        kept = [item for item in steps[place].requirements if project_of(item) != project]
        own = project == project_of(recipe.project) and not project_of(requirement)
        steps[place] = dataclasses.replace(
            steps[place],
            requirements=(*kept, requirement),
            # A source tree or repository is no wheel.
            binary=steps[place].binary and not own and '@' not in requirement,
        )
    return tuple(steps)


def for_device(requirements: Sequence[str], device: str) -> tuple[str, ...]:
    """Return requirements in which torch is the build for a device, such as ``torch==2.13.0+cpu``."""

    def choose(requirement: str) -> str:
        exact = re.fullmatch(r'torch\s*==\s*([\w.]+)', requirement)
        return f'torch=={exact[1]}+{device}' if exact and device else requirement

    return tuple(map(choose, requirements))
