"""Fixtures for all tests: AiiDA's own, where it is installed, and the shared reference data, where it is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

# The worker's tests must run where AiiDA is not installed, as on a compute node.
pytest_plugins = ['aiida.tools.pytest_fixtures'] if importlib.util.find_spec('aiida') else []

SHARED_DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Return the folder with published parameters and reference values, which lies beside some checkouts."""
    if not SHARED_DATA.is_dir():
        pytest.skip('the reference data (../shared/data) is not beside this checkout')
    return SHARED_DATA
