"""AiiDA plugin for machine-learning potentials: batched, provenance-tracked energies, forces and ensemble statistics."""

__version__ = '0.1.0'
