"""Packages that are used through their ASE calculator: one entry each says how to make it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

#: What a calculator is told for each precision, where it can be told.
FLOAT_TYPES = {'single': 'float32', 'double': 'float64'}


@dataclasses.dataclass(frozen=True)
class AseFamily:
    """How the calculator of a package is made, and what it can do. Energies and lengths are eV and angstrom.

    :ivar title: what people call it
    :ivar calculator: import path of the class
    :ivar distribution: name on PyPI
    :ivar files: what a model is, in words
    :ivar help: what it is for, and what a user has to know, in one or two sentences
    :ivar properties: what may be asked for beside energy, forces, forces_std and hessian
    :ivar model_argument: keyword that takes the parameter file; empty where it takes none
    :ivar model_loader: ``module:callable`` that turns the path into what ``model_argument`` wants; empty for the path
    :ivar device_argument: keyword that takes the device, spelt as torch does; empty where it takes none
    :ivar device_to_loader: whether that keyword is one of ``model_loader``, not of the calculator
    :ivar precision_argument: keyword that takes a value of ``FLOAT_TYPES``; empty where it takes none
    :ivar precision: float type where it cannot be told
    :ivar kwargs: further keyword arguments, which those of a model node override
    :ivar default_model: whether the package has the parameters of a model in it, used where there is no file; one
        that is fetched from elsewhere does not count, as nobody could say later which it was
    :ivar needs_cell: whether it fails on structures without a cell, though it heeds which directions are periodic
    :ivar hessian: whether the calculator has ``get_hessian(atoms)`` in eV/angstrom^2, for some structures at least
    :ivar elements: chemical symbols of the model in the package; ``None`` where that depends on the file
    """

    title: str
    calculator: str
    distribution: str = ''
    files: str = ''
    help: str = ''
    properties: frozenset[str] = frozenset({'stress'})
    model_argument: str = ''
    model_loader: str = ''
    device_argument: str = ''
    device_to_loader: bool = False
    precision_argument: str = ''
    precision: str = 'single'
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    default_model: bool = False
    needs_cell: bool = False
    hessian: bool = False
    elements: tuple[str, ...] | None = None

    @property
    def precisions(self) -> tuple[str, ...]:
        """Return the float types that it can compute in."""
        return tuple(FLOAT_TYPES) if self.precision_argument else (self.precision,)


#: H to Pu without Po, At, Rn, Fr and Ra: the 89 elements of the training set of CHGNet (10.1038/s42256-023-00716-3).
#: The other five have parameters as well, which no training ever touched, and would pass without a word.
_CHGNET_ELEMENTS = (
    *('H', 'He', 'Li', 'Be', 'B', 'C', 'N', 'O', 'F', 'Ne', 'Na', 'Mg', 'Al', 'Si', 'P', 'S', 'Cl', 'Ar'),
    *('K', 'Ca', 'Sc', 'Ti', 'V', 'Cr', 'Mn', 'Fe', 'Co', 'Ni', 'Cu', 'Zn', 'Ga', 'Ge', 'As', 'Se', 'Br', 'Kr'),
    *('Rb', 'Sr', 'Y', 'Zr', 'Nb', 'Mo', 'Tc', 'Ru', 'Rh', 'Pd', 'Ag', 'Cd', 'In', 'Sn', 'Sb', 'Te', 'I', 'Xe'),
    *('Cs', 'Ba', 'La', 'Ce', 'Pr', 'Nd', 'Pm', 'Sm', 'Eu', 'Gd', 'Tb', 'Dy', 'Ho', 'Er', 'Tm', 'Yb', 'Lu'),
    *('Hf', 'Ta', 'W', 'Re', 'Os', 'Ir', 'Pt', 'Au', 'Hg', 'Tl', 'Pb', 'Bi', 'Ac', 'Th', 'Pa', 'U', 'Np', 'Pu'),
)

_ENERGIES = frozenset({'stress', 'atomic_energies'})

#: The families by name; each is a backend.
FAMILIES: dict[str, AseFamily] = {
    'mace': AseFamily(
        'MACE',
        'mace.calculators.MACECalculator',
        distribution='mace-torch',
        files='a `.model` file, as MACE training writes it',
        help='Any MACE model of energies and forces; `head` among the keyword arguments chooses one of several heads.',
        properties=_ENERGIES,
        model_argument='model_paths',
        model_loader='pathlib:Path',  # of a plain string it takes `[` and `*` for a pattern of several files
        device_argument='device',
        precision_argument='default_dtype',
        hessian=True,
    ),
    'chgnet': AseFamily(
        'CHGNet',
        'chgnet.model.dynamics.CHGNetCalculator',
        distribution='chgnet',
        files='none for the published CHGNet 0.3.0, which is in the package; or a checkpoint of a training',
        help='Crystals of 89 elements; molecules work and are not what it was trained for. An atom without a neighbour '
        'within 6 angstrom is refused.',
        properties=_ENERGIES,
        model_argument='model',
        model_loader='chgnet.model.model:CHGNet.from_file',
        device_argument='use_device',
        # with its own default, it warns that the result "will likely go wrong" and returns it
        kwargs={'return_site_energies': True, 'on_isolated_atoms': 'error'},
        default_model=True,
        needs_cell=True,
        elements=_CHGNET_ELEMENTS,
    ),
    'aimnet2': AseFamily(
        'AIMNet2',
        'aimnet.calculators.AIMNet2ASE',
        distribution='aimnet',
        files='a `.pt` or `.jpt` file of AIMNet2',
        help='Molecules with their charge: `charge` and `mult` among the keyword arguments hold for all structures.',
        properties=frozenset({'stress', 'charges'}),
        model_argument='base_calc',
        model_loader='aimnet.calculators:AIMNet2Calculator',
        device_argument='device',
        device_to_loader=True,
        hessian=True,  # of molecules
    ),
    'sevennet': AseFamily(
        'SevenNet',
        'sevenn.calculator.SevenNetCalculator',
        distribution='sevenn',
        files='none for the published SevenNet-0, which is in the package; or a checkpoint `.pth`',
        help='Crystals; `modal` among the keyword arguments chooses the level of theory of a multi-fidelity model.',
        properties=_ENERGIES,
        model_argument='model',
        device_argument='device',
        default_model=True,
    ),
}
