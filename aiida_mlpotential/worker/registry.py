"""The pre-parameterised models: what each is, where its parameters come from, and the hash that proves them right."""

from __future__ import annotations

import dataclasses
import math
import struct


@dataclasses.dataclass(frozen=True)
class AniFamily:
    """Constants of an ANI atomic environment vector, as published with the networks (NeuroChem ``.params`` files).

    Distances in angstrom, angles in radian, ``eta`` in angstrom^-2.
    """

    radial_cutoff: float
    radial_eta: float
    radial_shifts: tuple[float, ...]
    angular_cutoff: float
    angular_eta: float
    angular_zeta: float
    angular_shifts: tuple[float, ...]
    angular_sections: tuple[float, ...]


def _single(value: float) -> float:
    """Round to single precision.

    NeuroChem, with which the networks were trained, and torchani hold the constants so; in double precision the model
    is otherwise another one, by 1e-6 eV a molecule.
    """
    return float(struct.unpack('f', struct.pack('f', value))[0])


def _grid(start: float, stop: float, number: int) -> tuple[float, ...]:
    """Return equally spaced values from ``start`` up to, without, ``stop``."""
    return tuple(_single(start + (stop - start) * i / number) for i in range(number))


ANI_FAMILIES: dict[str, AniFamily] = {
    'ani1x': AniFamily(
        radial_cutoff=5.2,
        radial_eta=16.0,
        radial_shifts=_grid(0.9, 5.2, 16),
        angular_cutoff=3.5,
        angular_eta=8.0,
        angular_zeta=32.0,
        angular_shifts=_grid(0.9, 3.5, 4),
        angular_sections=_grid(math.pi / 16, math.pi + math.pi / 16, 8),
    ),
    'ani2x': AniFamily(
        radial_cutoff=5.1,
        radial_eta=_single(19.7),
        radial_shifts=_grid(0.8, 5.1, 16),
        angular_cutoff=3.5,
        angular_eta=12.5,
        angular_zeta=_single(14.1),
        angular_shifts=_grid(0.8, 3.5, 8),
        angular_sections=_grid(math.pi / 8, math.pi + math.pi / 8, 4),
    ),
}


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """A pre-parameterised ensemble."""

    name: str
    family: str
    #: Chemical symbols in the order of the networks' own species.
    elements: tuple[str, ...]
    ensemble_size: int
    method: str
    doi: str
    licence: str
    #: Self energies in Hartree, in the order of ``elements``, as published.
    self_energies: tuple[float, ...]
    #: sha256 of the canonical parameter file, the same whichever source the parameters came from.
    sha256: str
    #: Name of the torchani state dict, in a directory or on the hub.
    state_dict: str
    #: Directory of the NeuroChem files in the torchani 2.0 wheel; empty where the wheel has none.
    wheel_directory: str = ''

    @property
    def file(self) -> str:
        """Return the name of the canonical parameter file."""
        return f'{self.name.lower().replace("-", "")}.npz'


PRETRAINED: dict[str, PretrainedModel] = {
    model.name: model
    for model in (
        PretrainedModel(
            name='ANI-2x',
            family='ani2x',
            elements=('H', 'C', 'N', 'O', 'S', 'F', 'Cl'),
            ensemble_size=8,
            method='wB97X/6-31G(d)',
            doi='10.1021/acs.jctc.0c00121',
            licence='MIT',
            self_energies=(
                -0.5978583943827134,
                -38.08933878049795,
                -54.711968298621066,
                -75.19106774742086,
                -398.1577125334925,
                -99.80348506781634,
                -460.1681939421027,
            ),
            sha256='102038ef20b0fb0734ace5988e0d925ebf11ce91d097cfbaf17e7f48af212cdb',
            state_dict='ani2x_state_dict.pt',
        ),
        PretrainedModel(
            name='ANI-1ccx',
            family='ani1x',
            elements=('H', 'C', 'N', 'O'),
            ensemble_size=8,
            method='DLPNO-CCSD(T)/CBS',
            doi='10.1038/s41467-019-10827-4',
            licence='MIT',
            self_energies=(-0.5991501324919538, -38.03750806057356, -54.67448347695333, -75.16043537275567),
            sha256='8148d9a02f63b271bb9980c03eee9384eb3cd57fb998f708db3c648d7e9dff7d',
            state_dict='ani1ccx_state_dict.pt',
            wheel_directory='torchani/resources/ani-1ccx_8x',
        ),
        PretrainedModel(
            name='ANI-1x',
            family='ani1x',
            elements=('H', 'C', 'N', 'O'),
            ensemble_size=8,
            method='wB97X/6-31G(d)',
            doi='10.1063/1.5023802',
            licence='MIT',
            self_energies=(-0.60095298, -38.08316124, -54.7077577, -75.19446356),
            sha256='31e15c3e3669e0e680c3e319034f56bcbe4f9dc77c7295a84038ddf48aab61ca',
            state_dict='ani1x_state_dict.pt',
            wheel_directory='torchani/resources/ani-1x_8x',
        ),
    )
}

#: The model of a job for which nobody named one, as in AMS.
DEFAULT_MODEL = 'ANI-2x'

#: The wheel on PyPI that carries the NeuroChem files of ANI-1x and ANI-1ccx, and its hash.
WHEEL_REQUIREMENT = 'torchani==2.0'
WHEEL_SHA256 = '87db70affc847c3aa26081607166580a6e6b01f33e09218e2c5b26f66b45ed89'

#: Organisation on the Hugging Face hub under which torchani publishes its state dicts.
HUB_ORGANISATION = 'roitberg-group'
