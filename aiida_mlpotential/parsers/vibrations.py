"""Parser of vibrational analyses: the results become a node of normal modes."""

from __future__ import annotations

from typing import Any, ClassVar

from aiida_mlpotential.data.normal_modes import NormalModesData
from aiida_mlpotential.data.results import ResultsData

from .base import MlpotentialParser
from .summaries import summarize_energy

#: So many of the lowest wavenumbers stand in the output parameters.
N_LOWEST = 6
_CHARACTERS = ('n_minima', 'n_transition_states', 'n_higher_saddles', 'n_not_stationary')


class VibrationsParser(MlpotentialParser):
    """Parser of :class:`~aiida_mlpotential.calculations.vibrations.VibrationsCalculation`."""

    RESULTS: ClassVar[type[ResultsData]] = NormalModesData

    def summarize(self, results: ResultsData) -> dict[str, Any]:
        """Return the kind of point, zero-point energy (eV) and lowest wavenumbers (cm^-1) of a single structure.

        Of many structures: how many are which kind of point, and the lowest wavenumber of all.
        """
        assert isinstance(results, NormalModesData)  # noqa: S101 - for the type checker
        attributes = results.base.attributes.all
        if len(results) > 1:
            keys = (*_CHARACTERS, 'frequency_min', 'frequency_max', 'status_counts')
            return {key: attributes[key] for key in keys if key in attributes}
        frame = results.frame(0)
        if frame.energy is None:
            return {'status': frame.status.name}
        frequencies = results.frequencies(0)
        assert frequencies is not None  # noqa: S101 - a structure with an energy has modes
        return {
            'status': frame.status.name,
            **summarize_energy(results, frame),
            'character': results.character(0),
            'zero_point_energy': results.zero_point_energy(0),
            'n_imaginary': int(frame.extra['n_imaginary']),
            'imaginary_frequencies': frequencies[frequencies < 0].tolist(),
            'lowest_frequencies': frequencies[:N_LOWEST].tolist(),
        }
