"""AiiDA plugin for machine-learning potentials: batched energies, forces and ensemble statistics with provenance."""

__version__ = '0.1.0'
