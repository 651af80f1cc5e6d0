"""The self test: it passes for backends that are right, and tells what is wrong with the others."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from aiida_mlpotential.worker import selftest
from aiida_mlpotential.worker.backends import get_backend
from aiida_mlpotential.worker.backends.ase import AseBackend
from aiida_mlpotential.worker.backends.base import Settings

#: The backends with a maker of models; each has the name of its library.
LIBRARIES = ('torchani', 'sgdml', 'schnetpack', 'pinn')


def test_usable(tmp_path: Path) -> None:
    """The calculator of ASE passes; versions are told."""
    facts = selftest.run_selftest('ase', tmp_path)
    assert facts['usable']
    assert facts['evaluated']
    assert facts['device'] == 'cpu'
    assert facts['frames'] == 2
    assert facts['versions']['numpy'] == np.__version__
    assert len(facts['energies']) == 2


@pytest.mark.slow
@pytest.mark.parametrize('backend', LIBRARIES)
def test_backends(backend: str, tmp_path: Path) -> None:
    """Wherever a library is, its self test passes, with a model whose forces are large enough to mean something."""
    spec = importlib.util.find_spec(backend)  # SchNetPack cannot be imported as it is
    if spec is None or spec.origin is None:  # a mere folder of that name
        pytest.skip(f'{backend} is not installed')
    process = subprocess.run(
        [sys.executable, '-m', 'aiida_mlpotential.worker.selftest', backend, str(tmp_path)],
        capture_output=True,
        check=False,
    )
    facts = json.loads((tmp_path / selftest.RESULT_FILE).read_text())
    assert facts['usable'], facts
    assert process.returncode == 0
    assert {'python', 'numpy', 'ase', backend} <= {name.lower() for name in facts['versions']}
    spec = selftest.make_model(backend, tmp_path)
    model = get_backend(backend).load(spec, tmp_path, Settings(precision=selftest.precision_of(backend), num_threads=1))
    frames = selftest.make_frames(spec)
    forces = model.evaluate(frames, frozenset({'forces'})).forces
    assert forces is not None
    assert np.abs(forces).max() > 0.05


def test_models_are_the_same_every_time(tmp_path: Path) -> None:
    """Seeds are fixed: two checks of one installation give the same numbers."""
    first, second = tmp_path / 'a', tmp_path / 'b'
    for directory in (first, second):
        directory.mkdir()
    for backend in ('torchani', 'sgdml'):
        assert selftest.make_model(backend, first).files == selftest.make_model(backend, second).files


def test_unknown_backend(tmp_path: Path) -> None:
    """The label and the names are those of a job."""
    assert selftest.main(['nothing', str(tmp_path)]) == 1
    facts = json.loads((tmp_path / selftest.RESULT_FILE).read_text())
    assert facts['label'] == 'ERROR_MODEL_UNSUPPORTED'
    assert "unknown backend 'nothing'" in facts['message']


def test_missing_library(tmp_path: Path) -> None:
    """It is told from a broken one: by its label."""
    program = (
        'import sys; sys.modules["sgdml"] = None; sys.modules["mace"] = None\n'
        'from aiida_mlpotential.worker.selftest import main\n'
        f'main(["mace", {str(tmp_path)!r}])'
    )
    subprocess.run([sys.executable, '-c', program], check=True)
    facts = json.loads((tmp_path / selftest.RESULT_FILE).read_text())
    assert not facts['usable']
    assert facts['label'] == 'ERROR_BACKEND_MISSING'


def test_wrong_forces_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library whose forces are not the derivatives of its energy does not pass."""
    evaluate = AseBackend.evaluate

    def wrong(self, frames, request):
        result = evaluate(self, frames, request)
        return result if result.forces is None else dataclasses.replace(result, forces=result.forces * 1.02)

    monkeypatch.setattr(AseBackend, 'evaluate', wrong)
    facts = selftest.run_selftest('ase', tmp_path)
    assert not facts['usable']
    assert 'its numbers are wrong: forces against central differences' in facts['message']


def test_any_exception_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that breaks is a sentence as well."""

    def fail(self, frames, request):
        raise RuntimeError('two\nlines')

    monkeypatch.setattr(AseBackend, 'evaluate', fail)
    assert selftest.run_selftest('ase', tmp_path)['message'] == 'RuntimeError: two lines'


@pytest.mark.parametrize(
    ('torch', 'expected'),
    [(None, {'cuda': None, 'gpus': 0}), ('13.0', {'cuda': '13.0', 'gpus': 2})],
)
def test_cuda(torch: str | None, expected: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loaded library says of its build is told; no library is imported for it."""

    class Module:
        class version:  # noqa: N801 - as torch has it
            cuda = torch

        class cuda:  # noqa: N801
            @staticmethod
            def device_count() -> int:
                return 2

    monkeypatch.setitem(sys.modules, 'torch', Module)
    assert selftest._cuda() == expected


@pytest.mark.slow
def test_it_runs_from_the_archive_of_a_job(tmp_path: Path) -> None:
    """The worker comes as a zip file; everything that it needs is in there."""
    root = Path(selftest.__file__).parents[1]
    archive = tmp_path / 'worker.pyz'
    with zipfile.ZipFile(archive, 'w') as file:
        for path in sorted(root.joinpath('worker').rglob('*.py')):
            file.write(path, f'aiida_mlpotential/worker/{path.relative_to(root / "worker")}')
        file.write(root / '__init__.py', 'aiida_mlpotential/__init__.py')
    program = (
        f'import sys; sys.path.insert(0, {str(archive)!r})\n'
        'from aiida_mlpotential.worker import selftest\n'
        f'assert selftest.__file__.startswith({str(archive)!r}), selftest.__file__\n'
        f'sys.exit(selftest.main(["ase", {str(tmp_path)!r}]))'
    )
    subprocess.run([sys.executable, '-c', program], check=True)


def test_a_missing_schnetpack_is_named_with_the_remedy(tmp_path: Path, monkeypatch) -> None:
    """The model cannot even be made without the library, and that is said like for every other backend."""
    pytest.importorskip('torch')
    monkeypatch.setitem(sys.modules, 'schnetpack', None)
    facts = selftest.run_selftest('schnetpack', tmp_path)
    assert not facts['usable']
    assert facts['label'] == 'ERROR_BACKEND_MISSING'
    assert 'aiida-mlpotential backends install schnetpack' in facts['message']
