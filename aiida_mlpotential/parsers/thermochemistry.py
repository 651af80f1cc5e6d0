"""Parser of thermochemistry: normal modes with the functions of the ideal gas at all temperatures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from aiida_mlpotential.data.normal_modes import POINT_GROUPS, SPIN_MULTIPLICITIES, NormalModesData
from aiida_mlpotential.data.results import ResultsData, ResultsError
from aiida_mlpotential.worker.parameters import with_defaults
from aiida_mlpotential.worker.schema import SYMMETRY_FILE, JobSpec

from .vibrations import VibrationsParser

#: Parameters that are attributes of the results.
_SETTINGS = ('gas_pressure', 'low_frequency_cutoff')
#: Arrays of a single structure that stand in the output parameters, a value for each temperature.
_LISTS = ('enthalpies', 'entropies', 'gibbs_energies', 'gibbs_energies_quasi_rrho', 'gibbs_energy_std')


class ThermochemistryParser(VibrationsParser):
    """Parser of :class:`~aiida_mlpotential.calculations.thermochemistry.ThermochemistryCalculation`."""

    def complete(self, info: Mapping[str, Any], job: JobSpec) -> Mapping[str, Any]:
        """Return the content of the results file with the parameters of the formulas."""
        parameters = with_defaults(job.parameters, job.task)
        return {**info, 'settings': {name: parameters[name] for name in _SETTINGS}}

    def _read_results(self, info: dict[str, Any]) -> ResultsData | None:
        """Return the results with what the job knew of its molecules: their point groups and multiplicities."""
        results = super()._read_results(info)
        if results is not None:
            job = self.read_job()
            spins = with_defaults(job.parameters, job.task)['spin_multiplicity']
            spins = np.broadcast_to(np.array(spins, dtype='<i4'), len(results))
            results.set_array(SPIN_MULTIPLICITIES, np.array(spins))
            groups = self._point_groups() if job.symmetry_sha256 else None
            if groups is not None:
                if groups.shape != (len(results),):
                    raise ResultsError(f'the point groups in {SYMMETRY_FILE} are those of other structures')
                results.set_array(POINT_GROUPS, groups)
        return results

    def _point_groups(self) -> np.ndarray[Any, Any] | None:
        """Return the point groups that were found before the job was sent."""
        try:
            content = self.node.base.repository.get_object_content(SYMMETRY_FILE, mode='rb')
        except FileNotFoundError:
            raise ResultsError(f'{SYMMETRY_FILE} is missing in the files that were sent') from None
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return np.array(file['point_groups'], dtype=np.str_) if 'point_groups' in file.files else None

    def summarize(self, results: ResultsData) -> dict[str, Any]:
        """Return enthalpies, entropies and Gibbs energies (eV, eV/K) of a single structure at all temperatures.

        They come beside what :class:`VibrationsParser` says.
        """
        summary = super().summarize(results)
        assert isinstance(results, NormalModesData)  # noqa: S101 - for the type checker
        table = results.thermochemistry(0) if len(results) == 1 else {}
        # A structure of the wrong character has modes, and may be without thermochemistry.
        if not table or not np.isfinite(table['gibbs_energies']).all():
            return summary
        extra, cutoff = results.frame(0).extra, results.base.attributes.get('settings')['low_frequency_cutoff']
        frequencies = extra['frequencies']
        summary.update({name: table[name].tolist() for name in _LISTS if name in table})
        summary.update(
            entropy_term=(table['temperature'] * table['entropies']).tolist(),
            point_group=results.point_group(0) or None,
            symmetry_number=int(extra['symmetry_numbers']),
            spin_multiplicity=int(results.get_array(SPIN_MULTIPLICITIES)[0]),
            excluded_frequencies=frequencies[(frequencies > 0) & (frequencies < cutoff)].tolist(),
        )
        return summary
