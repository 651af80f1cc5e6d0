"""Fixtures of the worker's tests: they need neither AiiDA nor a backend library."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames, sha256_of
from aiida_mlpotential.worker.runner import run_job
from aiida_mlpotential.worker.schema import (
    FINGERPRINT_FILE,
    FRAMES_FILE,
    JOB_FILE,
    RESULTS_FILE,
    JobSpec,
    ModelSpec,
)

#: Where jobs find ``odd_emt``.
SERVICES = Path(__file__).parents[1] / 'services'

EMT = ModelSpec(
    'EMT',
    'ase',
    '0' * 64,
    options={'calculator': 'ase.calculators.emt.EMT'},
    elements=('Al', 'Cu', 'Ag', 'Au', 'Ni', 'Pd', 'Pt'),
)


@dataclasses.dataclass
class Job:
    """A job in a directory of its own."""

    directory: Path
    frames: Frames
    model: ModelSpec = EMT
    task: str = 'single_point'

    def write(self, **parameters: Any) -> JobSpec:
        """Write the files of the job."""
        self.frames.write(self.directory / FRAMES_FILE)
        job = JobSpec(self.task, self.model, parameters, sha256_of(self.directory / FRAMES_FILE))
        (self.directory / JOB_FILE).write_text(job.to_json())
        return job

    def run(self, **parameters: Any) -> dict[str, Any]:
        """Run the job in this process and return the content of its results file."""
        job = self.write(**parameters)
        run_job(lambda: job, self.directory)
        return self.info()

    def start(self, environment: dict[str, str] | None = None, **parameters: Any) -> subprocess.Popen[str]:
        """Start the job as a process of its own, as a scheduler does."""
        self.write(**parameters)
        return subprocess.Popen(
            [sys.executable, '-m', 'aiida_mlpotential.worker', JOB_FILE],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def info(self) -> dict[str, Any]:
        """Return the content of the results file."""
        return json.loads((self.directory / RESULTS_FILE).read_text())

    def array(self, name: str) -> np.ndarray:
        """Return a results array."""
        return np.load(self.directory / 'arrays' / f'{name}.npy', allow_pickle=False)

    def n_ok(self) -> int:
        """Return how many frames are evaluated: none before the last file is there, as the others may be half made."""
        there = (self.directory / 'arrays' / FINGERPRINT_FILE).exists()
        return int((self.array('status') == FrameStatus.OK).sum()) if there else 0


def make_copper(number: int, seed: int = 3) -> Frames:
    """Return rattled copper cells of one to four atoms."""
    random = np.random.default_rng(seed)
    structures = []
    for index in range(number):
        atoms = bulk('Cu') * (1 + index % 2, 1 + index // 2 % 2, 1)
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        structures.append(atoms)
    return Frames.from_ase(structures, labels=[f'cu{index}' for index in range(number)])


@pytest.fixture
def molecules() -> list[Atoms]:
    """Return rattled molecules of different sizes and elements, in no order, with single atoms among them."""
    random = np.random.default_rng(5)
    structures = []
    for name in ('CH3CH2OH', 'H2O', 'O', 'C6H6', 'CH3CONH2', 'CH3SH', 'H2', 'C5H5N', 'CH4', 'CO2'):
        atoms = molecule(name)
        atoms.positions += random.normal(scale=0.06, size=atoms.positions.shape)
        structures.append(atoms)
    return structures


@pytest.fixture
def crystals() -> list[Atoms]:
    """Return water in two triclinic cells, one smaller and one larger than the cutoffs."""
    random = np.random.default_rng(7)
    structures = []
    for edge, number in ((3.6, 1), (6.0, 3)):
        cell = np.array([[edge, 0, 0], [0.4, edge, 0], [0.2, -0.3, edge * 1.1]])
        waters = Atoms(cell=cell, pbc=True)
        for index in range(number):
            water = molecule('H2O')
            water.rotate(random.uniform(0, 360), random.normal(size=3))
            water.translate(np.array([index, index * 0.5, index]) / number @ cell + 0.4)
            waters += water
        structures.append(waters)
    return structures


@pytest.fixture
def copper() -> Callable[..., Frames]:
    """Return a maker of rattled copper cells."""
    return make_copper


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Return a job of seven copper cells and EMT."""
    return Job(tmp_path, make_copper(7))


@pytest.fixture
def slow_emt(monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """Return EMT that takes 10 ms for a structure, so that there is time to kill a job; also for other processes."""
    monkeypatch.setenv('PYTHONPATH', str(SERVICES), prepend=os.pathsep)
    return dataclasses.replace(EMT, options={'calculator': 'odd_emt.OddEMT', 'kwargs': {'seconds': 0.01}})


@pytest.fixture
def long_job(tmp_path: Path, slow_emt: ModelSpec) -> Job:
    """Return a job of 400 copper cells that takes four seconds, for a process of its own."""
    return Job(tmp_path, make_copper(400), slow_emt)
