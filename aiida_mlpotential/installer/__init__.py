"""Environments for the backends: made on any computer through its AiiDA transport, checked, and removed again."""

from __future__ import annotations
