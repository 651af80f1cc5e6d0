"""Fixtures for all tests: AiiDA's own, where it is installed, and the shared reference data, where it is there."""

from __future__ import annotations

import importlib.util
import sys
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


@pytest.fixture
def localhost(aiida_computer_local):
    """Return this machine as an AiiDA computer without waiting times."""
    computer = aiida_computer_local(label='localhost')
    computer.set_minimum_job_poll_interval(0)
    return computer


@pytest.fixture
def python_code(localhost):
    """Return the running Python as a code: the worker comes with each job."""
    from aiida import orm

    code = orm.InstalledCode(
        label='python',
        computer=localhost,
        filepath_executable=sys.executable,
        default_calc_job_plugin='mlpotential.single_point',
    )
    return code.store()


@pytest.fixture
def emt_model():
    """Return the EMT calculator as a stored model."""
    from aiida_mlpotential.data.model import ModelData

    return ModelData.from_ase_calculator(
        'ase.calculators.emt.EMT', elements=['Al', 'Cu', 'Ni', 'Pd', 'Ag', 'Pt', 'Au']
    ).get_or_store()
