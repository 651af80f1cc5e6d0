"""Fixtures of the command line's tests: a runner, a model that needs no download, and a Code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from click.testing import CliRunner, Result

from aiida_mlpotential.cli import main, running
from aiida_mlpotential.cli.codes import CODE_LABEL, COMPUTER_LABEL, PLUGIN
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.results import ResultsData

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """Return a function that runs the command line in this process, in the loaded test profile."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def emt(aiida_profile_clean) -> ModelData:
    """Return ASE's effective medium theory, which takes milliseconds and no parameter file."""
    elements = ['H', 'C', 'N', 'O', 'Al', 'Ni', 'Cu', 'Pd', 'Ag', 'Pt', 'Au']
    return ModelData.from_ase_calculator('ase.calculators.emt.EMT', name='EMT', elements=elements).get_or_store()


@pytest.fixture
def localhost(aiida_profile_clean, tmp_path: Path) -> orm.Computer:
    """Return a computer that polls its jobs without waiting, in a shell that reads no start-up files."""
    computer = orm.Computer(
        label=COMPUTER_LABEL,
        hostname='localhost',
        transport_type='core.local',
        scheduler_type='core.direct',
        workdir=str(tmp_path / 'scratch'),
    ).store()
    computer.set_minimum_job_poll_interval(0)
    computer.set_default_mpiprocs_per_machine(1)
    computer.configure(safe_interval=0, use_login_shell=False)
    return computer


@pytest.fixture
def code(localhost: orm.Computer) -> orm.InstalledCode:
    """Return the Code that ``aiida-mlpotential setup`` would make."""
    return orm.InstalledCode(
        label=CODE_LABEL, computer=localhost, filepath_executable=sys.executable, default_calc_job_plugin=PLUGIN
    ).store()


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands believe that the daemon runs."""
    monkeypatch.setattr(running, 'check_daemon', lambda: None)


@pytest.fixture
def make_results(aiida_profile_clean) -> Callable[..., ResultsData]:
    """Return a function that makes an unstored results node of arrays, as a parser would."""

    def function(n_atoms: Sequence[int], status: Sequence[int], **arrays: Any) -> ResultsData:
        node = ResultsData()
        complete = {'offsets': np.concatenate([[0], np.cumsum(n_atoms)]), 'status': np.array(status, 'i1'), **arrays}
        for name, values in complete.items():
            node.set_array(name, np.asarray(values))
        codes = list(status)
        node.base.attributes.set_many(
            {
                'n_frames': len(codes),
                'n_ok': codes.count(0),
                'n_pending': codes.count(1),
                'n_failed': sum(code > 1 for code in codes),
                'n_members': len(arrays.get('member_energies', [0])),
                'messages': {},
                'units': dict.fromkeys(arrays, ''),
            }
        )
        return node

    return function
