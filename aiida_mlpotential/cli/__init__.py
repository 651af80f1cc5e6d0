"""Command line interface, in the style of ``verdi``; importing it imports nothing of AiiDA."""

from .root import main

__all__ = ('main',)
