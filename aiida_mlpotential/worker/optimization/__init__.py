"""Optimization of many geometries at once: coordinates, steps, constraints, and guards against nonsense."""
