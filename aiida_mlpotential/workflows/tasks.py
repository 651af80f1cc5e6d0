"""The base restart workflows of all tasks."""

from __future__ import annotations

from aiida_mlpotential.calculations.geometry_optimization import GeometryOptimizationCalculation
from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.calculations.thermochemistry import ThermochemistryCalculation
from aiida_mlpotential.calculations.vibrations import VibrationsCalculation

from .base import MlpotentialBaseWorkChain


class SinglePointBaseWorkChain(MlpotentialBaseWorkChain):
    """Energies and forces that are restarted until they are done; see :class:`MlpotentialBaseWorkChain`."""

    _process_class = SinglePointCalculation
    PROTOCOL = 'single_point'


class GeometryOptimizationBaseWorkChain(MlpotentialBaseWorkChain):
    """Geometry optimizations that are restarted until they are done; see :class:`MlpotentialBaseWorkChain`."""

    _process_class = GeometryOptimizationCalculation
    PROTOCOL = 'geometry_optimization'


class VibrationsBaseWorkChain(MlpotentialBaseWorkChain):
    """Vibrational analyses that are restarted until they are done; see :class:`MlpotentialBaseWorkChain`."""

    _process_class = VibrationsCalculation
    PROTOCOL = 'vibrations'


class ThermochemistryBaseWorkChain(MlpotentialBaseWorkChain):
    """Thermochemistry that is restarted until it is done; see :class:`MlpotentialBaseWorkChain`."""

    _process_class = ThermochemistryCalculation
    PROTOCOL = 'thermochemistry'
