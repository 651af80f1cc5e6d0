"""The results node of vibrational analyses: frequencies, modes and, where it was asked for, thermochemistry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from aiida.orm.pydantic import OrmMetadataField

from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.quantities import QUANTITIES, TASK_QUANTITIES

from . import modes
from .npy import Array, NpyFile, ResultsError
from .results import ResultsData, Structures
from .statistics import counts_of
from .structures import check_index

if TYPE_CHECKING:
    from ase import Atoms
    from ase.vibrations import VibrationsData

#: Arrays without which results are none of a vibrational analysis.
_NEEDED = ('hessian', 'frequencies', 'normal_modes', 'reduced_masses', 'n_rigid', 'n_imaginary', 'stationary')
#: Names of arrays with what the job knew of its molecules, which are no quantities of the worker.
POINT_GROUPS, SPIN_MULTIPLICITIES = 'point_groups', 'spin_multiplicities'
#: Attributes that do not change with the temperature.
_INHERITED = (
    *('model_name', 'model_sha256', 'n_members', 'precision', 'messages', 'elements', 'formulas', 'formulas_complete'),
    *('structures_uuid', 'structures_sha256', 'selection', 'results_version'),
    *('energy_min', 'energy_max', 'energy_std_max', 'energy_std_mean', 'qbc_max', 'force_max'),
)
#: Numbers of a single structure that people filter on: attribute, array, and which column of it.
_SINGLE = {
    'zero_point_energy': 'zero_point_energies',
    'gibbs_energy': 'gibbs_energies',
    'enthalpy': 'enthalpies',
    'gibbs_energy_std': 'gibbs_energy_std',
}


class NormalModesData(ResultsData):
    """Results of n structures with their normal modes.

    The modes of a structure of N atoms are its 3N - 6 vibrations (3N - 5 of a linear molecule, 3N - 3 of a crystal), in
    ascending order, imaginary ones first as negative wavenumbers. With ``rigid`` the translations and rotations, whose
    wavenumbers are exactly 0, stand before them. Structures without results have ``None`` in place of arrays.
    """

    class AttributesModel(ResultsData.AttributesModel):
        """Attributes to filter on; counts and extrema are over the structures that succeeded."""

        n_minima: int = OrmMetadataField(0, description='Structures at a minimum')
        n_transition_states: int = OrmMetadataField(0, description='Structures at a saddle point of order 1')
        n_higher_saddles: int = OrmMetadataField(0, description='Structures at a saddle point of higher order')
        n_not_stationary: int = OrmMetadataField(0, description='Structures with forces too large for any of these')
        frequency_min: float | None = OrmMetadataField(None, description='Lowest wavenumber, imaginary < 0, cm^-1')
        frequency_max: float | None = OrmMetadataField(None, description='Highest wavenumber, cm^-1')
        n_imaginary: int | None = OrmMetadataField(None, description='Imaginary modes of a single structure')
        zero_point_energy: float | None = OrmMetadataField(None, description='Of a single structure, eV')
        gibbs_energy: float | None = OrmMetadataField(None, description='Single structure, first temperature, eV')
        enthalpy: float | None = OrmMetadataField(None, description='Single structure, first temperature, eV')
        gibbs_energy_std: float | None = OrmMetadataField(None, description='Spread of gibbs_energy, eV')
        temperatures: list[float] | None = OrmMetadataField(None, description='Temperatures of thermochemistry, K')
        settings: dict[str, Any] | None = OrmMetadataField(None, description='Parameters of thermochemistry')

    @classmethod
    def _own_attributes(cls, info: Mapping[str, Any], files: Mapping[str, NpyFile], status: Array) -> dict[str, Any]:
        missing = [name for name in _NEEDED if name not in files]
        if missing:
            raise ResultsError(f'the array {missing[0]}.npy is missing')
        temperatures = info.get('temperatures')
        if 'gibbs_energies' in files and (
            not isinstance(temperatures, list) or len(temperatures) != files['gibbs_energies'].shape[1]
        ):
            raise ResultsError(f'gibbs_energies.npy has shape {files["gibbs_energies"].shape}, not one value for each '
                               f'temperature of the results file, {temperatures}')  # fmt: skip
        arrays = {name: file.load() for name, file in files.items() if QUANTITIES_OF_FRAMES.get(name)}
        arrays['frequencies'], arrays['offsets'] = files['frequencies'].load(), files['offsets'].load()
        return own_attributes(arrays, status, info)

    def with_thermochemistry(
        self, arrays: Mapping[str, Array], status: Array, info: Mapping[str, Any]
    ) -> NormalModesData:
        """Return an unstored node with the same modes and another thermochemistry.

        :param arrays: the arrays of thermochemistry, and others than those of the worker
        :param status: ``(n,)``
        :param info: ``temperatures`` and ``settings``
        """
        node = type(self)()
        own = {'status', *arrays, *set(TASK_QUANTITIES['thermochemistry']) - set(TASK_QUANTITIES['vibrations'])}
        kept = [name for name in self.get_arraynames() if name not in own]
        attributes = self.base.attributes.all
        node.base.attributes.set_many(
            {key: attributes[key] for key in _INHERITED if key in attributes}
            | {f'{self.array_prefix}{name}': attributes[f'{self.array_prefix}{name}'] for name in kept}
        )
        for name in kept:
            with self.base.repository.open(f'{name}.npy', 'rb') as handle:
                node.base.repository.put_object_from_filelike(handle, f'{name}.npy')  # type: ignore[arg-type]
        for name, array in {**arrays, 'status': status}.items():
            node.set_array(name, array)
        known = {name: self.get_array(name) for name in kept} | dict(arrays)
        node.base.attributes.set_many(
            {
                **counts_of(status),
                **own_attributes(known, status, info),
                'task': 'thermochemistry',
                'units': {name: QUANTITIES[name].unit for name in known if name in QUANTITIES},
            }
        )
        return node

    @property
    def temperatures(self) -> list[float]:
        """Return the temperatures of the thermochemistry, K; none where there is no thermochemistry."""
        return list(self.base.attributes.get('temperatures', None) or [])

    def _part(self, index: int, name: str) -> Any:
        """Return what a structure has of an array, or ``None``."""
        value = self.frame(index).extra.get(name)
        return value

    def _vibrations(self, index: int, name: str, rigid: bool) -> Array | None:
        """Return what a structure has of an array with modes along its last axis, or ``None``."""
        frame = self.frame(index)
        if name not in frame.extra:
            return None
        values: Array = frame.extra[name]
        return values if rigid else values[..., int(frame.extra['n_rigid']) :]

    def frequencies(self, index: int, rigid: bool = False) -> Array | None:
        """Return the wavenumbers of a structure, ``(k,)``, cm^-1; imaginary ones are negative.

        :param rigid: whether translations and rotations, exactly 0, come first
        :raises IndexError: if there is no such structure
        """
        return self._vibrations(index, 'frequencies', rigid)

    def reduced_masses(self, index: int, rigid: bool = False) -> Array | None:
        """Return the reduced masses of the modes of a structure, ``(k,)``, amu, for displacements of length 1."""
        return self._vibrations(index, 'reduced_masses', rigid)

    def member_frequencies(self, index: int, rigid: bool = False) -> Array | None:
        """Return the wavenumbers of each member of the ensemble, ``(m, k)``, cm^-1, or ``None``."""
        return self._vibrations(index, 'member_frequencies', rigid)

    def frequency_std(self, index: int, rigid: bool = False) -> Array | None:
        """Return the sample standard deviation of each wavenumber over the members, ``(k,)``, cm^-1, or ``None``."""
        return self._vibrations(index, 'frequency_std', rigid)

    def modes(self, index: int, rigid: bool = False) -> Array | None:
        """Return the displacements of the atoms in each mode of a structure, ``(k, N, 3)``, each mode of length 1."""
        frame = self.frame(index)
        if 'normal_modes' not in frame.extra:
            return None
        matrix: Array = frame.extra['normal_modes']
        return matrix[0 if rigid else int(frame.extra['n_rigid']) :].reshape(-1, frame.n_atoms, 3)

    def character(self, index: int) -> str | None:
        """Return the kind of point that a structure is on the potential energy surface.

        :return: ``minimum``, ``transition state``, ``saddle point of order n``, ``not stationary``, or ``None``
        """
        extra = self.frame(index).extra
        if 'n_imaginary' not in extra:
            return None
        return modes.character(int(extra['n_imaginary']), bool(extra['stationary']))

    def zero_point_energy(self, index: int) -> float | None:
        """Return the zero-point energy of a structure, half the quanta of all its real modes, eV."""
        value: float | None = self._part(index, 'zero_point_energies')
        return value

    def point_group(self, index: int) -> str:
        """Return the Schoenflies symbol of the point group of a structure, empty where nobody asked for it."""
        number = check_index(index, len(self))
        return str(self.get_array(POINT_GROUPS)[number]) if POINT_GROUPS in self.get_arraynames() else ''

    def thermochemistry(self, index: int) -> dict[str, Array]:
        """Return the thermochemistry of a structure as columns: ``pandas.DataFrame`` makes a table of them.

        :return: ``temperature`` (K) and every array with a value for each temperature, ``(t,)``: energies in eV,
            entropies and heat capacities in eV/K; empty where there is none
        :raises IndexError: if there is no such structure
        """
        extra = self.frame(index).extra
        names = [name for name in extra if QUANTITIES[name].shape == 'temperature']
        return {'temperature': np.array(self.temperatures), **{name: extra[name] for name in names}} if names else {}

    def member_gibbs_energies(self, index: int) -> Array | None:
        """Return the Gibbs energy of each member at each temperature, ``(m, t)``, eV, or ``None``.

        Differences between structures are to be taken member by member: the errors of a member cancel in part.
        """
        values: Array | None = self._part(index, 'member_gibbs_energies')
        return values

    def _atoms(self, index: int, structures: Structures | None) -> Atoms:
        return self._frames(structures).to_ase(check_index(index, len(self)))

    def _need(self, index: int) -> None:
        frame = self.frame(index)
        if 'normal_modes' not in frame.extra:
            raise ValueError(f'structure {frame.index} has no modes: {frame.status.name}, {frame.message}')

    def to_vibrations(self, index: int, structures: Structures | None = None) -> VibrationsData:
        """Return structure and Hessian as ASE has them, for its spectra, its thermochemistry and its animations.

        Its translations and rotations are as the potential gave them; in :meth:`frequencies` they are projected out.

        :param structures: those of the results, by default those of the job
        :raises ValueError: if the structure has no results, or there are no structures, or others
        """
        from ase.vibrations import VibrationsData

        self._need(index)
        hessian = self.frame(index).hessian
        assert hessian is not None  # noqa: S101 - for the type checker; it comes with the modes
        return VibrationsData.from_2d(self._atoms(index, structures), hessian)

    def animate(
        self,
        index: int,
        mode: int,
        structures: Structures | None = None,
        amplitude: float = 0.3,
        n_images: int = 30,
    ) -> list[Atoms]:
        """Return one period of a vibration as a list of structures, which begins at the equilibrium.

        :param mode: number of the vibration, from 0 the lowest (imaginary ones first), or from the end if negative
        :param amplitude: largest way of an atom, angstrom
        :raises IndexError: if there is no such structure or vibration
        :raises ValueError: if the structure has no results, or there are no structures, or others
        """
        self._need(index)
        displacements, wavenumbers = self.modes(index), self.frequencies(index)
        assert displacements is not None and wavenumbers is not None  # noqa: S101 - for the type checker
        if not -len(displacements) <= mode < len(displacements):
            raise IndexError(f'there is no vibration {mode}: structure {index} has {len(displacements)}, from 0')
        return modes.animation(
            self._atoms(index, structures), displacements[mode], float(wavenumbers[mode]), amplitude, n_images
        )

    def write_mode(
        self, path: str | Path, index: int, mode: int, structures: Structures | None = None, **kwargs: Any
    ) -> None:
        """Write :meth:`animate` as extended XYZ, for any viewer; keyword arguments are passed on."""
        from ase.io import write

        write(Path(path), self.animate(index, mode, structures, **kwargs), format='extxyz')

    def get_description(self) -> str:
        """Return a line for ``verdi node show`` and the like."""
        counts = self.base.attributes
        names = {
            'n_minima': 'minima',
            'n_transition_states': 'transition states',
            'n_higher_saddles': 'higher saddle points',
            'n_not_stationary': 'not stationary',
        }
        found = [f'{counts.get(key)} {name}' for key, name in names.items() if counts.get(key, 0)]
        return ': '.join([super().get_description(), ', '.join(found)] if found else [super().get_description()])


#: Arrays with one number for each structure, or for each structure and temperature.
QUANTITIES_OF_FRAMES = {
    name: quantity.shape in ('frame', 'temperature') and quantity.kind == 'task'
    for name, quantity in QUANTITIES.items()
}


def own_attributes(arrays: Mapping[str, Array], status: Array, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of normal modes beside those of all results.

    :param arrays: ``frequencies``, ``offsets``, and the arrays with numbers for each structure
    :param info: ``temperatures`` and ``settings``, if there are any
    """
    ok = status == FrameStatus.OK
    result: dict[str, Any] = modes.count_characters(arrays['n_imaginary'][ok], arrays['stationary'][ok] == 1)
    vibrations = arrays['frequencies'][modes.vibrations(arrays['offsets'], arrays['n_rigid'], ok)]
    if len(vibrations) and np.isfinite(vibrations).all():
        result.update(frequency_min=float(vibrations.min()), frequency_max=float(vibrations.max()))
    if info.get('temperatures') and 'gibbs_energies' in arrays:
        result['temperatures'] = [float(value) for value in info['temperatures']]
        if info.get('settings'):
            result['settings'] = dict(info['settings'])
    if len(status) == 1 and ok[0]:
        result['n_imaginary'] = int(arrays['n_imaginary'][0])
        for key, name in _SINGLE.items():
            value = np.ravel(arrays[name])[0] if name in arrays else np.nan
            if np.isfinite(value):
                result[key] = float(value)
    return result
