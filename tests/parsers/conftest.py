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

from aiida_mlpotential.data.structures import StructureSetData, to_frames
from aiida_mlpotential.worker.frames import sha256_of, write_npz
from aiida_mlpotential.worker.runner import run_job
from aiida_mlpotential.worker.schema import FRAMES_FILE, JOB_FILE, SYMMETRY_FILE, JobSpec


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


class FinishedJob:
    """A job that ran in a directory, whose files can be spoilt before they are parsed.

    :ivar directory: the work directory
    """

    def __init__(self, task: str, directory: Path, inputs: dict[str, orm.Node]) -> None:
        self.task, self.directory, self._inputs = task, directory, inputs

    def parse(self, exit_status: int | None = None) -> tuple[dict[str, orm.Data], orm.CalcJobNode]:
        """Parse the work directory as it is; return outputs and node."""
        node = orm.CalcJobNode(
            computer=self._inputs['code'].computer, process_type=f'aiida.calculations:mlpotential.{self.task}'
        )
        node.set_option('resources', {'num_machines': 1, 'num_mpiprocs_per_machine': 1})
        node.set_option('parser_name', f'mlpotential.{self.task}')
        node.set_option('scheduler_stderr', '_scheduler-stderr.txt')
        for label, value in self._inputs.items():
            node.base.links.add_incoming(value, LinkType.INPUT_CALC, label)
        if exit_status is not None:
            node.set_exit_status(exit_status)
            node.set_exit_message('the scheduler says so')
        for name in (JOB_FILE, SYMMETRY_FILE):
            if (self.directory / name).exists():
                node.base.repository.put_object_from_file(self.directory / name, name)
        node.store()
        retrieved = orm.FolderData()
        for path in self.directory.rglob('*'):
            if path.is_file() and path.name not in (FRAMES_FILE, JOB_FILE, SYMMETRY_FILE):
                content = io.BytesIO(path.read_bytes())
                retrieved.base.repository.put_object_from_filelike(content, str(path.relative_to(self.directory)))
        retrieved.base.links.add_incoming(node, LinkType.CREATE, 'retrieved')
        retrieved.store()
        return ParserFactory(f'mlpotential.{self.task}').parse_from_node(node, store_provenance=False)

    def load(self, name: str) -> np.ndarray:
        """Return an array of the results."""
        return np.load(self.directory / 'arrays' / f'{name}.npy')

    def save(self, name: str, values: Any) -> None:
        """Put another array in place of one of the results."""
        np.save(self.directory / 'arrays' / f'{name}.npy', values)

    def change_info(self, **changes: Any) -> None:
        """Change keys of the results file; ``None`` takes a key away."""
        path = self.directory / 'results.json'
        info = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in info.items() if value is not None}))


@pytest.fixture
def finish(tmp_path: Path, python_code) -> Callable[..., FinishedJob]:
    """Return a function that runs a job of any task with the worker, and returns it."""

    def function(
        task: str, structures: Any, model: Any, parameters: dict[str, Any] | None = None, symmetry: Any = None
    ) -> FinishedJob:
        single = isinstance(structures, orm.StructureData)
        frames = to_frames(structures)
        frames.write(tmp_path / FRAMES_FILE)
        if symmetry is not None:
            write_npz(tmp_path / SYMMETRY_FILE, symmetry)
        job = JobSpec(
            task,
            model.to_spec(),
            parameters or {},
            sha256_of(tmp_path / FRAMES_FILE),
            '' if symmetry is None else sha256_of(tmp_path / SYMMETRY_FILE),
        )
        (tmp_path / JOB_FILE).write_text(job.to_json())
        assert run_job(lambda: job, tmp_path)
        (tmp_path / 'worker.err').write_text('')
        label = 'structure' if single else 'structures'
        return FinishedJob(task, tmp_path, {label: structures.store(), 'model': model, 'code': python_code})

    return function


@pytest.fixture
def parse(work_directory, structures, emt_model, python_code) -> Callable[..., Any]:
    """Return a function that parses the work directory as it then is."""
    inputs = {'structures': structures, 'model': emt_model, 'code': python_code}
    return FinishedJob('single_point', work_directory, inputs).parse


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
