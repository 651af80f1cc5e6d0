"""Fixtures of the parser tests: finished jobs made by hand, with whatever is wrong with their files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common import LinkType
from aiida.plugins import ParserFactory
from ase.build import bulk

from aiida_mlpotential.data.structures import StructureSetData
from aiida_mlpotential.worker.runner import run_job
from aiida_mlpotential.worker.schema import FRAMES_FILE, JOB_FILE, JobSpec


@pytest.fixture
def structures() -> StructureSetData:
    """Return three copper cells."""
    cells = [bulk('Cu') * (n, 1, 1) for n in (1, 2, 3)]
    return StructureSetData.from_ase(cells, labels=['one', 'two', 'three']).store()


@pytest.fixture
def work_directory(tmp_path: Path, structures, emt_model) -> Path:
    """Return the work directory of a job that ran to its end."""
    content = structures.base.repository.get_object_content(FRAMES_FILE, mode='rb')
    (tmp_path / FRAMES_FILE).write_bytes(content)
    job = JobSpec('single_point', emt_model.to_spec(), {}, structures.sha256)
    (tmp_path / JOB_FILE).write_text(job.to_json())
    assert run_job(lambda: job, tmp_path)
    (tmp_path / 'worker.err').write_text('')
    return tmp_path


@pytest.fixture
def parse(work_directory, structures, emt_model, python_code) -> Callable[..., Any]:
    """Return a function that parses the work directory as it then is."""

    def function(exit_status: int | None = None) -> tuple[dict[str, orm.Data], orm.CalcJobNode]:
        node = orm.CalcJobNode(
            computer=python_code.computer, process_type='aiida.calculations:mlpotential.single_point'
        )
        node.set_option('resources', {'num_machines': 1, 'num_mpiprocs_per_machine': 1})
        node.set_option('parser_name', 'mlpotential.single_point')
        node.set_option('scheduler_stderr', '_scheduler-stderr.txt')
        for label, value in {'structures': structures, 'model': emt_model, 'code': python_code}.items():
            node.base.links.add_incoming(value, LinkType.INPUT_CALC, label)
        if exit_status is not None:
            node.set_exit_status(exit_status)
            node.set_exit_message('the scheduler says so')
        node.base.repository.put_object_from_file(work_directory / JOB_FILE, JOB_FILE)
        node.store()
        retrieved = orm.FolderData()
        for path in work_directory.rglob('*'):
            if path.is_file() and path.name not in (FRAMES_FILE, JOB_FILE):
                content = io.BytesIO(path.read_bytes())
                retrieved.base.repository.put_object_from_filelike(content, str(path.relative_to(work_directory)))
        retrieved.base.links.add_incoming(node, LinkType.CREATE, 'retrieved')
        retrieved.store()
        results, process = ParserFactory('mlpotential.single_point').parse_from_node(node, store_provenance=False)
        return results, process

    return function


@pytest.fixture
def change_info(work_directory) -> Callable[..., None]:
    """Return a function that changes keys of the results file; ``None`` takes a key away."""

    def function(**changes: Any) -> None:
        path = work_directory / 'results.json'
        info = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in info.items() if value is not None}))

    return function


@pytest.fixture
def change_status(work_directory) -> Callable[[list[int]], None]:
    """Return a function that sets the status of the frames."""

    def function(values: list[int]) -> None:
        np.save(work_directory / 'arrays' / 'status.npy', np.array(values, dtype='i1'))

    return function
