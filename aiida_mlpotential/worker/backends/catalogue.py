"""The backends in one table: what each can compute, in which units, and where its code is."""

from __future__ import annotations

import dataclasses

from .families import FAMILIES, AseFamily

_ALWAYS = frozenset({'energy', 'forces', 'forces_std', 'hessian'})


@dataclasses.dataclass(frozen=True)
class BackendEntry:
    """One backend.

    :ivar module: module of this package
    :ivar cls: class in it
    :ivar title: what people call it
    :ivar files: what a model is, in words
    :ivar properties: what may be asked for; ``forces_std`` needs two members or more
    :ivar energy_unit: what a model gives where neither user nor file says
    :ivar distance_unit: what a model expects where neither user nor file says
    :ivar precisions: float types of the models
    :ivar libraries: distributions that a job needs
    :ivar analytic_hessian: whether models have analytic second derivatives (not every one needs to)
    :ivar family: how to make the calculator, for a package that is used through its ASE calculator
    """

    module: str
    cls: str
    title: str
    files: str
    properties: frozenset[str]
    energy_unit: str = 'eV'
    distance_unit: str = 'angstrom'
    precisions: tuple[str, ...] = ('single', 'double')
    libraries: tuple[str, ...] = ()
    analytic_hessian: bool = False
    family: AseFamily | None = None


def _entry_of(family: AseFamily) -> BackendEntry:
    return BackendEntry(
        'ase',
        'AseBackend',
        family.title,
        family.files,
        _ALWAYS | family.properties,
        precisions=family.precisions,
        libraries=(family.distribution,),
        analytic_hessian=family.hessian,
        family=family,
    )


#: Every backend by name.
BACKENDS: dict[str, BackendEntry] = {
    'torchani': BackendEntry(
        'torchani',
        'TorchAniBackend',
        'TorchANI',
        'a canonical `.npz`, or a `.pt` with a full ANI, a `Sequential`, TorchScript or a state dict',
        _ALWAYS | {'stress', 'atomic_energies'},
        energy_unit='Hartree',
        libraries=('torch', 'torchani'),
        analytic_hessian=True,
    ),
    'schnetpack': BackendEntry(
        'schnetpack',
        'SchNetPackBackend',
        'SchNetPack 2',
        'the file `best_model` of a training',
        _ALWAYS | {'stress', 'atomic_energies'},
        energy_unit='kcal/mol',
        libraries=('torch', 'schnetpack'),
        analytic_hessian=True,
    ),
    'sgdml': BackendEntry(
        'sgdml',
        'SgdmlBackend',
        'sGDML',
        'a model `.npz`',
        _ALWAYS,
        energy_unit='kcal/mol',
        precisions=('double',),
        libraries=('sgdml', 'torch', 'scipy'),
    ),
    'pinn': BackendEntry(
        'pinn',
        'PinnBackend',
        'PiNN',
        'a directory with `params.yml` and a TensorFlow checkpoint',
        _ALWAYS | {'stress', 'atomic_energies'},
        precisions=('single',),
        libraries=('tensorflow', 'tensorflow-cpu', 'tf-keras', 'pinn'),
        analytic_hessian=True,
    ),
    'ase': BackendEntry(
        'ase',
        'AseBackend',
        'Any ASE calculator',
        'no file: import path and keyword arguments of the calculator',
        _ALWAYS | {'stress', 'atomic_energies', 'charges'},
        precisions=('double',),
    ),
    **{name: _entry_of(family) for name, family in FAMILIES.items()},
}
