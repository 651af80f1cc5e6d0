"""A context for tasks, as the runner makes it, over any backend and frames."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from aiida_mlpotential.worker.backends import get_backend
from aiida_mlpotential.worker.backends.base import Settings
from aiida_mlpotential.worker.checkpoint import CheckpointFile
from aiida_mlpotential.worker.errors import FrameStatus
from aiida_mlpotential.worker.frames import Frames
from aiida_mlpotential.worker.parameters import with_defaults
from aiida_mlpotential.worker.progress import Progress
from aiida_mlpotential.worker.schema import ModelSpec
from aiida_mlpotential.worker.storage import ResultsStore, Sizes
from aiida_mlpotential.worker.tasks.base import Context, Messages
from aiida_mlpotential.worker.tasks.evaluation import Evaluator


@pytest.fixture
def make_context(tmp_path):
    """Return a function that makes the context of a task; a directory that was used before is gone on with."""

    def function(task, backend, frames, directory=tmp_path, stopping=lambda: False, symmetry=None, **parameters):
        complete = with_defaults(parameters, task.name)
        complete['precision'] = complete['precision'] or backend.precision
        names = task.quantities(complete, backend.n_members > 1)
        sizes = Sizes(backend.n_members, len(complete.get('temperatures', ())), backend.precision == 'single')
        store = ResultsStore(directory, frames.offsets, names, sizes)
        store.open('job')
        retried = np.flatnonzero(np.isin(store.status, task.retried))
        store.mark(retried, np.full(len(retried), FrameStatus.PENDING, dtype=np.int8))
        notes = []
        return Context(
            frames=frames,
            backend=backend,
            evaluator=Evaluator(backend, notes),
            store=store,
            parameters=complete,
            messages=Messages(),
            notes=notes,
            progress=Progress(len(frames), stream=io.StringIO()),
            stopping=stopping,
            checkpoint=lambda: None,
            checkpoints=CheckpointFile(directory, 'job', complete.get('checkpoint_interval', 30)),
            directory=directory,
            symmetry=symmetry,
        )

    return function


@pytest.fixture
def emt_spec():
    """Return the model of EMT, which needs no file."""
    return ModelSpec('EMT', 'ase', '0' * 64, options={'calculator': 'ase.calculators.emt.EMT'})


@pytest.fixture
def emt(emt_spec):
    """Return EMT, loaded."""
    return get_backend('ase').load(emt_spec, Path(), Settings(device='cpu'))


@pytest.fixture
def crystals():
    """Return a function that makes crystals to be optimized."""

    def function(number=6):
        """Return rattled, sheared cells of copper and aluminium of different sizes."""
        random = np.random.default_rng(4)
        structures = []
        for index in range(number):
            atoms = bulk('Cu' if index % 2 else 'Al', cubic=index > 1) * (1 + index // 4, 1, 1)
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * random.normal(size=(3, 3))), scale_atoms=True)
            atoms.positions += random.normal(scale=0.08, size=atoms.positions.shape)
            structures.append(atoms)
        return Frames.from_ase(structures)

    return function
