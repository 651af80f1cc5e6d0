"""Workflows: restart, screening, thermochemistry and reactions."""
