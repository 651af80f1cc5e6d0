"""Servers for the tests of this folder, and how to use them from others.

The fixtures themselves are a pytest plugin (``tests/services/server_fixtures.py``), so that tests of every folder can
ask for them by name. They need root and the Debian packages of ``tests/services/packages.sh``; elsewhere a test that
asks for one is skipped with the reason (with MLPOTENTIAL_REQUIRE_SERVERS set it fails: so in CI). Mark such tests
``pytest.mark.servers``.

==================  =========  ===================================================================================
fixture             scope      what it is
==================  =========  ===================================================================================
``cluster``         session    a two-node SLURM behind SSH with files of its own; started once, 5 s
``make_cluster``    session    function that starts another one: ``make_cluster(CLUSTER_CPUS='1')``; the variables are
                               described at the top of ``tests/services/cluster.sh``
``cluster_profile`` module     profile (SQLite, ZeroMQ) with a running daemon; its computer is ``cluster``, 8 s
``local_profile``   module     the same with this machine as computer (core.local, core.direct)
``rabbitmq``        session    RabbitMQ; ``.kill()`` (kill -9) and ``.start()``
``postgres``        session    PostgreSQL
``rabbitmq_context`` module    context manager that loads a new profile (PostgreSQL, RabbitMQ), without a daemon
``rabbitmq_profile`` module    profile (PostgreSQL, RabbitMQ) with a running daemon; its computer is this machine
==================  =========  ===================================================================================

A profile is a ``ServerProfile``: ``.code`` (the running Python on the computer), ``.computer``, ``.profile``, and
``.daemon`` (AiiDA's client: ``.restart_daemon()``, ``.increase_workers(1)``, ``.get_worker_info()`` for the process
numbers of workers). A cluster is a ``Cluster``:

- ``.nodes``: names of the nodes; ``.kill_node(name)``, ``.start_node(name)``: power failure and repair;
- ``.stop_ssh()``, ``.start_ssh()``: the connection is lost, and comes back;
- ``.run('squeue')``, ``.shell('ls | wc -l')``: commands on the login host, the only way to see ``.scratch``;
- ``.sacct(job_id, 'State', 'NodeList')``, ``.node_of(job_id)``: what SLURM knows of a job, where it runs.

For instance::

    @pytest.mark.servers
    def test_a_job(cluster, cluster_profile):
        node = submit(SinglePointCalculation, code=cluster_profile.code, ...)
        wait_for(lambda: node.is_terminated)
        assert cluster.sacct(node.get_job_id(), 'State') == ['COMPLETED']

``wait_for`` is imported from ``waiting``, the classes from ``real_servers``; pytest finds them by its setting
``pythonpath``.
A test that breaks something must mend it (``finally: cluster.start_node(...)``): the cluster is everybody's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import submit
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_mlpotential.calculations.single_point import SinglePointCalculation
from aiida_mlpotential.data.model import ModelData
from aiida_mlpotential.data.results import ResultsData
from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.errors import FrameStatus

SERVICES = Path(__file__).resolve().parents[1] / 'services'


def _cells(number: int) -> list[Any]:
    random = np.random.default_rng(5)
    cells = []
    for _ in range(number):
        atoms = bulk('Cu') * (2, 2, 1)
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        cells.append(atoms)
    return cells


@pytest.fixture(scope='session')
def submit_copper() -> Callable[..., orm.CalcJobNode]:
    """Return a function that submits single points of copper cells: ``submit_copper(code, 20, seconds=0.1)``.

    The numbers are those of EMT. ``seconds`` is how long each structure takes; from ``after`` structures on the job
    takes ``megabytes`` of memory; ``options`` are AiiDA's for the job, and what is left are inputs.
    """

    def run(
        code: orm.InstalledCode,
        number: int,
        *,
        options: dict[str, Any] | None = None,
        parameters: dict[str, Any] | None = None,
        calculator: dict[str, Any] | None = None,
        **inputs: Any,
    ) -> orm.CalcJobNode:
        model = ModelData.from_ase_calculator('odd_emt.OddEMT', calculator or {}, elements=['Cu']).get_or_store()
        # A batch of one structure: what is done is on disk, so that a test can ask for it exactly.
        common = {'properties': ['energy', 'forces'], 'batch_atoms': 4, 'num_threads': 1}
        export = f'export PYTHONPATH={SERVICES}'
        return submit(
            SinglePointCalculation,
            code=code,
            model=model,
            structures=inputs.pop('structures', None) or StructureSetData.from_ase(_cells(number)).store(),
            parameters={**common, **(parameters or {})},
            metadata={'options': {'prepend_text': export, **(options or {})}},
            **inputs,
        )

    return run


@pytest.fixture(scope='session')
def assert_energies() -> Callable[..., int]:
    """Return a function that compares results with EMT itself and returns how many structures are done."""

    def check(results: ResultsData, *, all_done: bool = True) -> int:
        done = np.flatnonzero(results.status == FrameStatus.OK)
        assert len(done) == results.n_frames or not all_done
        cells = _cells(results.n_frames)
        for index in done[:: max(1, len(done) // 20)]:
            cells[index].calc = EMT()
            assert results.energies[index] == pytest.approx(cells[index].get_potential_energy(), abs=1e-9)
        return len(done)

    return check
