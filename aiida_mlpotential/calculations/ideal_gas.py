"""Thermochemistry at other temperatures and pressures without a job: from stored normal modes."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction

from aiida_mlpotential.data.normal_modes import POINT_GROUPS, SPIN_MULTIPLICITIES, NormalModesData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.symmetry.point_groups import symmetry_numbers
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.ideal_gas import check_molecules, thermochemistry_of
from aiida_mlpotential.worker.parameters import validate_parameters, with_defaults
from aiida_mlpotential.worker.parameters.thermochemistry import check_structures
from aiida_mlpotential.worker.thermochemistry import Settings

from .validation import check_masses

#: Parameters of thermochemistry on which the modes do not depend.
KEYS = ('temperatures', 'gas_pressure', 'low_frequency_cutoff', 'symmetry_number', 'spin_multiplicity')
#: Arrays of the modes from which thermochemistry is made.
_NEEDED = ('energies', 'frequencies', 'n_rigid', 'member_energies', 'member_frequencies')

#: Statuses that another symmetry number or other structures may mend.
_MENDED = (FrameStatus.OK, FrameStatus.NO_SYMMETRY_NUMBER, FrameStatus.NOT_A_MOLECULE)


@calcfunction
def ideal_gas(results: NormalModesData, structures: orm.Data, parameters: orm.Dict) -> NormalModesData:
    """Compute the thermochemistry of stored normal modes anew; :func:`run_ideal_gas` finds the structures itself.

    :param results: normal modes, with thermochemistry or without
    :param structures: the structures (StructureSetData or StructureData) that they are those of
    :param parameters: ``temperatures`` (K), ``gas_pressure`` (Pa), ``low_frequency_cutoff`` (cm^-1),
        ``symmetry_number`` and ``spin_multiplicity`` as a job takes them; what is left out is as the results have it,
        and symmetry numbers that they do not have are those of the point groups
    :raises ValueError: if the parameters are not valid, or no symmetry number is known or found
    """
    return _ideal_gas(results, structures, dict(parameters.get_dict()))  # type: ignore[no-untyped-call]


def run_ideal_gas(
    results: NormalModesData, structures: StructureSetData | orm.StructureData | None = None, **parameters: Any
) -> NormalModesData:
    """Return the thermochemistry of stored normal modes at other conditions, with its provenance.

    :param structures: those of the results, by default those of the job that made them
    :param parameters: as :func:`ideal_gas` takes them
    :raises ValueError: if the parameters are not valid, or the structures are others or cannot be found
    """
    node = results.get_structures_node() if structures is None else structures
    _ideal_gas(results, node, parameters)  # what is wrong is said before there is a process node
    result: NormalModesData = ideal_gas(results, node, orm.Dict(parameters))  # type: ignore[no-untyped-call]
    return result


def _ideal_gas(results: NormalModesData, structures: orm.Data, parameters: dict[str, Any]) -> NormalModesData:
    """Do it; see :func:`ideal_gas`."""
    message = _check(results, structures, parameters)
    if message:
        raise ValueError(message)
    assert isinstance(structures, (StructureSetData, orm.StructureData))  # noqa: S101 - checked above
    frames = results.frames_of(structures)
    complete = with_defaults({**_settings(results), **parameters}, 'thermochemistry')
    numbers, groups = _symmetry(results, frames, parameters.get('symmetry_number'))
    spins = _for_each(results, SPIN_MULTIPLICITIES, parameters.get('spin_multiplicity'), unknown=1)
    arrays = {name: results.get_array(name) for name in _NEEDED if name in results.get_arraynames()}
    values = thermochemistry_of(frames, arrays, Settings.of(complete), numbers, spins)
    status, found = results.status.copy(), check_molecules(frames, numbers)
    # The worker leaves molecules without a symmetry number alone; here they have their modes.
    analysed = np.isin(status, _MENDED) & (arrays['n_rigid'] >= 0)
    status[analysed] = np.where(found == FrameStatus.PENDING, FrameStatus.OK, found)[analysed]
    info = {
        'temperatures': [float(value) for value in complete['temperatures']],
        'settings': {name: complete[name] for name in ('gas_pressure', 'low_frequency_cutoff')},
    }
    if not np.any(status == FrameStatus.OK) and np.any(found == FrameStatus.NO_SYMMETRY_NUMBER):
        raise ValueError('structures: no point group was found: give symmetry_number.')
    return results.with_thermochemistry({**values, **groups, SPIN_MULTIPLICITIES: spins}, status, info)


def _check(results: NormalModesData, structures: orm.Data, parameters: dict[str, Any]) -> str | None:
    """Return one sentence on what is wrong, or ``None``."""
    for key in parameters:
        if key not in KEYS:
            return f'parameters: {key} is none of {", ".join(KEYS)}, on which the modes do not depend.'
    if not isinstance(structures, (StructureSetData, orm.StructureData)):
        return f'structures: a {type(structures).__name__} is neither a StructureSetData nor a StructureData.'
    frames = results.frames_of(structures)
    if not np.array_equal(frames.offsets, results.offsets):
        return f'structures: these are {len(frames)} others than the {len(results)} that the modes are those of.'
    message = validate_parameters(parameters, 'thermochemistry')
    message = message or check_structures(with_defaults(parameters, 'thermochemistry'), frames.pbc)
    return message or check_masses(structures if isinstance(structures, orm.StructureData) else None)


def _symmetry(results: NormalModesData, frames: Frames, given: Any) -> tuple[Any, dict[str, Any]]:
    """Return the symmetry number of each structure, and the point groups if they were looked for only now.

    :param given: what the parameters say, if anything
    """
    if given is not None or 'symmetry_numbers' in results.get_arraynames():
        return _for_each(results, 'symmetry_numbers', given, unknown=0), {}
    numbers, groups = symmetry_numbers(frames)
    return numbers, {POINT_GROUPS: np.array(groups, dtype=np.str_)}


def _settings(results: NormalModesData) -> dict[str, Any]:
    """Return the parameters of the thermochemistry that the results have."""
    settings = dict(results.base.attributes.get('settings', None) or {})
    return {**settings, 'temperatures': results.temperatures} if results.temperatures else settings


def _for_each(results: NormalModesData, name: str, given: Any, unknown: int) -> Any:
    """Return a number for each structure: what was given, else what the results have."""
    if given is None:
        given = results.get_array(name) if name in results.get_arraynames() else unknown
    values = np.broadcast_to(np.asarray(given), len(results))
    return np.where(values < 1, unknown, values).astype('<i4')
